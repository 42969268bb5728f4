"""An encoder-decoder in parts: the encoder's, then the decoder's, with its attention to the source.

Sources and targets have the same length here, and every token of a target is guessed. What the halves share counts
with the encoder. Not here: what the figures mean, and an encoder's parts (`anatomy`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from bertsmith.anatomy import Part, Work, anatomy, heads_width, kept_by_attention, kept_by_norm, parameters, symbols
from bertsmith.models.bert import Bert
from bertsmith.models.flops import linear_flops
from bertsmith.models.seq2seq import Seq2Seq

OF_THE_HEAD = (" transform", " decoder")
"""What the names of parts end with that no half shares with the other."""


def seq2seq_anatomy(model: Seq2Seq, work: Work) -> list[Part]:
    """The parts of `model`, in the order in which data passes them."""
    reader, writer = halves(model)
    found = [replace(part, part=f"encoder: {part.part}") for part in anatomy(reader, work)]
    found += _bridge(model, work)
    for part in anatomy(writer, replace(work, selected=1.0)):
        if part.part == "feed-forward in":
            found += _cross(model, writer, work)
        own = 0 if _is_shared(model, part.part) else part.parameters
        found.append(replace(part, part=f"decoder: {part.part}", parameters=own))
    return found


def seq2seq_symbols(model: Seq2Seq, work: Work) -> dict[str, int]:
    """What the letters of the complexities stand for; those of a decoder of another shape have a stroke."""
    reader, writer = halves(model)
    found, own = symbols(reader, work), symbols(writer, work)
    return found | {f"{letter}′": value for letter, value in own.items() if found.get(letter) != value}


def halves(model: Seq2Seq) -> tuple[Bert, Bert]:
    """Each half as an encoder, without memory: of a model only its shape is read."""
    with torch.device("meta"):
        return Bert(model.encoder.config), Bert(model.writer.config, heads=("masked_lm",))


def _is_shared(model: Seq2Seq, part: str) -> bool:
    shared = model.writer.config.shared
    of_head = part.endswith(OF_THE_HEAD)
    return not of_head if shared == "halves" else shared == "tokens" and part == "token embedding"


def _bridge(model: Seq2Seq, work: Work) -> Iterator[Part]:
    """The encoder's states, which each block of the decoder reads."""
    width = model.encoder.config.hidden_size
    yield Part("encoder: states", 1, 0, 0, work.tokens * width, ("BSD",), ("BSD",))
    if model.project is not None:
        into = model.project.out_features
        flops = linear_flops(model.encoder.config, work.tokens, outputs=into)
        yield Part("projection of states", 1, parameters(model.project), flops, work.tokens * into, ("BSDD",), ("BSD",))


def _cross(model: Seq2Seq, writer: Bert, work: Work) -> Iterator[Part]:
    """The attention to the source, of all blocks."""
    config, tokens, layers = model.writer.config, work.tokens, model.writer.config.num_hidden_layers
    keys, values = config.num_attention_heads * config.head_size, config.num_attention_heads * config.value_size
    source = config.source_size or config.hidden_size
    kept = kept_by_attention(writer, work, 0)
    pairs = tokens * work.length
    heads = heads_width(writer)
    blocks = model.writer.decoder.blocks

    def row(name: str, module: str, work_of: str, flops: int, values: int, kept_of: str = "") -> Part:
        found = [block.get_submodule(part) for block in blocks for part in module.split()]
        terms = (kept_of,) if values else ()
        return Part(f"decoder: {name}", layers, parameters(*found), layers * flops, layers * values, (work_of,), terms)

    query = linear_flops(config, tokens, outputs=keys)
    read = 2 * tokens * source * (keys + values)
    norm = tokens * (2 * config.hidden_size + kept_by_norm(writer))
    yield row("query of the source", "cross.query", f"LBSD{heads}", query, kept["qkv"], f"LBS{heads}")
    yield row("key, value of the source", "cross.key_value", f"LBSD{heads}", read, 0)
    copies = kept["scores"] if config.value_size != config.head_size else 0
    yield row("scores Q Kᵀ of the source", "", f"LBSS{heads}", 2 * pairs * keys, copies, f"LBS{heads}")
    yield row("softmax, times V of the source", "", f"LBSS{heads}", 2 * pairs * values, kept["context"], f"LBS{heads}")
    out = linear_flops(config, tokens, outputs=values)
    yield row("output projection of the source", "cross.output", f"LBSD{heads}", out, 0)
    yield row("norm and residual of the source", "cross_norm", "LBSD", 0, norm, "LBSD")
