"""Knowledge distillation: a student learns from labels and from a teacher's answers at once (Hinton et al. 2015).

    loss = (1 - alpha) x the task's own loss + alpha x the distance from the teacher

    classes (classify, tag), places of an answer (qa), choices     divergence of softmaxes at a temperature
    several labels a text                                          the same of each label's yes and no
    a number, a reranker's logit                                   squared difference
    vectors (embed)                                                1 - cosine

Not here: how the teacher comes to its answers (`tasks.teacher`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bertsmith.batch import Batch
from bertsmith.models.bert import Bert
from bertsmith.models.losses import soft_cross_entropy, squared_error
from bertsmith.tasks.base import Encoded, LossTerm, Scored, Task
from bertsmith.tasks.choice import ChoiceTask
from bertsmith.tasks.classify import ClassifyTask
from bertsmith.tasks.contrastive import CLOSE
from bertsmith.tasks.embed import EmbedTask
from bertsmith.tasks.qa import QaTask
from bertsmith.tasks.rerank import RerankTask

TARGETS = "teacher"
"""Label of a batch: what the teacher answers; and the name of the loss term, whose accuracy is how often the student
answers as the teacher does."""


@dataclass(frozen=True)
class DistilledTask:
    """`Trainable`, and of an embedder `Coupled`: `task` with a teacher. Each of its inputs has a `target`.

    The losses of its terms are shares of the sum: the task's own times 1 - `alpha`, the teacher's times `alpha`.
    """

    task: Task
    alpha: float
    temperature: float

    @property
    def heads(self) -> tuple[str, ...]:
        """See `Trainable`."""
        return self.task.heads

    @property
    def couples(self) -> bool:
        """See `Coupled`."""
        return isinstance(self.task, EmbedTask) and self.task.couples

    def collate(self, inputs: Sequence[Encoded]) -> Batch:
        """The task's batch with the label `TARGETS`, in the order of the task's logits or vectors."""
        batch = self.task.collate(inputs)
        targets = np.concatenate([encoded.target for encoded in inputs if encoded.target is not None])
        return replace(batch, labels={**batch.labels, TARGETS: torch.from_numpy(targets)})

    def counts(self, batch: Batch) -> dict[str, int]:
        """See `Trainable`."""
        own = self.task.counts(batch)
        (items,) = own.values()
        return own | {TARGETS: len(batch.labels[TARGETS]) if isinstance(self.task, EmbedTask) else items}

    def loss(self, model: Bert, batch: Batch) -> dict[str, LossTerm]:
        """See `Trainable`."""
        if isinstance(self.task, EmbedTask):
            return self.vector_loss(self.vectors(model, batch), batch.labels)
        task = cast(Scored, self.task)
        logits = task.logits(model, batch)
        return self._mixed(task.terms(logits, batch), self.distance(logits, batch))

    def vectors(self, model: Bert, batch: Batch) -> Tensor:
        """See `Coupled`."""
        return cast(EmbedTask, self.task).vectors(model, batch)

    def vector_loss(self, vectors: Tensor, labels: Mapping[str, Tensor]) -> dict[str, LossTerm]:
        """See `Coupled`."""
        away = 1 - F.cosine_similarity(vectors, labels[TARGETS].to(vectors.dtype), dim=1)
        soft = LossTerm(away.sum(), away.detach() < CLOSE)
        return self._mixed(cast(EmbedTask, self.task).vector_loss(vectors, labels), soft)

    def flops(self, model: Bert, batch: Batch) -> int:
        """See `Trainable`. The teacher's were before the run."""
        return self.task.flops(model, batch)

    def distance(self, logits: Tensor, batch: Batch) -> LossTerm:
        """How far the student's logits are from the teacher's, which are of the same shape."""
        targets = batch.labels[TARGETS]
        if isinstance(self.task, QaTask):
            windows = zip(batch.split(logits), batch.split(targets), strict=True)
            both = _joined([self._of_classes(ours.mT, theirs.mT) for ours, theirs in windows])
            return LossTerm(both.total / 2, both.is_right.view(-1, 2).all(1))
        if isinstance(self.task, ChoiceTask):
            sizes = batch.labels["choices"].tolist()
            rows = zip(torch.split(logits, sizes), torch.split(targets, sizes), strict=True)
            return _joined([self._of_classes(ours[None], theirs[None]) for ours, theirs in rows])
        if isinstance(self.task, RerankTask):
            is_same = (logits.detach() > 0) == (targets > 0)
            return LossTerm(squared_error(logits, targets), is_same[:, 0])
        if isinstance(self.task, ClassifyTask) and self.task.problem == "regression":
            is_close = (logits.detach() - targets).abs() < 0.5
            return LossTerm(squared_error(logits, targets), is_close[:, 0])
        if isinstance(self.task, ClassifyTask) and self.task.problem == "multi":
            ours, theirs = (torch.stack([part, torch.zeros_like(part)], -1).flatten(0, 1) for part in (logits, targets))
            each = self._of_classes(ours, theirs)
            return LossTerm(each.total / logits.shape[1], each.is_right.view(logits.shape).all(1))
        return self._of_classes(logits, targets)

    def _of_classes(self, logits: Tensor, targets: Tensor) -> LossTerm:
        total = soft_cross_entropy(logits, targets, temperature=self.temperature)
        return LossTerm(total, logits.detach().argmax(-1) == targets.argmax(-1))

    def _mixed(self, own: Mapping[str, LossTerm], soft: LossTerm) -> dict[str, LossTerm]:
        hard = {name: replace(term, total=term.total * (1 - self.alpha)) for name, term in own.items()}
        return hard | {TARGETS: replace(soft, total=soft.total * self.alpha)}


def _joined(terms: Sequence[LossTerm]) -> LossTerm:
    """The terms of several parts of a batch as one."""
    return LossTerm(torch.stack([term.total for term in terms]).sum(), torch.cat([term.is_right for term in terms]))
