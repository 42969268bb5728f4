"""Crash-safe writing of files and directories, and the manifest that says a directory is complete.

The order is always the same: temporary in the same parent, write, flush, fsync,
rename, fsync of the parent. A directory gets its manifest last, so its presence means complete.

    .encoder.tmp-4711/            <- everything is written here
        config.json … bertsmith.json (sizes and SHA-256 of the rest, written last)
    encoder/                      <- one rename; with overwrite, one exchange of the two names
"""

from __future__ import annotations

import ctypes
import fcntl
import glob
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from bertsmith.errors import InputError

MANIFEST = "bertsmith.json"
"""File name of the manifest in every directory that bertsmith writes."""

VERSIONS = {"answers": 1, "checkpoint": 1, "model": 1, "onnx": 1, "report": 1, "shards": 2, "tokenizer": 1}
"""Kind of a directory -> the version that is written, and the only one that is read: one more with each change that
readers of the one before would get wrong."""


def fsync_path(path: Path) -> None:
    """Flush a file or a directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A stream whose content becomes `path` at a clean end: a crash leaves the old content or the new, never a part."""
    remove_stale(path)
    temporary = scratch_name(path, "tmp")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.filename is None:  # a full disk, say: the system names no file, and numpy not even the reason
            raise OSError(error.errno or 0, error.strerror or str(error), str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
    fsync_path(path.parent)


def write_file(path: Path, content: bytes | str) -> None:
    """Write `path` at one go, as `new_file` does."""
    with new_file(path) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


def to_json(value: Any) -> str:
    """JSON text with sorted-as-given keys, two spaces, a final newline; NaN is refused."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_manifest(directory: Path, content: dict[str, Any], *, kind: str, exclude: tuple[str, ...] = ()) -> None:
    """Write `directory/bertsmith.json`: `kind` and its version, `content`, size and SHA-256 of every file beside
    it, and its own SHA-256.

    `exclude` names files and sub-folders that may change after this (a model card, a training directory's `train`).
    """
    files = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        skipped = name == MANIFEST or name.split("/")[0] in exclude or path.name.startswith(".")
        if path.is_file() and not skipped:
            fsync_path(path)
            files[name] = {"size": path.stat().st_size, "sha256": sha256(path)}
    fsync_path(directory)
    manifest = {"kind": kind, "version": VERSIONS[kind], **content, "files": files}
    write_file(directory / MANIFEST, to_json({**manifest, "sha256": _own_sum(manifest)}))


def _own_sum(manifest: dict[str, Any]) -> str:
    """SHA-256 of a manifest's content, in hexadecimal."""
    return hashlib.sha256(to_json(manifest).encode()).hexdigest()


def read_json(path: Path) -> Any:
    """Parse a JSON file; an unreadable one is an `InputError` that names line and reason."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError("no such file", file=path) from None
    return parse_json(content, file=path)


def parse_json(content: bytes, *, file: Path) -> Any:
    """Parse the content of `file`, as `read_json` does."""
    try:
        return json.loads(content, parse_constant=_refuse_constant)
    except RecursionError:
        raise InputError("not a file that bertsmith can read: it is nested too deeply", file=file) from None
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError, and our own
        line = getattr(error, "lineno", None)
        raise InputError(f"not valid JSON ({error}); the file is damaged", file=file, line=line) from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def read_manifest(
    directory: Path, *, kind: str | None = None, keys: tuple[str, ...] = (), verify: bool = True
) -> dict[str, Any]:
    """The manifest of `directory`, after checking size and SHA-256 of every file that it lists.

    `kind` is what the directory must be, in the version that is read (`VERSIONS`); `keys` name tables that it must
    have. Raises `InputError` when the manifest is missing (the directory is incomplete), of another kind or version,
    without one of these tables, or when a file was changed since it was written.
    """
    if not directory.is_dir():
        raise InputError("no such directory" if not directory.exists() else "not a directory", file=directory)
    path = directory / MANIFEST
    if not path.is_file():
        raise InputError(f"no {MANIFEST} in it: not written by bertsmith, or its writing was cut off", file=directory)
    manifest = read_json(path)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise InputError('not a manifest: it has no "files" table', file=path)
    own = manifest.pop("sha256", None)
    if own != _own_sum(manifest):
        raise InputError(
            "its SHA-256 is not the one it carries: the file is damaged; write the directory again", file=path
        )
    if kind is not None and manifest.get("kind") != kind:
        made_of = dict(manifest.get("provenance") or {}).get("source")
        fix = "" if made_of is None else f", as {made_of} is, of which it was made"
        raise InputError(f"this is a directory of kind {manifest.get('kind')!r}; {kind!r} is needed{fix}", file=path)
    if kind is not None and manifest.get("version") != VERSIONS[kind]:
        raise InputError(
            f"a directory of kind {kind!r} and version {manifest.get('version')!r}; this bertsmith reads version "
            f"{VERSIONS[kind]}: write it again",
            file=path,
        )
    for key in keys:
        if not isinstance(manifest.get(key), dict):
            raise InputError(f'it has no "{key}" table; write the directory again', file=path)
    if verify:
        for name, entry in manifest["files"].items():
            verify_file(directory, name, entry)
    return manifest


def verify_file(directory: Path, name: str, entry: dict[str, Any]) -> None:
    """Raise `InputError` unless `directory/name` has the size and SHA-256 that `entry` gives."""
    path = directory / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(f"the manifest names a path outside the directory: {name!r}", file=directory / MANIFEST)
    if not path.is_file():
        raise InputError("the manifest lists this file, but it is missing; write the directory again", file=path)
    size = path.stat().st_size
    if size != entry["size"]:
        raise InputError(
            f"{size} bytes, the manifest says {entry['size']}: the file is damaged; write it again", file=path
        )
    if sha256(path) != entry["sha256"]:
        raise InputError("its SHA-256 is not the manifest's: the file is damaged; write it again", file=path)


def check_output(out: Path, *, overwrite: bool, is_file: bool = False, kind: str | None = None) -> None:
    """Refuse an output that exists, or that cannot be made, before anything is computed.

    With `overwrite`, what exists must be a file, if one is to be written, or a directory that bertsmith wrote; of this
    `kind` if one is given.
    """
    _check_place(out, overwrite=overwrite)
    if out.is_file() and not is_file:
        raise InputError("is a file, and a directory is to be written; give another --out", file=out)
    if out.is_dir() and not _is_ours(out):
        raise InputError("holds files that bertsmith did not write, which --overwrite would delete", file=out)
    if kind is not None and (out / MANIFEST).is_file() and (found := read_json(out / MANIFEST).get("kind")) != kind:
        raise InputError(f"is a {found}, which a {kind} would replace; give another --out", file=out)


def try_lock(stream: BinaryIO) -> bool:
    """Hold an open file for this process until it is closed; `False` if another process, or stream, holds it."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def check_source(out: Path, source: str | Path, *, named: str | None = None) -> None:
    """Refuse an output that would replace what it is made of: the source itself, or a directory that holds it.

    `named`: the option that names the source, where there are several.
    """
    if Path(source).resolve().is_relative_to(out.resolve()):
        which = "" if named is None else f", which {named} names"
        raise InputError(f"would take the place of its own source{which}; choose another", file=out, field="--out")


def _check_place(out: Path, *, overwrite: bool) -> None:
    if not out.name:
        raise InputError("names no file or directory of its own", field="--out")
    if out.exists() and not overwrite:
        raise InputError("exists already; give --overwrite to replace it, or another --out", file=out)
    for parent in out.absolute().parents:
        if parent.exists():
            if not parent.is_dir():
                raise InputError(f"cannot be made: {parent} is not a directory", file=out)
            return


def _is_ours(directory: Path) -> bool:
    """Whether a directory is empty, an artefact, or an unfinished run: nothing of the user's would be lost."""
    marks = (MANIFEST, "train/config.yaml")
    return not any(directory.iterdir()) or any((directory / mark).is_file() for mark in marks)


def scratch_name(out: Path, what: str) -> Path:
    """A hidden sibling of `out` that this process alone uses."""
    return out.with_name(f".{out.name}.{what}-{os.getpid()}")


@contextmanager
def new_directory(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a temporary sibling to write into; at a clean end it becomes `out`, else it is removed.

    The caller writes the manifest before the end. With `overwrite`, an existing `out` is replaced by
    one exchange of names, and only then removed: at no moment is there neither. An `OSError` of a file in the
    temporary one names the file as it would have been called in `out`.
    """
    _check_place(out, overwrite=overwrite)
    out.parent.mkdir(parents=True, exist_ok=True)
    remove_stale(out)
    temporary = scratch_name(out, "tmp")
    temporary.mkdir()
    try:
        yield temporary
        put_in_place(temporary, out)
    except OSError as error:  # a full disk, say: nobody finds a name that is gone by then
        if error.filename is not None and (path := Path(os.fsdecode(error.filename))).is_relative_to(temporary):
            error.filename = str(out / path.relative_to(temporary))
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def put_in_place(temporary: Path, out: Path) -> None:
    """Rename `temporary` to `out`; what stood there before is removed after the exchange."""
    fsync_path(temporary)
    if out.exists():
        _exchange(temporary, out)
        _remove(temporary)
    else:
        temporary.rename(out)
    fsync_path(out.parent)


def remove_stale(out: Path) -> None:
    """Remove temporaries of `out` that a killed process left (its process is gone, or has this one's number)."""
    for path in out.parent.glob(f".{glob.escape(out.name)}.tmp-*"):
        process = path.name.rsplit("-", 1)[-1]
        if process.isdigit() and not _is_alive(int(process)):
            _remove(path)


def _is_alive(process: int) -> bool:
    if process == os.getpid():  # in a container every run may have the same number; this one has begun nothing yet
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _exchange(one: Path, other: Path) -> None:
    """Swap two names in one step (Linux `renameat2`); elsewhere by three renames."""
    at_current_directory, rename_exchange = -100, 2
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is not None and not rename(
        at_current_directory, os.fsencode(one), at_current_directory, os.fsencode(other), rename_exchange
    ):
        return
    aside = scratch_name(other, "old")
    other.rename(aside)
    one.rename(other)
    aside.rename(one)
