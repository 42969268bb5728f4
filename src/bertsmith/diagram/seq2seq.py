"""The drawing of an encoder-decoder: the decoder at the right reads the states of the encoder at the left.

    hidden states ──────┐     head
    ┌─────────────┐     │     hidden states
    │ the block of│     │     ┌ norm, (+) and feed-forward            ┐
    │ an encoder  │ × L └───► │ norm, (+) and attention to the source │ × L
    └─────────────┘           │ norm, (+) and attention               │
    embeddings                └───────────────────────────────────────┘
                              embeddings

Vaswani et al. 2017, figure 1. Not here: a half alone (`diagram.draw`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from bertsmith.anatomy import Work, parameters
from bertsmith.anatomy_seq2seq import halves
from bertsmith.config.encoder import EncoderConfig
from bertsmith.diagram.draw import FORK, GAP, LANE, Cross, Drawing
from bertsmith.diagram.labels import Labels, counted, number_of, shape
from bertsmith.diagram.svg import Label
from bertsmith.models.bert import Bert
from bertsmith.models.seq2seq import Seq2Seq

SHARED = {
    "nothing": "",
    "tokens": " · one token table",
    "halves": " · the halves are one but for the attention to the source",
}
"""`DecoderConfig.shared` in the caption."""


class DecoderLabels(Labels):
    """Of a decoder, of which the encoder may have parts."""

    def __init__(self, model: Seq2Seq, work: Work) -> None:
        super().__init__(halves(model)[1], replace(work, selected=1.0))
        self.has_own_table = model.writer.config.shared != "tokens"

    def attention(self) -> tuple[Label, Label, Label, Label, Label]:
        """See `Labels`; a token sees itself and those before it."""
        scores, softmax, sums, heads, output = super().attention()
        return scores, replace(softmax, title="Softmax over the keys so far"), sums, heads, output

    def tables(self) -> list[Label]:
        """See `Labels`."""
        tokens, *others = super().tables()
        if not self.has_own_table:
            tokens = replace(tokens, details=(tokens.details[0], "the encoder's"))
        return [tokens, *others]


def seq2seq_diagram(model: Seq2Seq, work: Work, *, name: str) -> str:
    """An SVG file of `model`; `work` gives the batch, and the length of sources and targets."""
    reader, writer = halves(model)
    left = Drawing(reader, Labels(reader, work))
    cross = Cross(_projections(model, work), _attention(model, work), _block_counts(model))
    right = Drawing(writer, DecoderLabels(model, work), cross=cross)
    for drawing in (left, right):
        drawing.embeddings()
        drawing.blocks()
        drawing.outputs()
    canvas = left.canvas
    lane = canvas.extent()[2] + LANE
    place = lane + LANE - right.canvas.extent()[0]
    canvas.put(right.canvas, place)
    start, (value, key) = left.states, (replace(box, x=box.x + place) for box in right.source)
    turn = key.bottom - FORK
    if model.project is not None:
        rows = f"{model.encoder.config.hidden_size} → {model.project.out_features}"
        details = (rows, counted(parameters(model.project)))
        start = canvas.box(Label("Projection of states", details), left.states.x, bottom=start.top + GAP)
        canvas.arrow((start.x, left.states.top), (start.x, start.bottom))
    canvas.arrow((start.right, start.middle), (lane, start.middle), (lane, turn), (key.x, turn), (key.x, key.bottom))
    canvas.arrow((value.x, turn), (value.x, value.bottom))
    summary = _summary(model, work)
    canvas.caption(name, summary)
    return canvas.to_svg(title=f"Architecture of {name}", description=" · ".join(summary))


def _projections(model: Seq2Seq, work: Work) -> list[Label]:
    """Value, key and query of the attention to the source."""
    config, batch = model.writer.config, work.batch_size
    heads, source = config.num_attention_heads, config.source_size or config.hidden_size
    parts = (
        ("Value of the source", source, config.value_size),
        ("Key of the source", source, config.head_size),
        ("Query", config.hidden_size, config.head_size),
    )
    found = []
    for title, width, size in parts:
        count = counted((width + config.attention_bias) * heads * size)
        details = (f"{width} → {heads} × {size}", shape(batch, work.length, heads, size), count)
        found.append(Label(title, details, "attention"))
    return found


def _attention(model: Seq2Seq, work: Work) -> Sequence[Label]:
    """From scores to the output projection, as in an encoder: every token sees all of the source."""
    fields = {name: getattr(model.writer.config, name) for name in EncoderConfig.model_fields}
    with torch.device("meta"):
        return Labels(Bert(EncoderConfig(**fields)), work).attention()


def _block_counts(model: Seq2Seq) -> list[int]:
    """Parameters of each block of the decoder that are its own."""
    names = ("cross", "cross_norm") if model.writer.config.shared == "halves" else ("",)
    return [parameters(*(block.get_submodule(name) for name in names)) for block in model.writer.decoder.blocks]


def _summary(model: Seq2Seq, work: Work) -> Sequence[str]:
    encoder, decoder = model.encoder.config, model.writer.config
    sizes = (
        f"{encoder.num_hidden_layers} and {number_of(decoder.num_hidden_layers, 'block')}",
        f"hidden size {decoder.hidden_size}",
        f"{number_of(decoder.num_attention_heads, 'head')} of {decoder.head_size}",
        f"vocabulary {decoder.vocab_size}",
    )
    given = f"{number_of(work.batch_size, 'pair')} of {number_of(work.length, 'token')} each"
    whole = f"{counted(model.num_parameters)} · shapes for {given}{SHARED[decoder.shared]}"
    return " · ".join(sizes), whole
