"""What autograd keeps of a training step, for the tests of `bertsmith show`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def kept_by_autograd(model: nn.Module, step: Callable[[], Tensor]) -> int:
    """Float values that autograd keeps for the backward pass of a step: each storage once, parameters left out.

    Tensors without a dimension are left out too: each cross entropy keeps the number of its items as one.
    """
    known = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if tensor.is_floating_point() and tensor.dim() and place not in known:
            kept[place] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        assert step().isfinite()
    return sum(tensor.untyped_storage().nbytes() // tensor.itemsize for tensor in kept.values())
