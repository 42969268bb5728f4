"""Give a loaded encoder other linear layers: float32 packed for this processor, or int8.

Afterwards the model answers as before and can neither learn nor be saved.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import nn

from bertsmith.engines.linear import Int8Linear, PackedLinear
from bertsmith.models.encoder import Encoder

PARTS = ("attention.qkv", "attention.output", "feedforward.intermediate", "feedforward.output")
"""The linear layers of a block."""


def linear_layers(encoder: Encoder) -> Iterator[str]:
    """Their names within the encoder: `"blocks.0.attention.qkv"`, …"""
    for layer in range(len(encoder.blocks)):
        yield from (f"blocks.{layer}.{part}" for part in PARTS)


@torch.inference_mode()
def swap(encoder: Encoder, kind: str, *, keep: Collection[str] = ()) -> None:
    """Put layers of `kind` ("packed", "int8") in place of all linear layers of the blocks; `keep` names those that
    become packed whatever the kind."""
    for name in linear_layers(encoder):
        owner = encoder.get_submodule(name.rpartition(".")[0])
        layer = encoder.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        activation = None
        if name.endswith("feedforward.intermediate") and not owner.is_gated:
            activation, owner.activation = encoder.config.hidden_act, nn.Identity()
        make = Int8Linear if kind == "int8" and name not in keep else PackedLinear
        setattr(owner, name.rpartition(".")[2], make(layer, activation))
