"""Vectors of a long job on their way into a file, so that a job that was stopped goes on where it was.

    vectors.npy.part         room for .npy's header, then float32 rows
    vectors.npy.part.json    of which job they are, how many of them count, and their checksum; written before the first
                             byte of the part, so that a part without it is somebody else's, and after each part of rows
    .vectors.npy.lock        held by the process that writes here

At the end the header is filled in and the file gets its name. Not here: Parquet (`embed`), which is made from it.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from bertsmith.errors import InputError
from bertsmith.files import check_output, fsync_path, read_json, remove_stale, to_json, try_lock, write_file

HEADER_BYTES = 128
"""Length of an .npy header of a matrix; numpy pads it to a multiple of 64."""

READ_ROWS = 8192
"""Rows that are read at a time from the finished part."""

CHECKED_BYTES = 1 << 20
"""Bytes that are read at a time to check a part."""


class Spool:
    """The rows of `out` that are done, and `figures` of the job so far. One process at a time writes them.

    Raises `InputError` for rows of another job, or of one that is not resumed, for a file in the way that is not a
    job's, for damaged ones, and while another job is writing.
    """

    def __init__(
        self,
        out: Path,
        *,
        size: int,
        job: dict[str, Any],
        resume: bool,
        overwrite: bool,
        figures: Sequence[str] = (),
    ) -> None:
        self.out, self.size, self.job = out, size, job
        self.part, self.journal = (out.with_name(f"{out.name}.part{suffix}") for suffix in ("", ".json"))
        self.rows = self.checksum = 0
        self.counts = dict.fromkeys(figures, 0)
        """Figures of the job so far, kept with the rows."""
        out.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(out)
        try:
            check_output(out, overwrite=overwrite, is_file=True)  # another job may have written it by now
            self._look(resume=resume, overwrite=overwrite)
            remove_stale(out)
            self.stream = self._opened()
        except BaseException:
            _unlock(self._lock)
            raise

    @property
    def _bytes(self) -> int:
        return HEADER_BYTES + 4 * self.size * self.rows

    def _look(self, *, resume: bool, overwrite: bool) -> None:
        """Take over the rows of a job that was stopped. Raises `InputError` if what is there must not be touched."""
        has_part = os.path.lexists(self.part)
        if not os.path.lexists(self.journal):
            if has_part:
                raise InputError("is in the way, and no job left it; move or remove it", file=self.part)
            return
        if has_part and overwrite and not resume:
            return
        found = self._journal("--overwrite starts again" if has_part else "move or remove it")
        if not has_part or not found["rows"]:  # killed before the first part of the rows, or after the last
            return
        if not resume:
            raise InputError(
                "is a job that was stopped; --resume goes on with it, --overwrite starts again", file=self.journal
            )
        self._go_on(found)

    def _journal(self, fix: str) -> dict[str, Any]:
        try:
            found = read_json(self.journal)
        except InputError as error:
            raise InputError(f"{error.message}; {fix}", file=error.file, line=error.line) from None
        counts = found.get("counts") if isinstance(found, dict) else None
        is_whole = (
            isinstance(found, dict)
            and isinstance(found.get("job"), dict)
            and _is_count(found.get("rows"))
            and _is_count(found.get("checksum"))
            and isinstance(counts, dict)
            and all(map(_is_count, counts.values()))
            and self.counts.keys() <= counts.keys()
        )
        if not is_whole:
            raise InputError(f"not the journal of a job, or the file is damaged; {fix}", file=self.journal)
        return dict(found)

    def _go_on(self, found: dict[str, Any]) -> None:
        before = found["job"]
        for key in self.job | before:
            if self.job.get(key) != before.get(key):
                raise InputError(
                    f"the job that was stopped had {key} {before.get(key)}, this one has {self.job.get(key)}; "
                    "--overwrite starts again",
                    file=self.journal,
                    field=key,
                )
        self.rows, self.counts, self.checksum = found["rows"], found["counts"], found["checksum"]
        if self.part.stat().st_size < self._bytes:
            raise InputError("has fewer rows than its journal says; --overwrite starts again", file=self.part)
        if _checksum(self.part, HEADER_BYTES, self._bytes) != self.checksum:
            raise InputError(
                "its rows are not the ones that were written: the file is damaged; --overwrite starts again",
                file=self.part,
            )

    def _opened(self) -> BinaryIO:
        """The part, after its last row that counts."""
        if not self.rows:
            self._note(0, 0, self.counts)
        try:
            stream = self.part.open("r+b" if self.rows else "wb")
        except OSError:
            if not self.rows:
                self.journal.unlink()
            raise
        stream.truncate(self._bytes)
        stream.seek(self._bytes)
        return stream

    def add(self, vectors: np.ndarray, **counts: int) -> None:
        """Append `[rows, size]` and add to the figures; both are safe when it returns."""
        content = np.ascontiguousarray(vectors, np.float32).data
        self._write(content)
        self._note(
            self.rows + len(vectors),
            zlib.crc32(content, self.checksum),
            {name: self.counts.get(name, 0) + count for name, count in counts.items()},
        )

    def _note(self, rows: int, checksum: int, counts: dict[str, int]) -> None:
        """Write the journal; only then do the rows count."""
        content = {"job": self.job, "rows": rows, "checksum": checksum, "counts": counts}
        write_file(self.journal, to_json(content))
        self.rows, self.checksum, self.counts = rows, checksum, counts

    def _write(self, content: bytes | memoryview) -> None:
        try:
            self.stream.write(content)
            self.stream.flush()
            os.fsync(self.stream.fileno())
        except OSError as error:  # a full disk, say: the system names no file
            raise OSError(error.errno or 0, error.strerror or str(error), str(self.part)) from error

    def read(self) -> Iterator[np.ndarray]:
        """All rows, `[at most READ_ROWS, size]` at a time."""
        rows = np.memmap(self.part, np.float32, "r", HEADER_BYTES, (self.rows, self.size))
        for start in range(0, self.rows, READ_ROWS):
            yield np.asarray(rows[start : start + READ_ROWS])

    def become_npy(self) -> None:
        """Turn the part into `out`, a matrix in numpy's format."""
        header = BytesIO()
        values = {"descr": "<f4", "fortran_order": False, "shape": (self.rows, self.size)}
        np.lib.format.write_array_header_1_0(header, values)
        assert len(header.getvalue()) == HEADER_BYTES
        self.stream.seek(0)
        self._write(header.getvalue())
        self.part.replace(self.out)
        fsync_path(self.out.parent)
        self.remove()

    def remove(self) -> None:
        """Forget the job: its rows are somewhere else now. The journal goes last, as it came first."""
        self.part.unlink(missing_ok=True)
        self.journal.unlink(missing_ok=True)

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stream.close()  # what could not be written is tried once more
        except OSError:
            if kind is None:
                raise
        finally:
            try:
                if not self.rows:
                    self.remove()
            finally:
                _unlock(self._lock)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _checksum(path: Path, start: int, end: int) -> int:
    """CRC-32 of the bytes of a file from `start` to `end`."""
    found = 0
    with path.open("rb") as stream:
        stream.seek(start)
        while content := stream.read(min(CHECKED_BYTES, end - stream.tell())):
            found = zlib.crc32(content, found)
    return found


def _locked(out: Path) -> BinaryIO:
    """The lock of `out`, held until it is given to `_unlock`. Raises `InputError` if another process has it."""
    path = out.with_name(f".{out.name}.lock")
    while True:
        stream = path.open("ab")
        try:
            if not try_lock(stream):
                raise InputError("another job is writing it; wait, or give another --out", file=out)
            if os.path.samestat(os.fstat(stream.fileno()), path.stat()):
                return stream
        except FileNotFoundError:
            pass
        except BaseException:
            stream.close()
            raise
        stream.close()  # its holder removed it after it was opened here


def _unlock(stream: BinaryIO) -> None:
    """Remove the lock, unless the file is the user's, and let it go."""
    with stream:
        if not os.fstat(stream.fileno()).st_size:
            Path(stream.name).unlink(missing_ok=True)
