"""A linear layer that multiplies float32 with the faster of torch's two CPU libraries.

torch gives float32 products to MKL, which takes its AVX-512 code on Intel's processors only; on others with AVX-512
oneDNN, which torch carries too and uses for bfloat16, is 1.3 to 2 times as fast (benchmarks/kernels.py). The choice
depends on the processor alone, so that a run resumed on the same machine computes the same bits.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode


class Linear(nn.Linear):
    """`torch.nn.Linear`, through `linear`."""

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """`[…, in_features]` -> `[…, out_features]`, to which `residual` of that shape is added."""
        result = linear(input, self.weight, self.bias)
        return result if residual is None else residual + result


def linear(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`values` `[…, in]`, `weight` `[out, in]`, `bias` `[out]` -> `values` weightᵀ + bias, `[…, out]`."""
    if not _takes_onednn(values, weight):
        return F.linear(values, weight, bias)
    result: Tensor
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (values, weight, bias)):
        result = _Linear.apply(values, weight, bias)  # type: ignore[no-untyped-call]
    else:
        result = _product(values, weight, bias)
    return result


def _takes_onednn(values: Tensor, weight: Tensor) -> bool:
    return (
        onednn_is_faster()
        and values.dtype == weight.dtype == torch.float32
        and values.device.type == "cpu"
        and type(values) is Tensor  # no shard, no tensor that is only traced
        and weight.is_contiguous()
        and values.numel() > values.shape[-1]  # for a single row MKL wakes no other thread, and is 4 times as fast
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and _get_current_dispatch_mode() is None  # counters of operations and tracers know torch's own product only
    )


@functools.cache
def onednn_is_faster() -> bool:
    """Whether this processor has AVX-512 and is not Intel's; False where that is not known."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.is_file() and "GenuineIntel" not in cpuinfo.read_text(encoding="utf-8", errors="replace")


def _product(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(values, weight, bias, "none", [], "")
    return result


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        context.save_for_backward(values, weight)
        return _product(values, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, given: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        values, weight = context.saved_tensors
        of_values = of_weight = of_bias = None
        rows = given.flatten(0, -2)
        if context.needs_input_grad[0]:
            of_values = _product(given, weight.t(), None)
        if context.needs_input_grad[1]:
            of_weight = _product(rows.t(), values.flatten(0, -2).t(), None)
        if context.needs_input_grad[2]:
            of_bias = rows.sum(0)
        return of_values, of_weight, of_bias
