"""How far a long job is: a bar on a terminal, plain lines elsewhere. Not here: training's own (`train.tracking`)."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger("bertsmith")

LINE_SECONDS = 10.0
"""Seconds between two plain lines."""


@contextmanager
def progress(total: int, *, what: str, unit: str, done: int = 0) -> Iterator[Callable[[int], None]]:
    """A function that is told how many more units are done: "embedding … 40 of 90 files"."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True)) as bar:
            task = bar.add_task(what, total=total, completed=done)
            yield lambda count: bar.advance(task, count)
        return
    last = time.monotonic()

    def report(count: int) -> None:
        nonlocal done, last
        done += count
        if time.monotonic() - last >= LINE_SECONDS:
            last = time.monotonic()
            log.info("%s: %d of %d %s", what, done, total, unit)

    yield report
