"""The losses of the heads: each returns a sum over its items, which the caller divides by their number.

Sums, because accumulated micro-batches must give the gradient of the large batch (docs/design.md, "Training").
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def widened(values: Tensor) -> Tensor:
    """In float32 at least: no loss is computed in half precision."""
    return values.float() if values.dtype.itemsize < 4 else values


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """`[items, classes]` and `[items]` -> the sum of -ln p; no items give zero."""
    return F.cross_entropy(widened(logits), labels, reduction="sum")


def soft_cross_entropy(logits: Tensor, targets: Tensor, *, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of a student's softmax from its teacher's, logits divided by `temperature`, times its
    square (Hinton et al. 2015, section 2): `[items, classes]` twice -> the sum over items.

    The gradient is that of the cross entropy with soft targets; the value is 0 where both agree.
    """
    ours = (widened(logits) / temperature).log_softmax(-1)
    theirs = (targets.to(ours.dtype) / temperature).log_softmax(-1)
    return temperature**2 * F.kl_div(ours, theirs, reduction="sum", log_target=True)


CHUNK, DEVICE_CHUNK = 2**21, 2**28
"""Logits that `vocabulary_cross_entropy` works on at a time: on a CPU few enough to stay in its cache, on a device so
many that launching kernels does not count (1 GB in float32)."""


def vocabulary_cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """As `cross_entropy`, for so many classes that memory is what costs; also whether each label has the highest logit.

    Which class has the highest logit is not looked for: on a CPU `argmax` takes a third of the whole function's time.

    `logits` `[items, classes]` are used up: where a gradient is wanted, it takes their place, a chunk of rows at a
    time, so that there is one such matrix instead of four. `backward` can therefore be called once.
    """
    result: tuple[Tensor, Tensor] = _VocabularyCrossEntropy.apply(logits, labels)  # type: ignore[no-untyped-call]
    return result


class _VocabularyCrossEntropy(torch.autograd.Function):
    """d loss / d logits = softmax(logits) - one-hot(labels)."""

    @staticmethod
    def forward(context: Any, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        wants_gradient, is_half = context.needs_input_grad[0], logits.dtype.itemsize < 4
        losses, right = [], []
        rows = max(1, (CHUNK if logits.device.type == "cpu" else DEVICE_CHUNK) // logits.shape[1])
        for chunk, labels_of in zip(torch.split(logits, rows), torch.split(labels, rows), strict=True):
            part, places = chunk.float() if is_half else chunk, labels_of[:, None]
            probabilities = part.softmax(-1)
            highest = part.amax(-1)
            # the highest logit's probability is no smaller than 1 / classes, so its logarithm is exact
            log_sum = highest - probabilities.amax(-1).log()
            given = part.gather(1, places)[:, 0]
            losses.append(log_sum - given)
            right.append(given >= highest)
            if wants_gradient:
                probabilities.scatter_add_(1, places, probabilities.new_full(places.shape, -1.0))
                chunk.copy_(probabilities)
        if wants_gradient:
            context.gradient = logits
        is_highest = torch.cat(right)
        context.mark_non_differentiable(is_highest)
        return torch.cat(losses).sum(), is_highest

    @staticmethod
    def backward(context: Any, *given: Tensor) -> tuple[Tensor, None]:
        if context.gradient is None:
            raise RuntimeError("the gradient of vocabulary_cross_entropy has been used already")
        gradient, context.gradient = context.gradient, None
        return gradient.mul_(given[0]), None


def binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Several labels at once: `[items, classes]` and 0 or 1 of the same shape -> the sum over items x classes."""
    return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="sum")


def squared_error(predicted: Tensor, targets: Tensor) -> Tensor:
    """Regression: two tensors of the same shape -> the sum of the squared differences."""
    return F.mse_loss(predicted, targets.to(predicted.dtype), reduction="sum")


def answer_loss(logits: Tensor, lengths: tuple[int, ...], starts: Tensor, ends: Tensor) -> Tensor:
    """Mean of the cross entropies of start and end over the tokens of each sequence, summed over the sequences.

    `logits`: `[total, 2]`; `starts`, `ends`: `[sequences]`, places within the sequence, 0 ([CLS]) for "no answer".
    """
    total = logits.new_zeros(())
    for part, start, end in zip(torch.split(logits, list(lengths)), starts, ends, strict=True):
        total = total + (cross_entropy(part[None, :, 0], start[None]) + cross_entropy(part[None, :, 1], end[None])) / 2
    return total


def choice_loss(logits: Tensor, choices: tuple[int, ...], labels: Tensor) -> Tensor:
    """Cross entropy over the choices of each question, summed.

    `logits`: `[sequences]`, one for each choice; `choices`: how many each question has; `labels`: `[questions]`.
    """
    total = logits.new_zeros(())
    for part, label in zip(torch.split(logits, list(choices)), labels, strict=True):
        total = total + cross_entropy(part[None], label[None])
    return total
