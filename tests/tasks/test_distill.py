"""The loss of a student: against PyTorch's own divergence and numpy, of every task, whole and in parts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bertsmith.batch import Batch
from bertsmith.bundle import load_bundle
from bertsmith.config.encoder import EncoderConfig
from bertsmith.data.examples import Example
from bertsmith.data.loader import Loader, Position
from bertsmith.data.similar import SimilarityExample
from bertsmith.data.tagged import TaggedExample
from bertsmith.models.bert import Bert
from bertsmith.tasks.base import Task
from bertsmith.tasks.choice import ChoiceTask
from bertsmith.tasks.classify import ClassifyTask
from bertsmith.tasks.distill import DistilledTask
from bertsmith.tasks.embed import EmbedTask
from bertsmith.tasks.qa import QaTask
from bertsmith.tasks.rerank import RerankTask
from bertsmith.tasks.tag import TagTask
from bertsmith.train.accumulate import accumulate
from bertsmith.train.finetune import EncodedData
from bertsmith.train.replica import StepLoss
from tests.conftest import ENDINGS, OBJECTS, SUBJECTS, VERBS

LABELS = ("a", "b", "c")
SIZES = (3, 5, 2)
"""Lengths of the sequences, and so of what the softmax of an answer's place runs over."""

SHAPES = {"classify": (3, 3), "multi": (3, 3), "regression": (3, 1), "rerank": (3, 1), "tag": (7, 3), "qa": (10, 2)}
TASKS: dict[str, Task] = {
    "classify": ClassifyTask(LABELS, 64),
    "multi": ClassifyTask(LABELS, 64, problem="multi"),
    "regression": ClassifyTask(("score",), 64, problem="regression"),
    "rerank": RerankTask(64),
    "tag": TagTask(LABELS, 64),
    "qa": QaTask(64),
    "choice": ChoiceTask(64),
}


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch(targets: torch.Tensor, **labels: torch.Tensor) -> Batch:
    return Batch.from_sequences([np.arange(size) for size in SIZES], labels={"teacher": targets, **labels})


def divergence(ours: torch.Tensor, theirs: torch.Tensor, temperature: float) -> torch.Tensor:
    """PyTorch's, of rows of logits."""
    given = F.log_softmax(ours / temperature, -1)
    return temperature**2 * F.kl_div(given, F.softmax(theirs / temperature, -1), reduction="sum")


def expected(name: str, ours: torch.Tensor, theirs: torch.Tensor, temperature: float) -> torch.Tensor:
    if name in ("regression", "rerank"):
        return ((ours - theirs) ** 2).sum()
    if name == "multi":
        p, q = (torch.sigmoid(part / temperature) for part in (theirs, ours))
        each = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
        return temperature**2 * each.sum() / ours.shape[1]
    if name in ("qa", "choice"):
        parts = zip(ours.split(list(SIZES)), theirs.split(list(SIZES)), strict=True)
        total = torch.stack([divergence(a.t(), b.t(), temperature) for a, b in parts]).sum()
        return total / 2 if name == "qa" else total
    return divergence(ours, theirs, temperature)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 7.5])
@pytest.mark.parametrize("name", TASKS)
def test_the_distance_is_that_of_pytorch_and_of_the_hand(name: str, temperature: float) -> None:
    shape = SHAPES.get(name, (sum(SIZES),))
    ours, theirs = drawn(*shape, seed=0).requires_grad_(), drawn(*shape, seed=1)
    task = DistilledTask(TASKS[name], 0.5, temperature)
    term = task.distance(ours, batch(theirs, choices=torch.tensor(SIZES)))
    wanted = expected(name, ours, theirs, temperature)
    torch.testing.assert_close(term.total, wanted, rtol=0, atol=1e-9)
    assert float(term.total.detach()) > 0.1
    (gradient,), (other,) = (torch.autograd.grad(value, ours, retain_graph=True) for value in (term.total, wanted))
    torch.testing.assert_close(gradient, other, rtol=0, atol=1e-9)
    same = task.distance(theirs.clone(), batch(theirs, choices=torch.tensor(SIZES)))
    assert float(same.total) == pytest.approx(0.0, abs=1e-9)
    assert bool(same.is_right.all())
    other_way = task.distance(-9 * theirs, batch(theirs, choices=torch.tensor(SIZES)))
    assert not bool(other_way.is_right.any())


def test_a_hand_computed_divergence() -> None:
    """Teacher 3 : 1 at temperature 2 is sqrt(3) : 1; the student does not know."""
    theirs = torch.tensor([[float(np.log(3)), 0.0]], dtype=torch.float64)
    p = np.array([np.sqrt(3), 1]) / (np.sqrt(3) + 1)
    by_hand = 4 * float((p * np.log(p / 0.5)).sum())
    term = DistilledTask(TASKS["classify"], 0.5, 2.0).distance(torch.zeros_like(theirs), batch(theirs))
    assert float(term.total) == pytest.approx(by_hand, abs=1e-9)


TEXTS = [f"{a} {b} {c}" for a in SUBJECTS[:4] for b, c in zip(VERBS, OBJECTS, strict=True)]


def rows_of(kind: str) -> list[Any]:
    here = Path("a")
    if kind == "tag":
        return [
            TaggedExample(here, i, tuple(text.split()), tuple("abc"[len(word) % 3] for word in text.split()))
            for i, text in enumerate(TEXTS)
        ]
    if kind == "embed":
        return [SimilarityExample(here, i, "pairs", (text, ENDINGS[i % 6])) for i, text in enumerate(TEXTS)]
    if kind == "rerank":
        return [Example(here, i, text, OBJECTS[i % 6], float(i % 2)) for i, text in enumerate(TEXTS)]
    return [Example(here, i, text, None, LABELS[i % 3]) for i, text in enumerate(TEXTS)]


def setting(encoder_dir: Path, kind: str, *, micro_batch: int, alpha: float = 0.3) -> Any:
    """A model in float64 without dropout, its task with made-up targets, and the first step."""
    task = EmbedTask(64, "pairs") if kind == "embed" else TASKS[kind]
    bundle = load_bundle(encoder_dir)
    config = EncoderConfig(
        **bundle.model.config.model_dump() | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    )
    torch.manual_seed(0)
    model = Bert(config, heads=task.heads, num_labels=task.num_labels).double().train()
    rng = np.random.default_rng(0)
    inputs = []
    for encoded in task.prepare(rows_of(kind), bundle.tokenizer):
        items = {"tag": int(np.sum(encoded.label >= 0)) if kind == "tag" else 0, "embed": 2}.get(kind, 1)
        size = config.hidden_size if kind == "embed" else task.num_labels
        inputs.append(replace(encoded, target=rng.normal(size=(items, size))))
    student = DistilledTask(task, alpha, 2.0)
    loader = Loader(EncodedData(student, inputs), batch_size=len(inputs), micro_batch=micro_batch, seed=0)
    return model, student, next(loader.steps(Position()))


@pytest.mark.parametrize("kind", ["classify", "tag", "rerank", "embed"])
def test_micro_batches_give_the_gradient_of_the_large_batch(encoder_dir: Path, kind: str) -> None:
    found = []
    for micro_batch in (24, 7, 1):
        model, task, step = setting(encoder_dir, kind, micro_batch=micro_batch)
        counts: dict[str, int] = {}
        for part in step.batches:
            for name, count in task.counts(part).items():
                counts[name] = counts.get(name, 0) + count
        figures = accumulate(StepLoss(model, task), model, task, step, counts=counts, dtype=torch.float32)
        sums = {name: sum(part[name] for part in figures) for name in counts}
        found.append((sums, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}))
    for sums, gradients in found[1:]:
        for name, value in found[0][0].items():
            torch.testing.assert_close(sums[name], value, rtol=0, atol=1e-9)
        for name, gradient in found[0][1].items():
            torch.testing.assert_close(gradients[name], gradient, rtol=0, atol=1e-9)
    assert max(float(gradient.abs().max()) for gradient in found[0][1].values()) > 1e-3


def test_alpha_mixes_the_two_losses(encoder_dir: Path) -> None:
    model, student, step = setting(encoder_dir, "classify", micro_batch=24, alpha=0.3)
    (whole,) = step.batches
    logits = model.classification_logits(model.pooled(whole))
    terms = student.loss(model, whole)
    hard = F.cross_entropy(logits, whole.labels["label"], reduction="sum")
    soft = divergence(logits, whole.labels["teacher"], 2.0)
    torch.testing.assert_close(terms["label"].total, 0.7 * hard, rtol=0, atol=1e-9)
    torch.testing.assert_close(terms["teacher"].total, 0.3 * soft, rtol=0, atol=1e-9)
    assert student.counts(whole) == {"label": 24, "teacher": 24}


def test_an_embedder_counts_rows_and_their_texts(encoder_dir: Path) -> None:
    model, student, step = setting(encoder_dir, "embed", micro_batch=24)
    (whole,) = step.batches
    assert student.counts(whole) == {"row": 24, "teacher": 48}
    vectors = student.vectors(model, whole)
    cosines = [
        float(a @ b / a.norm() / b.norm()) for a, b in zip(vectors.detach(), whole.labels["teacher"], strict=True)
    ]
    total = student.vector_loss(vectors, whole.labels)["teacher"].total
    assert float(total.detach()) == pytest.approx(0.3 * sum(1 - cosine for cosine in cosines), abs=1e-9)
