"""Changes to a built model: another vocabulary size, fewer blocks, fewer heads, all heads again, frozen layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bertsmith.config.encoder import EncoderConfig
from bertsmith.models.bert import Bert
from bertsmith.nn.attention import SelfAttention
from bertsmith.nn.init import initialize


def num_labels(model: Bert) -> int:
    """Outputs of the classifier or token classifier; 2 if there is none."""
    head = model.classifier or model.token_classifier
    return 2 if head is None else head.linear.out_features


def rebuilt(model: Bert, config: EncoderConfig) -> Bert:
    """A model of the same heads, mode and dtype with `config`; its weights are drawn, not copied."""
    new = Bert(config, heads=model.heads, num_labels=num_labels(model))
    return new.to(model.encoder.embeddings.tokens.weight).train(model.training)


@torch.no_grad()
def with_padding_id(model: Bert, pad_token_id: int) -> Bert:
    """The same model with another padding token: another row without look-up gradient; no weight changes."""
    new = rebuilt(model, EncoderConfig(**model.config.model_dump() | {"pad_token_id": pad_token_id}))
    new.load_state_dict(model.state_dict())
    return new


@torch.no_grad()
def resize_vocabulary(model: Bert, vocab_size: int) -> Bert:
    """The same model with `vocab_size` pieces: token table, untied decoder and decoder bias move together.

    New rows are drawn as at initialisation, new biases are zero; rows past `vocab_size` are dropped.
    """
    new = rebuilt(model, EncoderConfig(**model.config.model_dump() | {"vocab_size": vocab_size}))
    rows = min(vocab_size, model.config.vocab_size)
    state = new.state_dict()
    for name, tensor in model.state_dict().items():
        if state[name].shape == tensor.shape and name not in VOCABULARY_TENSORS:
            state[name] = tensor
        else:
            state[name][:rows] = tensor[:rows]
    new.load_state_dict(state)
    return new


@torch.no_grad()
def extend_vocabulary(model: Bert, old_pieces: Mapping[int, Sequence[int]]) -> Bert:
    """The model with new pieces: id -> the pieces that stood for it before.

    Their rows of token table, untied decoder and decoder bias become the means of the rows of those pieces; the tables
    grow if they must.
    """
    new = resize_vocabulary(model, max(model.config.vocab_size, *(number + 1 for number in old_pieces)))
    state = new.state_dict()
    for name in VOCABULARY_TENSORS:
        if name in state:
            for number, pieces in old_pieces.items():
                state[name][number] = state[name][list(pieces)].mean(0)
    return new


VOCABULARY_TENSORS = ("encoder.embeddings.tokens.weight", "masked_lm.decoder.weight", "masked_lm.bias")
"""Tensors with a row for each piece."""


@torch.no_grad()
def take_layers(model: Bert, layers: int) -> Bert:
    """The model with `layers` of its blocks, evenly chosen from the first to the last: of 12 blocks 6 are those of
    DistilBERT, 0, 2, 4, 7, 9 and 11 (Sanh et al. 2019, section 3). Raises `ValueError` for more than there are.
    """
    config, had = model.config, model.config.num_hidden_layers
    if not 1 <= layers <= had:
        raise ValueError(f"{layers} blocks cannot be taken; the model has {had}")
    chosen = [round(i * (had - 1) / max(layers - 1, 1)) for i in range(layers)]
    pruned = {new: config.pruned_heads[old] for new, old in enumerate(chosen) if old in config.pruned_heads}
    changes: dict[str, Any] = {"num_hidden_layers": layers, "pruned_heads": pruned}
    if config.layer_types is not None:
        changes["layer_types"] = tuple(config.layer_types[old] for old in chosen)
    smaller = rebuilt(model, EncoderConfig(**config.model_dump() | changes))
    outside = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("encoder.blocks.")}
    smaller.load_state_dict(outside, strict=False)
    for new, old in enumerate(chosen):
        smaller.encoder.blocks[new].load_state_dict(model.encoder.blocks[old].state_dict())
    return smaller


@torch.no_grad()
def prune_heads(model: Bert, heads: Mapping[int, Sequence[int]]) -> Bert:
    """The model without these heads (layer -> their numbers), for good; those pruned before stay pruned.

    Same outputs as a head mask with zeros there (Michel et al. 2019), with smaller matrices. Raises pydantic's
    `ValidationError` for a layer or head that does not exist, or a layer left without any.
    """
    gone = dict(model.config.pruned_heads)
    for layer, numbers in heads.items():
        gone[layer] = tuple(sorted({*gone.get(layer, ()), *numbers}))
    gone = {layer: numbers for layer, numbers in sorted(gone.items()) if numbers}
    return _with_heads(model, EncoderConfig(**model.config.model_dump() | {"pruned_heads": gone}))


@torch.no_grad()
def restore_heads(model: Bert) -> Bert:
    """The full shape again: pruned heads come back with zero weights, and so without effect."""
    return _with_heads(model, EncoderConfig(**model.config.model_dump() | {"pruned_heads": {}}))


def _with_heads(model: Bert, config: EncoderConfig) -> Bert:
    new = rebuilt(model, config)
    state = model.state_dict()
    for layer in range(config.num_hidden_layers):
        name = f"encoder.blocks.{layer}.attention"
        had, has = model.config.kept_heads(layer), config.kept_heads(layer)
        sizes = attention_of(model, layer).sizes
        for kind in ("weight", "bias") if config.attention_bias else ("weight",):
            parts = state[f"{name}.qkv.{kind}"].split(sizes)
            state[f"{name}.qkv.{kind}"] = torch.cat([_select(part, had, has) for part in parts])
        state[f"{name}.output.weight"] = _select(state[f"{name}.output.weight"].mT, had, has).mT
    new.load_state_dict(state)
    return new


def _select(rows: Tensor, had: Sequence[int], has: Sequence[int]) -> Tensor:
    """Rows in blocks, one for each head of `had`, as blocks for the heads of `has`; those not there are zeros."""
    blocks = dict(zip(had, rows.chunk(len(had)), strict=True))
    nothing = torch.zeros_like(rows[: len(rows) // len(had)])
    return torch.cat([blocks.get(head, nothing) for head in has])


def freeze(model: Bert, layers: int) -> list[nn.Parameter]:
    """Exclude the embeddings and the first `layers` blocks from training; returns the parameters still trained.

    0 freezes the embeddings alone. Raises `ValueError` if there are not so many blocks.
    """
    if not 0 <= layers <= model.config.num_hidden_layers:
        raise ValueError(f"{layers} layers cannot be frozen; the model has {model.config.num_hidden_layers}")
    for part in (model.encoder.embeddings, *model.encoder.blocks[:layers]):
        part.requires_grad_(False)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def reinitialize(model: Bert, layers: int) -> None:
    """Draw the last `layers` blocks and the pooler anew (Zhang et al. 2021, section 5). Raises `ValueError` for more
    blocks than there are."""
    blocks = model.encoder.blocks
    if layers > len(blocks):
        raise ValueError(f"{layers} is more than the model's {len(blocks)} blocks")
    parts = [*list(blocks)[len(blocks) - layers :], *([model.pooler] if model.pooler is not None and layers else [])]
    for part in parts:
        initialize(part, std=model.config.initializer_range)


def attention_of(model: Bert, layer: int) -> SelfAttention:
    """The attention of block `layer`."""
    attention = model.encoder.blocks[layer].get_submodule("attention")
    assert isinstance(attention, SelfAttention)
    return attention
