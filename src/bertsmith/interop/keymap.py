"""The interpreter of key tables: renames, concatenations, flips and drops, applied in either direction.

A table is a list of rules; `{i}` in a name stands for the number of a layer. Everything but `Drop` is reversible:

    Rename("encoder.blocks.{i}.feedforward.output.weight", "bert.encoder.layer.{i}.output.dense.weight")
    Concat("….attention.qkv.weight", ("….query.weight", "….key.weight", "….value.weight"))   along dimension 0
    Flip("next_sentence.linear.bias", "nsp.output.bias")   theirs counts the classes the other way round
    Pad("encoder.embeddings.tokens.weight", "bert.embeddings.word_embeddings.weight")   theirs has no padding rows
    Drop("bert.embeddings.position_ids")   theirs may hold it, ours derives it
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bertsmith.config.encoder import EncoderConfig, padded
from bertsmith.errors import InputError


@dataclass(frozen=True)
class Rename:
    """One tensor of theirs is one of ours."""

    ours: str
    theirs: str


@dataclass(frozen=True)
class Pad(Rename):
    """As `Rename`, but ours has rows of zeros added at the end (the vocabulary, padded in memory)."""

    rows: int | None = None
    """Size of the vocabulary, where a model has several."""


@dataclass(frozen=True)
class Flip(Rename):
    """As `Rename`, with the rows in reverse order."""


@dataclass(frozen=True)
class View(Rename):
    """As `Rename`, but theirs has a dimension of size 1 in front."""


@dataclass(frozen=True)
class Concat:
    """Ours is several of theirs, one under the other (dimension 0), with rows in the proportion `ratio`."""

    ours: str
    theirs: tuple[str, ...]
    ratio: tuple[int, ...] = (1, 1, 1)


@dataclass(frozen=True)
class Drop:
    """A tensor of theirs that ours does not need."""

    theirs: str


Rule = Rename | Concat | Drop


def expand(rules: Iterable[Rule], config: EncoderConfig) -> list[Rule]:
    """Rules with `{i}` once per layer: `Rename("a.{i}", "b.{i}")` with 2 layers -> `a.0 b.0`, `a.1 b.1`.

    Concatenations get the proportion of query, key and value; of two parts, that of key and value.
    """
    ratio = (config.head_size, config.head_size, config.value_size)
    expanded: list[Rule] = []
    for rule in rules:
        for i in range(config.num_hidden_layers if "{i}" in str(rule) else 1):
            number = ("{i}", str(i))
            if isinstance(rule, Drop):
                expanded.append(Drop(rule.theirs.replace(*number)))
            elif isinstance(rule, Concat):
                theirs = tuple(name.replace(*number) for name in rule.theirs)
                expanded.append(Concat(rule.ours.replace(*number), theirs, ratio[-len(theirs) :]))
            else:
                expanded.append(replace(rule, ours=rule.ours.replace(*number), theirs=rule.theirs.replace(*number)))
    return expanded


def of_vocabulary(rules: Iterable[Rule], size: int) -> list[Rule]:
    """The rules with tables of so many rows, for a half of a model whose other half has a vocabulary of its own."""
    return [replace(rule, rows=size) if isinstance(rule, Pad) else rule for rule in rules]


def _theirs(rule: Rename | Concat) -> tuple[str, ...]:
    return rule.theirs if isinstance(rule, Concat) else (rule.theirs,)


def their_names(rules: Iterable[Rule]) -> dict[str, str]:
    """Our name -> theirs, for messages; of a concatenation, all of its parts."""
    return {rule.ours: ", ".join(_theirs(rule)) for rule in rules if not isinstance(rule, Drop)}


def to_theirs(state: dict[str, Tensor], rules: Sequence[Rule], *, vocab_size: int) -> dict[str, Tensor]:
    """Our tensors under their names; padded tables are cut to `vocab_size` rows.

    Every tensor of ours must be named by a rule: what has no name there would be lost.
    """
    out: dict[str, Tensor] = {}
    left = dict(state)
    for rule in rules:
        if isinstance(rule, Drop) or rule.ours not in left:
            continue
        tensor = left.pop(rule.ours)
        if isinstance(rule, Concat):
            sizes = [len(tensor) * share // sum(rule.ratio) for share in rule.ratio]
            out.update(zip(rule.theirs, torch.split(tensor, sizes), strict=True))
        elif isinstance(rule, Pad):
            out[rule.theirs] = tensor[: rule.rows or vocab_size]
        elif isinstance(rule, Flip):
            out[rule.theirs] = tensor.flip(0)
        else:
            out[rule.theirs] = tensor[None] if isinstance(rule, View) else tensor
    if left:
        raise ValueError(f"no rule names {sorted(left)}")
    return {name: tensor.contiguous().clone() for name, tensor in out.items()}


def to_ours(
    state: dict[str, Tensor], rules: Sequence[Rule], *, config: EncoderConfig
) -> tuple[dict[str, Tensor], list[str]]:
    """Their tensors under our names, and the names of theirs that no rule knows.

    A rule whose tensors are absent is skipped: the caller compares with what its model needs.
    Raises `InputError` when a concatenation has only some of its parts, or a table not a row for each piece.
    """
    out: dict[str, Tensor] = {}
    left = dict(state)
    weights = {name for rule in rules if not isinstance(rule, Drop) for name in _theirs(rule)}
    for name in weights & state.keys():
        tensor = state[name]
        if tensor.dim() == 0 or not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise InputError(f"tensor {name} has shape {tuple(tensor.shape)} and type {kind}; weights are needed")
    for rule in rules:
        if isinstance(rule, Drop):
            left.pop(rule.theirs, None)
        elif isinstance(rule, Concat):
            missing = [name for name in rule.theirs if name not in left]
            if len(missing) == len(rule.theirs):
                continue
            if missing:
                there = next(name for name in rule.theirs if name in left)
                raise InputError(f"tensor {missing[0]!r} is missing, though {there!r} is there")
            parts = [left.pop(name) for name in rule.theirs]
            if len({part.shape[1:] for part in parts}) > 1:
                shapes = ", ".join(str(tuple(part.shape)) for part in parts)
                raise InputError(f"tensors {', '.join(rule.theirs)} do not belong together: {shapes}")
            out[rule.ours] = torch.cat(parts)
        elif rule.theirs in left:
            tensor = left.pop(rule.theirs)
            if isinstance(rule, Pad):
                rows = rule.rows or config.vocab_size
                if len(tensor) != rows:
                    raise InputError(
                        f"tensor {rule.theirs} has {len(tensor)} rows, vocab_size of config.json is {rows}"
                    )
                tensor = torch.cat([tensor, tensor.new_zeros(padded(rows) - rows, *tensor.shape[1:])])
            elif isinstance(rule, Flip):
                tensor = tensor.flip(0)
            out[rule.ours] = tensor[0] if isinstance(rule, View) and len(tensor) == 1 else tensor
    return out, sorted(left)
