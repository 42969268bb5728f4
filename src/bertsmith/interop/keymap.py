"""The interpreter of key tables: renames, concatenations and drops, applied in either direction.

A table is a list of rules; `{i}` in a name stands for the number of a layer. Everything but `Drop` is reversible:

    Rename("encoder.blocks.{i}.feedforward.output.weight", "bert.encoder.layer.{i}.output.dense.weight")
    Concat("….attention.qkv.weight", ("….query.weight", "….key.weight", "….value.weight"))   along dimension 0
    Pad("encoder.embeddings.tokens.weight", "bert.embeddings.word_embeddings.weight")   theirs has no padding rows
    Drop("cls.predictions.decoder.weight")   theirs may hold it, ours derives it
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bertsmith.errors import InputError


@dataclass(frozen=True)
class Rename:
    """One tensor of theirs is one of ours."""

    ours: str
    theirs: str


@dataclass(frozen=True)
class Pad(Rename):
    """As `Rename`, but ours has rows of zeros added at the end (the vocabulary, padded in memory)."""


@dataclass(frozen=True)
class Concat:
    """Ours is several of theirs, one under the other (dimension 0)."""

    ours: str
    theirs: tuple[str, ...]


@dataclass(frozen=True)
class Drop:
    """A tensor of theirs that ours does not need."""

    theirs: str


Rule = Rename | Concat | Drop


def expand(rules: Iterable[Rule], layers: int) -> list[Rule]:
    """Rules with `{i}` once per layer: `Rename("a.{i}", "b.{i}")`, 2 -> `a.0 b.0`, `a.1 b.1`."""
    expanded: list[Rule] = []
    for rule in rules:
        for i in range(layers if "{i}" in str(rule) else 1):
            number = ("{i}", str(i))
            if isinstance(rule, Drop):
                expanded.append(Drop(rule.theirs.replace(*number)))
            elif isinstance(rule, Concat):
                theirs = tuple(name.replace(*number) for name in rule.theirs)
                expanded.append(Concat(rule.ours.replace(*number), theirs))
            else:
                expanded.append(type(rule)(rule.ours.replace(*number), rule.theirs.replace(*number)))
    return expanded


def to_theirs(state: dict[str, Tensor], rules: Sequence[Rule], *, rows: int) -> dict[str, Tensor]:
    """Our tensors under their names; `rows` is the vocabulary size that padded tables are cut to.

    Every tensor of ours must be named by a rule: what has no name there would be lost.
    """
    out: dict[str, Tensor] = {}
    left = dict(state)
    for rule in rules:
        if isinstance(rule, Drop) or rule.ours not in left:
            continue
        tensor = left.pop(rule.ours)
        if isinstance(rule, Concat):
            out.update(zip(rule.theirs, tensor.chunk(len(rule.theirs)), strict=True))
        else:
            out[rule.theirs] = tensor[:rows] if isinstance(rule, Pad) else tensor
    if left:
        raise ValueError(f"no rule names {sorted(left)}")
    return {name: tensor.contiguous().clone() for name, tensor in out.items()}


def to_ours(
    state: dict[str, Tensor], rules: Sequence[Rule], *, padded_rows: int
) -> tuple[dict[str, Tensor], list[str]]:
    """Their tensors under our names, and the names of theirs that no rule knows.

    A rule whose tensors are absent is skipped: the caller compares with what its model needs.
    Raises `InputError` when a concatenation has only some of its parts.
    """
    out: dict[str, Tensor] = {}
    left = dict(state)
    for rule in rules:
        if isinstance(rule, Drop):
            left.pop(rule.theirs, None)
        elif isinstance(rule, Concat):
            missing = [name for name in rule.theirs if name not in left]
            if len(missing) == len(rule.theirs):
                continue
            if missing:
                raise InputError(f"tensor {missing[0]!r} is missing, though {rule.theirs[0]!r} and others are there")
            out[rule.ours] = torch.cat([left.pop(name) for name in rule.theirs])
        elif rule.theirs in left:
            tensor = left.pop(rule.theirs)
            if isinstance(rule, Pad):
                tensor = torch.cat([tensor, tensor.new_zeros(padded_rows - len(tensor), *tensor.shape[1:])])
            out[rule.ours] = tensor
    return out, sorted(left)
