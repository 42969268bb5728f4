"""The verbs `predict` and `fill`. Not here: what a model answers (`model`), and one that writes (`generate`)."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from bertsmith.bundle import resolve
from bertsmith.config.inference import FillOptions, PredictOptions
from bertsmith.data.text import blank_lines
from bertsmith.generate import predict_texts
from bertsmith.model import open_engine, open_model
from bertsmith.progress import progress
from bertsmith.writer import is_writer

log = logging.getLogger("bertsmith")

PART_ROWS = 32_768
"""Rows whose tokens and answers are in memory at a time; a longer file is tokenised twice, to find bad rows first."""


def predict(options: PredictOptions) -> Iterator[Any]:
    """One answer for each row, in order, as soon as its part of the file is computed. Nothing is computed while a row
    of the file is bad."""
    if is_writer(resolve(options.model)):
        yield from predict_texts(options)
        return
    model = open_engine(options)
    if options.text is not None:
        choices = None if options.choices is None else tuple(part.strip() for part in options.choices.split("|"))
        rows = [
            model.row(options.text, pair=options.pair, question=options.question, choices=choices, file=Path("--text"))
        ]
    elif options.data is not None:
        rows = model.task().read(options.data, columns=options.columns, labelled=False)
        if blank := blank_lines(options.data, len(rows)):
            log.warning("%s: %d blank lines have no answer", options.data, blank)
    parts = [rows[start : start + PART_ROWS] for start in range(0, len(rows), PART_ROWS)]
    for part in parts if len(parts) > 1 else ():
        model.inputs(part)
    shows = len(parts) > 1 and not sys.stdout.isatty()  # answers on a terminal are progress enough
    with progress(len(rows), what="predicting", unit="rows") if shows else nullcontext(lambda _: None) as report:
        for part in parts:
            yield from model.predict_rows(part, batch_tokens=options.batch_tokens)
            report(len(part))


def fill(options: FillOptions) -> list[list[dict[str, Any]]]:
    """See `Model.fill`."""
    targets = None if options.targets is None else [target.strip() for target in options.targets.split(",")]
    return open_model(options).fill(options.text, top_k=options.top_k, targets=targets)
