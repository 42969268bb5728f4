"""Runs the command line in this process, as a user would see it."""

from __future__ import annotations

from dataclasses import dataclass

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
