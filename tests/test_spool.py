"""Vectors on their way into a file: a job that was stopped goes on, and rows of another job are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bertsmith.errors import InputError
from bertsmith.spool import Spool

JOB = {"data": "a", "model": "b"}


def spool(out: Path, *, job: dict[str, str] = JOB, resume: bool = False, overwrite: bool = False) -> Spool:
    return Spool(out, size=3, job=job, resume=resume, overwrite=overwrite)


def rows(start: int, end: int) -> np.ndarray:
    return np.arange(start * 3, end * 3, dtype=np.float32).reshape(-1, 3)


def stopped(out: Path) -> None:
    with spool(out) as first:
        first.add(rows(0, 4), tokens=9)
        first.stream.write(b"half a row")  # written, but not in the journal


def test_parts_become_a_matrix_in_numpys_format(tmp_path: Path) -> None:
    out = tmp_path / "new" / "v.npy"
    with spool(out) as job:
        job.add(rows(0, 4))
        job.add(rows(4, 5))
        job.become_npy()
    np.testing.assert_array_equal(np.load(out), rows(0, 5))
    assert [path.name for path in out.parent.iterdir()] == ["v.npy"]


def test_a_stopped_job_goes_on_after_its_last_whole_part(tmp_path: Path) -> None:
    out = tmp_path / "v.npy"
    stopped(out)
    with spool(out, resume=True) as job:
        assert (job.rows, job.counts) == (4, {"tokens": 9})
        job.add(rows(4, 6), tokens=5)
        assert job.counts == {"tokens": 14}
        np.testing.assert_array_equal(np.concatenate(list(job.read())), rows(0, 6))
        job.become_npy()
    np.testing.assert_array_equal(np.load(out), rows(0, 6))


def test_without_resume_a_stopped_job_is_named_and_kept(tmp_path: Path) -> None:
    out = tmp_path / "v.npy"
    stopped(out)
    with pytest.raises(InputError, match="--resume goes on with it, --overwrite starts again"):
        spool(out)
    with spool(out, resume=True) as job:
        assert job.rows == 4
    with spool(out, overwrite=True) as job:
        assert job.rows == 0


@pytest.mark.parametrize("key", JOB)
def test_rows_of_another_job_are_refused_and_the_difference_named(tmp_path: Path, key: str) -> None:
    out = tmp_path / "v.npy"
    stopped(out)
    with pytest.raises(InputError, match=f"had {key} {JOB[key]}, this one has z; --overwrite") as caught:
        spool(out, job=JOB | {key: "z"}, resume=True)
    assert (caught.value.file, caught.value.field) == (tmp_path / "v.npy.part.json", key)


def test_fewer_rows_than_the_journal_says_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "v.npy"
    stopped(out)
    journal = tmp_path / "v.npy.part.json"
    journal.write_text(json.dumps(json.loads(journal.read_text()) | {"rows": 400}))
    with pytest.raises(InputError, match="fewer rows than its journal says"):
        spool(out, resume=True)
