"""Rotary positions: queries and keys are turned by angles that grow with their place (Su et al. 2021, equation 34).

The scores then depend on the distance of two tokens alone. Numbers i and i + size / 2 of a head make a pair, as in
GPT-NeoX and ModernBERT. No weights; the angles are computed for the places of a batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

Rotation = tuple[Tensor, Tensor]
"""(cosines, sines) of the places of a batch, each `[total, 1, head_size]`."""


def rotation(position_ids: Tensor, *, head_size: int, base: float, dtype: torch.dtype) -> Rotation:
    """The rotation of each place: pair i turns by place / base^(2 i / head_size). At least float32."""
    precise = torch.promote_types(dtype, torch.float32)
    rates = base ** (-torch.arange(0, head_size, 2, device=position_ids.device, dtype=precise) / head_size)
    angles = position_ids[:, None].to(precise) * rates
    both = torch.cat([angles, angles], dim=1)[:, None]
    return both.cos(), both.sin()


def rotate(values: Tensor, rotation: Rotation) -> Tensor:
    """`[total, heads, head_size]` -> the same, each head turned."""
    cosines, sines = rotation
    first, second = values.chunk(2, dim=-1)
    turned = values * cosines + torch.cat([-second, first], dim=-1) * sines
    return turned.to(values.dtype)
