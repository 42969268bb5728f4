"""Opening files: which there are, which formats, and their bytes, unpacked.

Not here: what the bytes mean (`data.text`).
"""

from __future__ import annotations

import gzip
import io
import lzma
import stat
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, Protocol

from bertsmith.errors import ErrorCollector, InputError, nearest

TAGGED = (".conll", ".conllu", ".bio", ".iob", ".iob2")
"""Extensions of files with one word a line (`data.tagged`)."""

FORMATS = (".txt", ".jsonl", ".csv", ".tsv", ".parquet")
"""Extensions that say how the content is read."""

COMPRESSIONS = (".gz", ".xz", ".zst")
"""Extensions that may follow one of `FORMATS`, but for Parquet, which is compressed inside."""

BUFFER = 1 << 18
"""Bytes read at a time."""


def check_files(files: Sequence[Path], *, formats: Sequence[str] = FORMATS) -> None:
    """Raise one `InputError`, or up to 20 as `InputErrors`, unless every file can be read by this module.

    Each must exist, be a regular file, have an extension of `formats`, and not be empty.
    """
    if not files:
        raise InputError("no files are given")
    errors = ErrorCollector()
    for path in files:
        try:
            _check_file(path, formats)
        except InputError as error:
            errors.add(error)
    errors.raise_if_any()


def _check_file(path: Path, formats: Sequence[str]) -> None:
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        _refuse(path, error)
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"is a directory; give files, for example {path}/*.txt", file=path)
    if not stat.S_ISREG(status.st_mode):
        raise InputError("is not a regular file; write its content to a file first", file=path)
    extension, compression = format_of(path)
    if extension == ".parquet" and compression:
        raise InputError(f"Parquet is compressed inside; unpack the {compression} first", file=path)
    if extension not in formats:
        besides = "each but .parquet also" if ".parquet" in formats else "each also"
        known = f"expected {', '.join(formats)}, {besides} with {', '.join(COMPRESSIONS)}"
        raise InputError(f'the extension "{extension}{compression}" is not supported; {known}', file=path)
    if not status.st_size:
        raise InputError("is empty", file=path)


def _refuse(path: Path, error: OSError | ValueError) -> NoReturn:
    """Turn a failure to open `path` into an `InputError`."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        siblings: list[str] = []
        with suppress(OSError):
            siblings += [sibling.name for sibling in path.parent.iterdir()]
        raise InputError(f"no such file{nearest(path.name, siblings)}", file=path) from None
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    raise InputError(f"cannot be opened: {reason}", file=path) from None


def format_of(path: Path) -> tuple[str, str]:
    """Extension and compression: `a.csv.gz` -> `(".csv", ".gz")`, `a.txt` -> `(".txt", "")`."""
    suffix = path.suffix.lower()
    if suffix in COMPRESSIONS:
        return path.with_suffix("").suffix.lower(), suffix
    return suffix, ""


def open_binary(path: Path) -> BinaryIO:
    """The content of `path` as a buffered byte stream, unpacked if its name ends in .gz, .xz or .zst.

    Raises `InputError` if it cannot be opened, and while reading if the archive is damaged.
    """
    compression = format_of(path)[1]
    try:
        if not compression:
            return path.open("rb", buffering=BUFFER)
        return io.BufferedReader(_Archive(path, _decompressor(path, compression)), BUFFER)
    except (OSError, ValueError) as error:
        _refuse(path, error)


class _Source(Protocol):
    def read(self, size: int, /) -> bytes: ...
    def close(self) -> None: ...


def _decompressor(path: Path, compression: str) -> _Source:
    if compression == ".gz":
        return gzip.open(path, "rb")
    if compression == ".xz":
        return _XzFile(path)
    import pyarrow as pa

    source: _Source = pa.input_stream(str(path), compression="zstd")
    return source


class _XzFile:
    """Reads all streams of an .xz file; `lzma.LZMAFile` ignores whatever follows the first good one."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ)

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; none at the end of the last stream."""
        content = b""
        while not content:
            packed = b""
            if self._stream.eof:
                packed = self._stream.unused_data.lstrip(b"\0")
                while not packed:
                    block = self._file.read(BUFFER)
                    if not block:
                        return b""
                    packed = block.lstrip(b"\0")  # streams may be padded with zeros
                self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ)
            elif self._stream.needs_input:
                packed = self._file.read(BUFFER)
                if not packed:
                    raise EOFError("it ends in the middle of a stream")
            content = self._stream.decompress(packed, size)
        return content

    def close(self) -> None:
        self._file.close()


class _Archive(io.RawIOBase):
    """An unpacking stream; what any of the libraries raises about damage becomes one `InputError`."""

    def __init__(self, path: Path, source: _Source) -> None:
        self._path, self._source = path, source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            content = self._source.read(len(buffer))
        except (EOFError, OSError, ValueError, lzma.LZMAError, zlib.error) as error:
            reason = f"the archive is damaged or truncated ({error}); make or download it again"
            raise InputError(reason, file=self._path) from None
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._source.close()
        super().close()
