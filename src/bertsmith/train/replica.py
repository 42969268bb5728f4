"""The model as the loop calls it: alone, as one of equal copies (DDP), or in shards (FSDP2).

A rank's loss is its part of the sum over the step, divided by counts of the whole step. DDP and FSDP2 divide the sum of
the gradients by the number of ranks, so the loss is multiplied by it: what comes out is the gradient of one process
that had computed the whole step.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeGuard, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bertsmith.batch import Batch
from bertsmith.models.bert import Bert
from bertsmith.models.network import Network, SomeNetwork
from bertsmith.models.surgery import num_labels
from bertsmith.nn.block import Block
from bertsmith.tasks.base import Coupled, LossTerm, Trainable, mean_losses
from bertsmith.train.distributed import Ranks


class StepLoss(nn.Module):
    """The loss of one micro-batch, as a module, because DDP and FSDP2 hook onto a module's forward."""

    def __init__(self, model: Network, task: Trainable) -> None:
        super().__init__()
        self.model, self.task = model, task

    def forward(
        self, batch: Batch, counts: Mapping[str, int], scale: float, gradient: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(what to differentiate, and by term `[2]`, float64: sum of the losses, number of right answers).

        `counts` are those of the whole step; `scale` multiplies the loss (0: a filler). With `gradient`, that of the
        step's loss by the vectors of `batch` (`train.accumulate`), there are no terms.
        """
        if gradient is not None and isinstance(self.task, Coupled):
            return (self.task.vectors(self.model, batch) * gradient).sum() * scale, {}
        terms = self.task.loss(self.model, batch)
        loss = mean_losses(terms, counts)
        return loss if scale == 1.0 else loss * scale, figures_of(terms)


def figures_of(terms: Mapping[str, LossTerm]) -> dict[str, Tensor]:
    """By term `[2]`, float64: sum of the losses, number of right answers."""
    return {name: torch.stack([term.total.detach().double(), term.correct.double()]) for name, term in terms.items()}


def make_replica(model: Network, task: Trainable, ranks: Ranks, *, fsdp: bool) -> nn.Module:
    """What the loop calls in place of `StepLoss`. With `fsdp`, the parameters of `model` become shards, in place.

    A shard holds a part of every matrix. A block's are put together when its turn comes, forward and backward; what
    is outside the blocks stays whole during a step. Every trained parameter must be part of every loss.
    """
    alone = StepLoss(model, task)
    if ranks.world_size == 1:
        return alone
    if not fsdp:
        return DistributedDataParallel(alone)
    from torch.distributed.device_mesh import init_device_mesh  # these take half a second that one process saves
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(ranks.device.type, (ranks.world_size,))
    for block in [part for part in model.modules() if isinstance(part, Block)]:
        fully_shard(block, mesh=mesh)
    fully_shard(alone, mesh=mesh)
    return alone


def adding_up(replica: nn.Module, *, last: bool) -> AbstractContextManager[None]:
    """Within it, gradients stay on their rank; those of the `last` micro-batch bring all of them together."""
    if isinstance(replica, DistributedDataParallel):
        return nullcontext() if last else replica.no_sync()
    if is_sharded(replica):
        sharded: Any = replica  # `fully_shard` has given it FSDPModule's methods
        sharded.set_requires_gradient_sync(last)
    return nullcontext()


def is_shard(tensor: Tensor) -> TypeGuard[Any]:
    """Whether it is a `DTensor`, told by its method, because most runs need not import the class."""
    return hasattr(tensor, "full_tensor")


def is_sharded(model: nn.Module) -> bool:
    """Whether the parameters are shards."""
    return any(is_shard(parameter) for parameter in model.parameters())


def clip_gradients(model: nn.Module, limit: float) -> Tensor:
    """Scale the gradient down to the norm `limit`; returns the norm that it had, of the whole model."""
    return whole(torch.nn.utils.clip_grad_norm_(model.parameters(), limit))


def whole(tensor: Tensor) -> Tensor:
    """All of a shard; another tensor as it is. Every rank must call it."""
    all_of_it: Tensor = tensor.full_tensor() if is_shard(tensor) else tensor
    return all_of_it


def whole_model(model: SomeNetwork) -> SomeNetwork:
    """`model` itself, or, if it is sharded, a copy with whole parameters. Every rank must call it."""
    if not is_sharded(model) or not isinstance(model, Bert):  # what writes is never sharded
        return model
    state = {name: whole(tensor) for name, tensor in model.state_dict().items()}
    with torch.device("meta"):
        copy = Bert(model.config, heads=model.heads, num_labels=num_labels(model))
    copy.load_state_dict(state, assign=True)
    return cast(SomeNetwork, copy)
