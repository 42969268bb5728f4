"""The losses of vectors, value and gradient, against those of sentence-transformers; and what they must not count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    CosineSimilarityLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)
from torch import Tensor

from bertsmith.bundle import load_bundle
from bertsmith.data.similar import SimilarityExample
from bertsmith.models.sentence import SentenceModules
from bertsmith.tasks.contrastive import in_batch_loss, same_texts
from bertsmith.tasks.embed import EmbedTask
from tests.conftest import OBJECTS, SUBJECTS, VERBS
from tests.interop.sentence_models import bert_directory, theirs

ANCHORS = [f"{subject} {VERBS[0]}" for subject in SUBJECTS]
POSITIVES = [f"{subject} {VERBS[1]} {OBJECTS[0]}" for subject in SUBJECTS]
NEGATIVES = [f"{thing} {VERBS[2]}" for thing in OBJECTS]
SCORES = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]


@pytest.fixture(scope="module")
def directory(tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_directory(tmp_path_factory.mktemp("bert") / "bert", tokenizer_dir)


def our_loss(directory: Path, columns: list[list[str]], *, scores: list[float] | None = None, **fields: Any) -> Any:
    """The mean loss, and the gradient of the word embeddings."""
    bundle = load_bundle(directory)
    kind = "pairs" if scores is None else "scores"
    task = EmbedTask(64, kind, modules=SentenceModules(), **fields)
    rows = [
        SimilarityExample(Path("a"), i, kind, texts, None if scores is None else scores[i])
        for i, texts in enumerate(zip(*columns, strict=True))
    ]
    model = bundle.model
    batch = task.collate(task.prepare(rows, bundle.tokenizer))
    loss = task.loss(model, batch)["row"].total / task.counts(batch)["row"]
    loss.backward()
    return loss.item(), model.encoder.embeddings.tokens.weight.grad[: bundle.tokenizer.vocab_size]


def their_loss(directory: Path, make: Any, columns: list[list[str]], scores: list[float] | None = None) -> Any:
    model = theirs(directory)
    model.eval()
    loss = make(model)(
        [model.preprocess(column) for column in columns], torch.tensor(SCORES if scores is None else scores)
    )
    loss.backward()
    return loss.item(), model[0].auto_model.embeddings.word_embeddings.weight.grad


def assert_equal(ours: tuple[float, Tensor], reference: tuple[float, Tensor]) -> None:
    assert ours[0] == pytest.approx(reference[0], rel=1e-5)
    torch.testing.assert_close(ours[1], reference[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("columns", [[ANCHORS, POSITIVES], [ANCHORS, POSITIVES, NEGATIVES]])
def test_in_batch_negatives_equal_theirs(columns: list[list[str]], directory: Path) -> None:
    ours = our_loss(directory, columns)
    assert_equal(ours, their_loss(directory, MultipleNegativesRankingLoss, columns))
    assert_equal(
        ours, their_loss(directory, lambda m: CachedMultipleNegativesRankingLoss(m, mini_batch_size=2), columns)
    )
    warmer = our_loss(directory, columns, temperature=0.2)
    assert_equal(warmer, their_loss(directory, lambda m: MultipleNegativesRankingLoss(m, scale=5.0), columns))


def test_the_cosine_regression_equals_theirs(directory: Path) -> None:
    ours = our_loss(directory, [ANCHORS, POSITIVES], scores=SCORES)
    assert_equal(ours, their_loss(directory, CosineSimilarityLoss, [ANCHORS, POSITIVES]))


def test_matryoshka_equals_theirs(directory: Path) -> None:
    columns = [ANCHORS, POSITIVES]
    hidden = load_bundle(directory).model.config.hidden_size
    sizes = [hidden, hidden // 2, hidden // 4]
    for base, scores in ((MultipleNegativesRankingLoss, None), (CosineSimilarityLoss, SCORES)):
        ours = our_loss(directory, columns, scores=scores, matryoshka=tuple(sizes[1:]))
        assert_equal(ours, their_loss(directory, lambda m, b=base: MatryoshkaLoss(m, b(m), sizes), columns))


def loss_of(vectors: Tensor, texts: list[str], sizes: list[int]) -> Any:
    numbers = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    identity = torch.tensor([numbers[text] for text in texts])
    return in_batch_loss(vectors, sizes=torch.tensor(sizes), identity=identity, temperature=0.05)


def test_equal_texts_are_no_negatives() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(6, 8)
    vectors[3] = vectors[1]
    twice = loss_of(vectors, ["a", "p", "b", "p", "c", "q"], [2, 2, 2])
    # each row of p against q alone, the row of q against p twice: as two batches without a repeated text
    first = loss_of(vectors[[0, 1, 4, 5]], ["a", "p", "c", "q"], [2, 2])
    cosines = torch.nn.functional.normalize(vectors, dim=1)[4] @ torch.nn.functional.normalize(vectors, dim=1).mT / 0.05
    third = torch.logsumexp(cosines[[1, 3, 5]], 0) - cosines[5]
    second = loss_of(vectors[[2, 3, 4, 5]], ["b", "p", "c", "q"], [2, 2])
    both = torch.logsumexp(cosines[[1, 5]], 0) - cosines[5]
    expected = first.total + second.total - 2 * both + third
    assert twice.total.item() == pytest.approx(expected.item(), rel=1e-5)


def test_masked_are_other_copies_of_anchor_and_positive_and_positives_of_an_equal_anchor() -> None:
    anchors, positives = torch.tensor([0, 1, 0]), torch.tensor([10, 0, 12])
    candidates = torch.tensor([10, 0, 12, 10, 77])
    assert same_texts(anchors, positives, candidates).tolist() == [
        [False, True, True, True, False],  # 0 is the anchor, 12 a positive of an equal anchor, the second 10 its own
        [False, False, False, False, False],
        [True, True, False, False, False],
    ]


def test_a_row_that_has_no_negative_left_learns_nothing() -> None:
    vectors = torch.randn(4, 8, requires_grad=True)
    term = loss_of(vectors, ["a", "p", "a", "q"], [2, 2])
    term.total.backward()
    assert term.total.item() == 0.0
    assert not vectors.grad.any()
    assert term.is_right.all()


def test_rows_may_have_different_numbers_of_negatives() -> None:
    torch.manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(6, 8), dim=1)
    term = loss_of(vectors, ["a", "p", "n", "b", "q", "r"], [3, 3])
    uneven = loss_of(vectors[:5], ["a", "p", "n", "b", "q"], [3, 2])
    cosines = vectors[[0, 3]] @ vectors[[1, 4, 2, 5]].mT / 0.05
    expected = torch.nn.functional.cross_entropy(cosines, torch.arange(2), reduction="sum")
    assert term.total.item() == pytest.approx(expected.item(), rel=1e-5)
    fewer = torch.nn.functional.cross_entropy(cosines[:, :3], torch.arange(2), reduction="sum")
    assert uneven.total.item() == pytest.approx(fewer.item(), rel=1e-5)
    assert np.array_equal(term.is_right, cosines.argmax(1) == torch.arange(2))
