"""One batch: token sequences laid end to end, without padding.

    sequences     [CLS] a b [SEP] | [CLS] c [SEP] | [CLS] d e f [SEP]
    input_ids      2    7 8  3      2    9  3       2    4 5 6  3       [total]
    position_ids   0    1 2  3      0    1  2       0    1 2 3  4       [total]
    cu_seqlens     0                4               7                12 [sequences + 1]

Attention never crosses a boundary; every other layer sees a plain `[total, hidden_size]` matrix. Padding is
an execution choice inside attention, not something that a batch carries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from bertsmith.errors import InputError


@dataclass(frozen=True)
class Batch:
    """A packed batch. `total` is the number of real tokens.

    `lengths` is the host's copy of the sequence lengths, so that no layer has to ask the device for them.
    """

    input_ids: Tensor
    """`[total]`, int64."""
    position_ids: Tensor
    """`[total]`, int64; from 0 in every sequence."""
    token_type_ids: Tensor
    """`[total]`, int64; 0 for A, 1 for B."""
    cu_seqlens: Tensor
    """`[sequences + 1]`, int32: where each sequence starts, and the end."""
    lengths: tuple[int, ...]
    """Length of each sequence."""
    labels: Mapping[str, Tensor] = field(default_factory=dict)
    """What the task's loss compares with, by name; positions among them index `[total]`."""

    @property
    def total(self) -> int:
        """Number of tokens."""
        return int(self.input_ids.shape[0])

    @property
    def max_seqlen(self) -> int:
        """Length of the longest sequence."""
        return max(self.lengths, default=0)

    @property
    def first_positions(self) -> Tensor:
        """`[sequences]`, int64: where the first token ([CLS]) of each sequence stands."""
        return self.cu_seqlens[:-1].long()

    def counts(self, like: Tensor) -> Tensor:
        """`[sequences]`: tokens of each sequence, of the device and type of `like`."""
        return torch.tensor(self.lengths, device=like.device, dtype=like.dtype)

    def sums(self, values: Tensor) -> Tensor:
        """`[total, size]` -> `[sequences, size]`: added up over each sequence."""
        lengths = torch.tensor(self.lengths, device=values.device)
        owner = torch.repeat_interleave(torch.arange(len(self.lengths), device=values.device), lengths)
        return values.new_zeros(len(self.lengths), values.shape[1]).index_add(0, owner, values)

    def maxima(self, values: Tensor) -> Tensor:
        """`[total, size]` -> `[sequences, size]`: the largest of each sequence."""
        return torch.stack([part.amax(0) for part in self.split(values)])

    @classmethod
    def from_sequences(
        cls,
        sequences: Sequence[np.ndarray],
        *,
        token_type_ids: Sequence[np.ndarray] | None = None,
        labels: Mapping[str, Tensor] | None = None,
    ) -> Batch:
        """Pack integer arrays, one per sequence; `token_type_ids` default to zeros."""
        lengths = np.fromiter((len(sequence) for sequence in sequences), dtype=np.int64, count=len(sequences))
        if not len(lengths) or not lengths.all():
            raise ValueError("a batch needs at least one sequence, and each sequence at least one token")
        starts = np.concatenate([[0], np.cumsum(lengths)])
        positions = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
        ids = np.concatenate(list(sequences)).astype(np.int64)
        types = np.zeros_like(ids) if token_type_ids is None else np.concatenate(list(token_type_ids))
        if len(types) != len(ids):
            raise ValueError(f"{len(types)} token types for {len(ids)} tokens")
        return cls(
            input_ids=torch.from_numpy(ids),
            position_ids=torch.from_numpy(positions),
            token_type_ids=torch.from_numpy(types.astype(np.int64)),
            cu_seqlens=torch.from_numpy(starts.astype(np.int32)),
            lengths=tuple(lengths.tolist()),
            labels=dict(labels or {}),
        )

    @classmethod
    def from_dense(
        cls, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Batch:
        """Pack dense `[batch, seq]` input. Positions are the columns, as in HF's BERT, also with left padding."""
        if input_ids.dim() != 2:
            raise InputError(f"input_ids must be [batch, seq], not of shape {tuple(input_ids.shape)}")
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        for name, tensor in (("attention_mask", mask), ("token_type_ids", types)):
            if tensor.shape != input_ids.shape:
                raise InputError(f"{name} is {tuple(tensor.shape)}, input_ids are {tuple(input_ids.shape)}")
        keep = mask.bool()
        lengths = keep.sum(1)
        if not bool(lengths.all()):
            raise InputError(f"row {int((lengths == 0).nonzero()[0, 0])} of attention_mask has no token")
        columns = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        ends = torch.cumsum(lengths, 0)
        return cls(
            input_ids=input_ids[keep].long(),
            position_ids=columns[keep],
            token_type_ids=types[keep].long(),
            cu_seqlens=torch.cat([ends.new_zeros(1), ends]).to(torch.int32),
            lengths=tuple(lengths.tolist()),
        )

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on `device`."""
        return replace(
            self,
            input_ids=self.input_ids.to(device, non_blocking=True),
            position_ids=self.position_ids.to(device, non_blocking=True),
            token_type_ids=self.token_type_ids.to(device, non_blocking=True),
            cu_seqlens=self.cu_seqlens.to(device, non_blocking=True),
            labels={name: tensor.to(device, non_blocking=True) for name, tensor in self.labels.items()},
        )

    def split(self, values: Tensor) -> list[Tensor]:
        """Cut `[total, …]` into one `[length, …]` per sequence."""
        return list(torch.split(values, list(self.lengths)))
