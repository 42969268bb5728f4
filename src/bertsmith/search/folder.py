"""The files of a folder: which there are, how large and how old. Not here: what they say (`search.passages`)."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from bertsmith.data.archives import FORMATS, format_of
from bertsmith.errors import InputError, nearest
from bertsmith.files import sha256


@dataclass(frozen=True, slots=True)
class Seen:
    """A file as the folder lists it: `path` is relative, its parts joined by `/`."""

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Listing:
    """What a folder holds."""

    files: dict[str, Seen] = field(default_factory=dict)
    """Path -> regular file, in the order of the paths."""
    odd: dict[str, str] = field(default_factory=dict)
    """Path -> why it is no file that could be read."""
    hidden: int = 0
    """Names that begin with a dot."""


def check_folder(folder: Path) -> None:
    """Raise `InputError` unless `folder` is a directory."""
    if folder.is_dir():
        return
    if folder.exists():
        raise InputError("is a file; give the folder that it lies in", file=folder)
    siblings = [path.name for path in folder.parent.iterdir() if path.is_dir()] if folder.parent.is_dir() else []
    raise InputError(f"no such folder{nearest(folder.name, siblings)}", file=folder)


def list_folder(folder: Path, *, without: Collection[Path] = ()) -> Listing:
    """Every file below `folder`, but for hidden ones and those of `without` (absolute paths).

    Links to files are followed; links to folders are not, because they may lead in circles.
    """
    own = {str(path) for path in without}
    files: dict[str, Seen] = {}
    odd: dict[str, str] = {}
    hidden = 0
    waiting = [(os.path.realpath(folder), "")]
    while waiting:
        place, prefix = waiting.pop()
        try:
            entries = list(os.scandir(place))
        except OSError as error:
            odd[prefix.rstrip("/") or "."] = f"cannot be listed: {error.strerror}"
            continue
        for entry in entries:
            name = prefix + entry.name
            if entry.name.startswith("."):
                hidden += 1
            elif entry.is_dir(follow_symlinks=False):
                waiting.append((entry.path, f"{name}/"))
            elif entry.path not in own:
                problem = _problem(entry)
                if problem is None:
                    status = entry.stat()
                    files[name] = Seen(name, status.st_size, status.st_mtime_ns)
                else:
                    odd[name.encode(errors="backslashreplace").decode()] = problem
    return Listing(dict(sorted(files.items())), dict(sorted(odd.items())), hidden)


def _problem(entry: os.DirEntry[str]) -> str | None:
    try:
        entry.name.encode()
        status = entry.stat()
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if stat.S_ISDIR(status.st_mode):
        return "a link to a folder"
    return None if stat.S_ISREG(status.st_mode) else "not a regular file"


def content_key(file: Path) -> str:
    """What a file says, as a name: SHA-256 of its bytes and how its name tells to read them.

    `notes.md` and `copy/notes.txt` with equal bytes have equal keys, `a.tsv` has another.
    """
    extension, compression = format_of(file)
    kind = extension if extension in FORMATS else ".txt"
    return f"{sha256(file)}{kind}{compression}"
