"""The gradient of a step from its micro-batches: added up, or by a gradient cache where rows of several of them meet in
one loss, as in-batch negatives do (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited
Setup", section 3).

    vectors of each micro-batch, nothing kept -> loss of all -> its gradient by the vectors
    each micro-batch again, with the same dropout -> its part of that gradient -> gradients of the weights

Either way the result is the gradient of the large batch, at the memory of a micro-batch; the cache costs a second
forward pass. Not here: what follows with it (`train.loop`).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bertsmith.data.loader import Step
from bertsmith.models.bert import Bert
from bertsmith.runtime import products_in
from bertsmith.tasks.base import Coupled, Trainable, mean_losses
from bertsmith.train.checkpoint import random_states, set_random_states
from bertsmith.train.distributed import Ranks
from bertsmith.train.replica import adding_up, figures_of

ALONE = Ranks()


def accumulate(
    replica: nn.Module,
    model: Bert,
    task: Trainable,
    step: Step,
    *,
    counts: Mapping[str, int],
    dtype: torch.dtype,
    scale: float,
) -> list[dict[str, Tensor]]:
    """Add the gradient of `step` to the parameters of `model`; returns the figures of `StepLoss`, to be added up.

    `counts` are the items of each loss term in the whole step, `dtype` the type of matrix products, `scale` what
    `StepLoss` multiplies the loss with.
    """
    if isinstance(task, Coupled) and task.couples and len(step.own) > 1:
        return [cached(model, task, step, counts=counts, dtype=dtype)]
    found = []
    for i, host_batch in enumerate(step.batches):
        batch, counts_itself = host_batch.to(model.device), i < len(step.own)
        with adding_up(replica, last=i + 1 == len(step.batches)), products_in(dtype, model.device):
            loss, terms = replica(batch, counts, scale if counts_itself else 0.0)
            backward(loss, model)
        if counts_itself:
            found.append(terms)
    return found


def cached(
    model: Bert, task: Coupled, step: Step, *, counts: Mapping[str, int], dtype: torch.dtype
) -> dict[str, Tensor]:
    """The same by a gradient cache, in one process."""
    batches = [batch.to(model.device) for batch in step.own]
    states, parts = [], []
    for batch in batches:
        states.append(random_states(ALONE))
        with torch.no_grad(), products_in(dtype, model.device):
            parts.append(task.vectors(model, batch))
    vectors = torch.cat(parts).requires_grad_()
    labels = {name: torch.cat([batch.labels[name] for batch in batches]) for name in batches[0].labels}
    terms = task.vector_loss(vectors, labels)
    (gradient,) = torch.autograd.grad(mean_losses(terms, counts), vectors)
    for batch, state, part in zip(batches, states, torch.split(gradient, [len(part) for part in parts]), strict=True):
        set_random_states(state, ALONE)
        with products_in(dtype, model.device):
            backward((task.vectors(model, batch) * part).sum(), model)
    return figures_of(terms)


def backward(loss: Tensor, model: Bert) -> None:
    """Add the gradients of `loss`, outside of autocast: backward takes forward's types."""
    with torch.autocast(model.device.type, enabled=False):
        torch.autograd.backward(loss)
