"""The gradient of a step from its micro-batches: added up, or by a gradient cache where rows of several of them, or of
several ranks, meet in one loss, as in-batch negatives do (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch
Size under Memory Limited Setup", section 3).

    vectors of each micro-batch, nothing kept -> loss of all -> its gradient by the vectors
    each micro-batch again, with the same dropout -> its part of that gradient -> gradients of the weights

Either way the result is the gradient of the large batch, at the memory of a micro-batch; the cache costs a second
forward pass. Not here: what follows with it (`train.loop`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from bertsmith.batch import Batch
from bertsmith.data.loader import Step
from bertsmith.models.network import Network
from bertsmith.runtime import products_in
from bertsmith.tasks.base import Coupled, LossTerm, Trainable, mean_losses
from bertsmith.train.checkpoint import random_states, set_random_states
from bertsmith.train.distributed import Ranks
from bertsmith.train.replica import adding_up, figures_of

ALONE = Ranks()
"""Random states are this process's own affair here."""


def accumulate(
    replica: nn.Module,
    model: Network,
    task: Trainable,
    step: Step,
    *,
    counts: Mapping[str, int],
    dtype: torch.dtype,
    ranks: Ranks = ALONE,
) -> list[dict[str, Tensor]]:
    """Add the gradient of `step` to the parameters of `model`; returns the figures of `StepLoss`, to be added up.

    `counts` are the items of each loss term in the whole step, `dtype` is the type of matrix products.
    """
    batches = [batch.to(model.device) for batch in step.batches]
    gradients: Sequence[Tensor | None] = [None] * len(batches)
    states: list[dict[str, Tensor]] = []
    found = []
    if isinstance(task, Coupled) and task.couples and (len(step.own) > 1 or ranks.world_size > 1):
        with products_in(dtype, model.device):
            terms, gradients, states = by_vectors(model, task, batches, own=len(step.own), counts=counts, ranks=ranks)
        found = [figures_of(terms)] if ranks.is_first else []
    for i, (batch, gradient) in enumerate(zip(batches, gradients, strict=True)):
        counts_itself = i < len(step.own)
        if states:
            set_random_states(states[i], ALONE)
        with adding_up(replica, last=i + 1 == len(batches)), products_in(dtype, model.device):
            loss, figures = replica(batch, counts, float(ranks.world_size if counts_itself else 0), gradient)
            with torch.autocast(model.device.type, enabled=False):  # backward takes forward's types
                loss.backward()
        if counts_itself and gradient is None:
            found.append(figures)
    return found


def by_vectors(
    model: Network, task: Coupled, batches: Sequence[Batch], *, own: int, counts: Mapping[str, int], ranks: Ranks
) -> tuple[dict[str, LossTerm], list[Tensor], list[dict[str, Tensor]]]:
    """The loss terms of all ranks' first `own` batches together; for each batch here the gradient by its vectors (zero
    for a filler), and the random states before it.
    """
    states, parts = [], []
    with torch.no_grad():
        for batch in batches:
            states.append(random_states(ALONE))
            parts.append(task.vectors(model, batch))
    mine = torch.cat([*parts[:own], parts[0][:0]])
    gathered = ranks.gather_rows(mine)
    start = sum(len(part) for part in gathered[: ranks.rank])
    names = batches[0].labels
    labels = {
        name: torch.cat(ranks.gather_rows(torch.cat([*(batch.labels[name] for batch in batches[:own]), empty[:0]])))
        for name, empty in names.items()
    }
    vectors = torch.cat(gathered).requires_grad_()
    terms = task.vector_loss(vectors, labels)
    (gradient,) = torch.autograd.grad(mean_losses(terms, counts), vectors)
    gradients = list(torch.split(gradient[start : start + len(mine)], [len(part) for part in parts[:own]]))
    return terms, gradients + [torch.zeros_like(part) for part in parts[own:]], states
