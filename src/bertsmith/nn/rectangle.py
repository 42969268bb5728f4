"""Packed sequences as a padded rectangle and back, for attention between sequences of different lengths.

    [total, …]   a a a | b | c c        lengths 3 1 2
    [3, 3, …]    a a a                  `fill`; `take` is the way back
                 b . .
                 c c .

An encoder's attention pairs a sequence with itself and needs none of this (`nn.attention`); a decoder's pairs targets
with sources, whose lengths have nothing to do with each other.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor


class Rectangle:
    """Where the tokens of packed sequences stand in a rectangle of rows, filled from the left."""

    def __init__(self, lengths: tuple[int, ...], device: torch.device) -> None:
        self.lengths, self.device = lengths, device
        self.rows, self.width = len(lengths), max(lengths)
        self.is_full = min(lengths) == self.width

    @cached_property
    def is_real(self) -> Tensor:
        """`[rows, width]`: where tokens are."""
        lengths = torch.tensor(self.lengths, device=self.device)
        return torch.arange(self.width, device=self.device) < lengths[:, None]

    def fill(self, values: Tensor) -> Tensor:
        """`[total, …]` -> `[rows, width, …]`, zeros elsewhere; a view where nothing is padded."""
        if not self.is_full:
            padded = values.new_zeros(self.rows * self.width, *values.shape[1:])
            values = padded.index_put((self._places,), values)
        return values.view(self.rows, self.width, *values.shape[1:])

    def take(self, values: Tensor) -> Tensor:
        """`[rows, width, …]` -> `[total, …]`."""
        flat = values.flatten(0, 1)
        return flat if self.is_full else flat[self._places]

    @cached_property
    def _places(self) -> Tensor:
        return self.is_real.flatten().nonzero()[:, 0]
