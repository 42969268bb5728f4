"""The directory that `prepare` works in, and how an interrupted one goes on. Not here: what a state says.

.shards.partial/           beside shards/, until all is done
    train-00000.arrow …    complete files; what the state does not list is thrown away
    .documents-00000 …     hashes seen (data.dedup), one file for each checkpoint
    .state.json            written last at each checkpoint: flags, input files, position, counts, files done
    .lock                  held by the process that writes here
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from bertsmith.errors import InputError
from bertsmith.files import (
    check_output,
    fsync_path,
    put_in_place,
    read_json,
    sha256,
    to_json,
    try_lock,
    verify_file,
    write_file,
)

log = logging.getLogger("bertsmith")

STATE, LOCK = ".state.json", ".lock"


@dataclass(frozen=True)
class Workplace:
    """Where the files are written; `state` is what an interrupted process saved last, if this one goes on with it."""

    directory: Path
    given: dict[str, Any]
    """`flags` and `text` of this run."""
    state: dict[str, Any] | None

    def save(self, content: dict[str, Any], done: dict[str, Any], new: Sequence[Path]) -> None:
        """A checkpoint: `content`, and the complete files, `done` before and `new` ones, which are added to `done`."""
        for path in new:
            fsync_path(path)
            done[path.name] = {"size": path.stat().st_size, "sha256": sha256(path)}
        fsync_path(self.directory)
        write_file(self.directory / STATE, to_json({**self.given, **content, "done": done}))


def fingerprints(files: Sequence[Path]) -> list[dict[str, Any]]:
    """What shows that an input file was changed: size and time."""
    return [
        {"file": str(path.absolute()), "size": path.stat().st_size, "mtime_ns": path.stat().st_mtime_ns}
        for path in files
    ]


@contextmanager
def workplace(
    out: Path, files: Sequence[Path], *, flags: dict[str, Any], overwrite: bool, resume: bool
) -> Iterator[Workplace]:
    """A directory to write into, which becomes `out` at a clean end; the caller writes the manifest before.

    After a bad input nothing remains of it, after anything else what `--resume` can use.
    Raises `InputError` if it cannot go on: other flags, changed files, another process at work.
    """
    check_output(out, overwrite=overwrite)
    partial = out.with_name(f".{out.name}.partial")
    if (partial / STATE).is_file() and not (resume or overwrite):
        raise InputError("an interrupted prepare left its files; --resume goes on, --overwrite starts anew", file=out)
    partial.mkdir(parents=True, exist_ok=True)
    given = {"flags": flags, "text": fingerprints(files)}
    with _locked(partial, out):
        state = None
        if resume and (partial / STATE).is_file():
            state = read_json(partial / STATE)
            _check(state, given)
            for name, entry in state["done"].items():
                verify_file(partial, name, entry)
        _clear(partial, keep=() if state is None else (STATE, *state["done"]))
        try:
            yield Workplace(partial, given, state)
        except BaseException as error:
            if isinstance(error, InputError) or not (partial / STATE).is_file():
                shutil.rmtree(partial, ignore_errors=True)
            else:
                log.warning("what is done is kept in %s: the same command with --resume goes on", partial)
            raise
        put_in_place(partial, out)
    for path in out.glob(".*"):
        path.unlink()


@contextmanager
def _locked(partial: Path, out: Path) -> Iterator[BinaryIO]:
    with (partial / LOCK).open("wb") as stream:
        if not try_lock(stream):
            raise InputError("another prepare is writing it; wait, or give another --out", file=out)
        yield stream


def _clear(partial: Path, *, keep: Sequence[str]) -> None:
    for path in partial.iterdir():
        if path.name in (LOCK, *keep):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _check(state: dict[str, Any], given: dict[str, Any]) -> None:
    """Raise `InputError` unless the interrupted process had these flags and files."""
    for name, value in given["flags"].items():
        if state["flags"].get(name) != value:
            raise InputError(
                f"--resume needs what the interrupted prepare had: {state['flags'].get(name)!r}, not {value!r}; "
                "give that, or start anew with --overwrite",
                field=name,
            )
    if [entry["file"] for entry in state["text"]] != [entry["file"] for entry in given["text"]]:
        raise InputError(
            "--resume needs the files of the interrupted prepare; start anew with --overwrite", field="FILES"
        )
    for before, now in zip(state["text"], given["text"], strict=True):
        if before != now:
            raise InputError(
                "changed since the interrupted prepare began to read it; start anew with --overwrite", file=now["file"]
            )
