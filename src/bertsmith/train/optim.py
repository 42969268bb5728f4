"""The optimizers: AdamW, fused, without decay on norms and biases; and Muon for the matrices of blocks and heads.

Muon (Jordan et al. 2024) replaces the gradient's momentum by the nearest semi-orthogonal matrix, so that every
direction of a weight matrix learns at the same pace. Small models on little text learn in far fewer tokens with it.
`torch.optim.Muon` multiplies in bfloat16, which costs three times float32 on a CPU without bfloat16 units; here it
multiplies in the precision of the run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from bertsmith.config.training import OptimizerName
from bertsmith.nn.attention import SelfAttention

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration, from Jordan et al. 2024: steep at zero rather than exact at one."""


def make_optimizers(
    model: nn.Module,
    *,
    name: OptimizerName,
    learning_rate: float,
    weight_decay: float,
    precision: torch.dtype = torch.float32,
    layer_decay: float = 1.0,
) -> tuple[torch.optim.Optimizer, ...]:
    """`adamw`: AdamW (Loshchilov and Hutter 2019), betas 0.9 and 0.999, eps 1e-6 as google-research/bert has it.

    `muon`: Muon for the matrices that `is_hidden_matrix` tells, AdamW for the others, norms and biases. Matrices decay,
    one-dimensional parameters do not. Parameters that need no gradient are left out. `precision` is that of Muon's
    products; all states are float32. `layer_decay`: each block learns at this share of the rate of the one above it.
    """
    scales = layer_scales(model, layer_decay)
    stacked = {
        f"{key}.qkv.weight": part.sizes for key, part in model.named_modules() if isinstance(part, SelfAttention)
    }
    plain: dict[tuple[float, bool], list[nn.Parameter]] = {}
    by_parts: dict[tuple[float, tuple[int, ...]], list[nn.Parameter]] = {}
    for key, value in model.named_parameters():
        if not value.requires_grad:
            continue
        if name == "muon" and is_hidden_matrix(key, value):
            by_parts.setdefault((scales[key], stacked.get(key, (len(value),))), []).append(value)
        else:
            plain.setdefault((scales[key], value.dim() > 1), []).append(value)
    groups = [
        {"params": values, "weight_decay": weight_decay if decays else 0.0, "scale": scale}
        for (scale, decays), values in plain.items()
    ]
    betas = (0.9, 0.98) if name == "muon" else (0.9, 0.999)
    adamw = torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=1e-6, fused=True) if groups else None
    parts = [{"params": values, "parts": list(sizes), "scale": scale} for (scale, sizes), values in by_parts.items()]
    muon = Muon(parts, learning_rate=learning_rate, weight_decay=weight_decay, precision=precision) if parts else None
    return tuple(optimizer for optimizer in (adamw, muon) if optimizer is not None)


def layer_scales(model: nn.Module, decay: float) -> dict[str, float]:
    """Share of the learning rate by parameter: 1 above the blocks, `decay` in the last one, and so on downwards."""
    numbers = {key: re.search(r"\bblocks\.(\d+)\.", key) for key, _ in model.named_parameters()}
    blocks = 1 + max((int(found[1]) for found in numbers.values() if found), default=-1)

    def above(key: str) -> int:
        found = numbers[key]
        if found is not None:
            return blocks - int(found[1])
        return blocks + 1 if ".embeddings." in key else 0

    return {key: decay ** above(key) for key, _ in model.named_parameters()}


def is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """Whether it multiplies hidden states: all matrices but the tables, and the decoder, of the vocabulary.

    The heads' too: in trials on 12 MB of novels next sentence rose above chance earlier so.
    """
    return parameter.dim() == 2 and ".embeddings." not in name and "masked_lm.decoder." not in name


def set_learning_rate(optimizers: tuple[torch.optim.Optimizer, ...], learning_rate: float) -> None:
    """The learning rate of the next step, for every group."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * group["scale"]


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised. A group's `parts` are the rows of the matrices stacked in a parameter (qkv).

    The update is scaled by 0.2 sqrt(larger edge), which gives it AdamW's usual size, so that one learning rate
    serves both (Liu et al. 2025, "Muon is scalable for LLM training", section 2.2).
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        *,
        learning_rate: float,
        weight_decay: float,
        momentum: float = 0.95,
        precision: torch.dtype = torch.float32,
    ) -> None:
        self.precision = precision
        super().__init__(
            groups, {"lr": learning_rate, "weight_decay": weight_decay, "momentum": momentum, "parts": None}
        )

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """One update from the gradients (Nesterov momentum). `closure` is not used."""
        for parameter, group in self._with_gradients():
            state = self.state[parameter]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(parameter)
            gradient = parameter.grad
            assert gradient is not None
            state["momentum"].lerp_(gradient, 1 - group["momentum"])
            direction = gradient.lerp(state["momentum"], group["momentum"])
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            sizes = list(group["parts"] or (len(parameter),))
            for matrix, part in zip(torch.split(parameter, sizes), torch.split(direction, sizes), strict=True):
                matrix.add_(
                    orthogonalized(part, precision=self.precision), alpha=-group["lr"] * 0.2 * max(part.shape) ** 0.5
                )

    def _with_gradients(self) -> Iterator[tuple[Tensor, dict[str, Any]]]:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    yield parameter, group


def orthogonalized(matrix: Tensor, *, precision: torch.dtype = torch.float32, iterations: int = 5) -> Tensor:
    """U Vᵀ of `matrix` `[m, n]` = U S Vᵀ, about: singular values end between 0.7 and 1.2.

    Newton-Schulz iteration X <- a X + (b A + c A²) X with A = X Xᵀ, in `precision`.
    """
    a, b, c = NEWTON_SCHULZ
    flat = matrix.to(precision)
    wide = flat.mT if flat.shape[0] > flat.shape[1] else flat
    x = wide / (wide.norm() + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    result: Tensor = x.mT if flat.shape[0] > flat.shape[1] else x
    return result.to(matrix.dtype)
