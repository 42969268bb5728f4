"""Vectors on their way into a file: a job that was stopped goes on, and rows of another job are refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

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


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
def test_while_a_job_writes_another_is_refused_and_touches_nothing(tmp_path: Path, flags: dict[str, bool]) -> None:
    out = tmp_path / "v.npy"
    with spool(out) as job:
        job.add(rows(0, 4))
        before = contents(tmp_path)
        with pytest.raises(InputError, match="another job is writing it; wait, or give another --out") as caught:
            spool(out, **flags)
        assert (caught.value.file, contents(tmp_path)) == (out, before)
        job.add(rows(4, 5))
        job.become_npy()
    np.testing.assert_array_equal(np.load(out), rows(0, 5))
    assert list(contents(tmp_path)) == ["v.npy"]


def test_what_another_job_has_written_since_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "v.npy"
    out.write_bytes(b"of the other")
    with pytest.raises(InputError, match="exists already; give --overwrite"):
        spool(out)
    assert contents(tmp_path) == {"v.npy": b"of the other"}


@pytest.mark.parametrize("name", ["v.npy.part", "v.npy.part.json", ".v.npy.lock"])
def test_a_file_of_the_users_stays(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"mine")
    for flags in ({}, {"resume": True}, {"overwrite": True}):
        if name == ".v.npy.lock":
            spool(tmp_path / "v.npy").__exit__(None, None, None)
        else:
            with pytest.raises(InputError, match="move or remove it") as caught:
                spool(tmp_path / "v.npy", **flags)
            assert caught.value.file == tmp_path / name
        assert contents(tmp_path) == {name: b"mine"}


@pytest.mark.parametrize("place", [128, 150, 175])
def test_a_damaged_part_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int) -> None:
    monkeypatch.setattr("bertsmith.spool.CHECKED_BYTES", 20)
    out = tmp_path / "v.npy"
    stopped(out)
    part = tmp_path / "v.npy.part"
    content = bytearray(part.read_bytes())
    content[place] ^= 1
    part.write_bytes(content)
    with pytest.raises(InputError, match="the file is damaged; --overwrite starts again") as caught:
        spool(out, resume=True)
    assert (caught.value.file, part.read_bytes()) == (part, content)
    with spool(out, overwrite=True) as job:
        assert job.rows == 0


DAMAGES: dict[str, Any] = {
    **{f"no {name}": {name: None} for name in ("job", "rows", "checksum", "counts")},
    **{f"rows {rows!r}": {"rows": rows} for rows in ("4", 100.5, -5, True, [4])},
    "checksum of text": {"checksum": "1"},
    "job a list": {"job": []},
    "counts a list": {"counts": []},
    "a count of text": {"counts": {"tokens": "9"}},
    "a count below zero": {"counts": {"tokens": -9}},
    "no count of tokens": {"counts": {}},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_journal_is_refused(tmp_path: Path, damage: str) -> None:
    out, journal = tmp_path / "v.npy", tmp_path / "v.npy.part.json"
    stopped(out)
    found = json.loads(journal.read_text()) | DAMAGES[damage]
    assert_the_journal_is_refused(out, json.dumps({name: value for name, value in found.items() if value is not None}))


@pytest.mark.parametrize("content", ["", "[]", "3", "null", '{"job": {', '{"rows": NaN}'])
def test_a_journal_that_is_no_table_is_refused(tmp_path: Path, content: str) -> None:
    stopped(tmp_path / "v.npy")
    assert_the_journal_is_refused(tmp_path / "v.npy", content)


def assert_the_journal_is_refused(out: Path, content: str) -> None:
    journal = out.with_name("v.npy.part.json")
    journal.write_text(content)
    before = contents(out.parent)
    with pytest.raises(InputError, match="the file is damaged; --overwrite starts again") as caught:
        Spool(out, size=3, job=JOB, resume=True, overwrite=False, figures=["tokens"])
    assert (caught.value.file, contents(out.parent)) == (journal, before)
    with spool(out, overwrite=True) as job:
        assert job.rows == 0


# A child for each moment to die at: an opening, renaming or removing of a file, by number.
KILLING = """
import os, signal, sys
from pathlib import Path
import numpy as np
from bertsmith.errors import InputError
from bertsmith.spool import Spool

def work(out, **flags):
    with Spool(out, size=3, job={"data": "a"}, **flags) as spool:
        for start in range(spool.rows, 6, 2):
            spool.add(np.arange(start * 3, start * 3 + 6, dtype=np.float32).reshape(2, 3))
        if out.suffix == ".npy":
            spool.become_npy()
        else:
            out.write_bytes(b"".join(rows.tobytes() for rows in spool.read()))
            spool.remove()

def die_at(moment, out):
    calls = 0
    def count(event, arguments):
        nonlocal calls
        if event in ("open", "os.rename", "os.remove"):
            calls += 1
            if calls == moment:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)
    work(out, resume=False, overwrite=False)
    os._exit(0)

for suffix in ("npy", "rows"):
    whole = Path(f"whole.{suffix}")
    work(whole, resume=False, overwrite=False)
    for moment in range(1, 1000):
        out = Path(f"{suffix}-{moment}/v.{suffix}")
        child = os.fork()
        if not child:
            die_at(moment, out)
        if os.waitpid(child, 0)[1] == 0:
            break
        work(out, resume=True, overwrite=out.exists())
        assert out.read_bytes() == whole.read_bytes(), moment
        assert os.listdir(out.parent) == [out.name], (moment, os.listdir(out.parent))
    print(moment)
"""


def test_a_job_killed_at_any_moment_goes_on_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLING], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(int(moments) > 20 for moments in done.stdout.split())
