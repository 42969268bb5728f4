"""Runs the command line in this process, as a user would see it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from bertsmith.cli.main import main


@dataclass
class Outcome:
    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """The lines that say `bertsmith: error:`."""
        return [line for line in self.err.splitlines() if line.startswith("bertsmith: error:")]


def bertsmith(capsys: pytest.CaptureFixture[str], *words: object) -> Outcome:
    capsys.readouterr()
    try:
        code = main([str(word) for word in words])
    except SystemExit as end:
        code = int(end.code or 0)
    captured = capsys.readouterr()
    return Outcome(code, captured.out, captured.err)


def assert_refused(outcome: Outcome, pattern: str, out: Path | None = None, *, lines: int = 1) -> None:
    """One line (or `lines`) that `pattern` is found in, exit code 2, and nothing written."""
    assert outcome.code == 2, outcome.err
    assert outcome.out == ""
    assert len(outcome.errors) == lines, outcome.err
    assert "Traceback" not in outcome.err
    assert re.search(pattern, outcome.errors[0]), f"{pattern!r} not in: {outcome.errors[0]}"
    if out is not None:
        assert not out.exists()
        assert not list(out.parent.glob(f".{out.name}*"))
