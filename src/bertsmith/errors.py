"""What can go wrong, as exceptions that know their exit code and print as one line.

Not here: where they are printed (`cli.main`). Every error that a user can cause is an `InputError`;
whatever goes wrong on the machine while the work runs is a `RunError`.

    data/train.tsv:1842: field "label": unknown label "postive"; expected one of: negative, positive
    ^ file         ^ line ^ field        ^ message, which ends in the fix
"""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_controls = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

MAX_LISTED = 20
"""How many errors of one file are printed before the rest is only counted."""


class BertsmithError(Exception):
    """Base of all errors that are reported as one line; `exit_code` is the process's status."""

    exit_code = 1

    def lines(self) -> list[str]:
        """The lines to print, without the `bertsmith: error: ` in front."""
        return [str(self)]


class InputError(BertsmithError):
    """Bad input, configuration or artefact, or a refused overwrite: exit code 2."""

    exit_code = 2

    def __init__(
        self,
        message: str,
        *,
        file: str | Path | None = None,
        line: int | None = None,
        field: str | None = None,
    ) -> None:
        self.message, self.file, self.line, self.field = message, file, line, field
        where = "" if file is None else f"{file}:{line}: " if line is not None else f"{file}: "
        what = "" if field is None else f'field "{field}": '
        super().__init__(f"{where}{what}{message}")


class InputErrors(InputError):
    """Several bad places of one input; the first `MAX_LISTED` are listed, the rest is counted."""

    def __init__(self, errors: list[InputError], *, total: int) -> None:
        self.errors, self.total = errors, total
        BertsmithError.__init__(self, "; ".join(str(error) for error in errors))

    def lines(self) -> list[str]:
        """One line per error, and a last one that counts what is not listed."""
        listed = [str(error) for error in self.errors]
        hidden = self.total - len(listed)
        return [*listed, f"… and {hidden} more of the same kind"] if hidden else listed


class RunError(BertsmithError):
    """A failure at run time (disk full, non-finite loss, lost rank): exit code 1."""


class GateMissed(BertsmithError):
    """`--fail-under` was not reached: exit code 3."""

    exit_code = 3


class Interrupted(BertsmithError):
    """SIGINT (130) or SIGTERM (143) arrived, and the work so far is saved."""

    def __init__(self, message: str, *, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class ErrorCollector:
    """Gathers the errors of one pass over the input, so that a user sees up to 20 at once.

    Usage: `collector.add(InputError(…))` for each bad row, then `collector.raise_if_any()`.
    """

    def __init__(self) -> None:
        self.errors: list[InputError] = []
        self.total = 0

    def add(self, error: InputError) -> None:
        """Count `error`, and keep it if fewer than `MAX_LISTED` came before."""
        self.total += 1
        if len(self.errors) < MAX_LISTED:
            self.errors.append(error)

    def raise_if_any(self) -> None:
        """Raise what was gathered: one `InputError` alone, or `InputErrors`."""
        if self.total == 1:
            raise self.errors[0]
        if self.total:
            raise InputErrors(self.errors, total=self.total)


def import_extra(module: str, *, extra: str, field: str | None = None) -> Any:
    """The module of an optional dependency. Raises `InputError` naming the flag that needs it, if one does, and the
    extra."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise InputError(f'needs {module}: pip install "bertsmith[{extra}]"', field=field) from None


def nearest(name: str, choices: Iterable[str]) -> str:
    """A suggestion to append to a message about an unknown name.

    `nearest("--vocabsize", ["--vocab-size"])` -> `'; did you mean "--vocab-size"?'`, else `''`.
    """
    found = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.6)
    return f'; did you mean "{found[0]}"?' if found else ""


def listing(names: Iterable[str], limit: int = 20) -> str:
    """Names for a message: `['a', 'b']` -> `'a, b'`; beyond `limit` only their number is added."""
    every = list(names)
    tail = f", … ({len(every)} in all)" if len(every) > limit else ""
    return ", ".join(every[:limit]) + tail


def printable(text: str) -> str:
    r"""What a terminal shows and does not obey: control characters, and those that turn the direction, are escaped."""
    return _controls.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
