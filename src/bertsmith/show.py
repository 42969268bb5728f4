"""The verb `show`: reads a model, tabulates its parts (`anatomy`), and draws it (`diagram.draw`).

Not here: how the table looks on stdout (`cli.show`).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from bertsmith.anatomy import Part, Work, anatomy, symbols, total
from bertsmith.anatomy_seq2seq import seq2seq_anatomy, seq2seq_symbols
from bertsmith.bundle import load_model, resolve
from bertsmith.config.show import ShowOptions
from bertsmith.diagram.draw import diagram
from bertsmith.diagram.seq2seq import seq2seq_diagram
from bertsmith.errors import InputError
from bertsmith.files import check_output, write_file
from bertsmith.models.bert import Bert
from bertsmith.models.seq2seq import Seq2Seq
from bertsmith.writer import is_writer, load_writer

USUAL_LENGTH = 128
"""Tokens of a sequence where the user names no number."""


def show(options: ShowOptions) -> dict[str, Any]:
    """`{"model", "batch_size", "length", "selected", "symbols", "parts", "total"}`; with `--svg`, draws the model too.

    Of an encoder-decoder `length` is that of sources and targets. Raises `InputError` for a length above the model's
    positions, and for a drawing that exists already.
    """
    if options.svg is not None:
        _check_drawing(options.svg, overwrite=options.overwrite)
    path = resolve(options.model)
    model = _writer_of(path) if is_writer(path) else load_model(path)
    halves = [model.encoder.config, model.writer.config] if isinstance(model, Seq2Seq) else [model.config]
    positions = min(config.max_position_embeddings for config in halves)
    length = min(USUAL_LENGTH, positions) if options.length is None else options.length
    if length > positions:
        raise InputError(
            f"the model has {positions} positions, not {length}; give {positions} or less", field="--length"
        )
    work = Work(options.batch_size, length, options.selected)
    if isinstance(model, Bert):
        parts, letters, draw = anatomy(model, work), symbols(model, work), partial(diagram, model, work)
    else:
        assert isinstance(model, Seq2Seq)
        parts, letters = seq2seq_anatomy(model, work), seq2seq_symbols(model, work)
        draw = partial(seq2seq_diagram, model, work)
    if options.svg is not None:
        options.svg.parent.mkdir(parents=True, exist_ok=True)
        name = options.model if options.model.startswith("hf:") else path.resolve().name
        write_file(options.svg, draw(name=name))
    return {
        "model": options.model,
        "batch_size": work.batch_size,
        "length": work.length,
        "selected": work.selected,
        "symbols": letters,
        "parts": [{"part": part.part, "layers": part.layers, **_figures(part)} for part in parts],
        "total": _figures(total(parts)),
    }


def _writer_of(path: Path) -> Bert | Seq2Seq:
    """An encoder-decoder, or the shape of a decoder alone: that of an encoder with an MLM head that sees half as much,
    without memory."""
    model = load_writer(path).model
    if isinstance(model, Seq2Seq):
        return model
    with torch.device("meta"):
        return Bert(model.config, heads=["masked_lm"])


def _figures(part: Part) -> dict[str, Any]:
    return {
        "parameters": part.parameters,
        "flops": part.flops,
        "activation_bytes": part.activation_bytes,
        "complexity": part.complexity,
        "activation_complexity": part.activation_complexity,
    }


def _check_drawing(svg: Path, *, overwrite: bool) -> None:
    """Before the model is read; `check_output` alone would speak of `--out`."""
    if svg.is_dir():
        raise InputError("a directory; --svg names a file", file=svg)
    if svg.exists() and not overwrite:
        raise InputError("exists already; give --overwrite to replace it, or another --svg", file=svg)
    check_output(svg, overwrite=True, is_file=True)
