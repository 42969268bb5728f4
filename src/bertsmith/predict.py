"""The verbs `predict` and `fill`. Not here: what a model answers (`model`), and one that writes (`generate`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bertsmith.bundle import resolve
from bertsmith.config.inference import FillOptions, PredictOptions
from bertsmith.generate import predict_texts
from bertsmith.model import open_engine, open_model
from bertsmith.writer import is_writer


def predict(options: PredictOptions) -> Iterator[Any]:
    """One answer for each row, in order."""
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
    yield from model.predict_rows(rows, batch_tokens=options.batch_tokens)


def fill(options: FillOptions) -> list[list[dict[str, Any]]]:
    """See `Model.fill`."""
    targets = None if options.targets is None else [target.strip() for target in options.targets.split(",")]
    return open_model(options).fill(options.text, top_k=options.top_k, targets=targets)
