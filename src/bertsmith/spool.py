"""Vectors of a long job on their way into a file, so that a job that was stopped goes on where it was.

    vectors.npy.part         room for .npy's header, then float32 rows
    vectors.npy.part.json    of which job they are, and how many of them count; written after each part of the rows

At the end the header is filled in and the file gets its name. Not here: Parquet (`embed`), which is made from it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from bertsmith.errors import InputError
from bertsmith.files import fsync_path, read_json, remove_stale, to_json, write_file

HEADER_BYTES = 128
"""Length of an .npy header of a matrix; numpy pads it to a multiple of 64."""

READ_ROWS = 8192
"""Rows that are read at a time from the finished part."""


class Spool:
    """The rows of `out` that are done. Raises `InputError` for rows of another job, or of one that is not resumed."""

    def __init__(self, out: Path, *, size: int, job: dict[str, Any], resume: bool, overwrite: bool) -> None:
        self.out, self.size, self.job = out, size, job
        self.part, self.journal = (out.with_name(f"{out.name}.part{suffix}") for suffix in ("", ".json"))
        self.rows = 0
        self.counts: dict[str, int] = {}
        """Figures of the job so far, kept with the rows."""
        if self.journal.is_file() and self.part.is_file():
            if resume:
                self._go_on()
            elif not overwrite:
                raise InputError(
                    "is a job that was stopped; --resume goes on with it, --overwrite starts again", file=self.journal
                )
        out.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(out)
        self.stream = self.part.open("r+b" if self.rows else "wb")
        self.stream.truncate(self._bytes)
        self.stream.seek(self._bytes)

    @property
    def _bytes(self) -> int:
        return HEADER_BYTES + 4 * self.size * self.rows

    def _go_on(self) -> None:
        found = read_json(self.journal)
        before = found.get("job", {}) if isinstance(found, dict) else {}
        for key in self.job | before:
            if self.job.get(key) != before.get(key):
                raise InputError(
                    f"the job that was stopped had {key} {before.get(key)}, this one has {self.job.get(key)}; "
                    "--overwrite starts again",
                    file=self.journal,
                    field=key,
                )
        self.rows, self.counts = found["rows"], found["counts"]
        if self.part.stat().st_size < self._bytes:
            raise InputError("has fewer rows than its journal says; --overwrite starts again", file=self.part)

    def add(self, vectors: np.ndarray, **counts: int) -> None:
        """Append `[rows, size]` and add to the figures; both are safe when it returns."""
        self._write(np.ascontiguousarray(vectors, np.float32).data)
        self.rows += len(vectors)
        self.counts = {name: self.counts.get(name, 0) + count for name, count in counts.items()}
        write_file(self.journal, to_json({"job": self.job, "rows": self.rows, "counts": self.counts}))

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
        self.journal.unlink()

    def remove(self) -> None:
        """Forget the job: its rows are somewhere else now."""
        self.journal.unlink()
        self.part.unlink()

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
        if not self.journal.is_file():
            self.part.unlink(missing_ok=True)
