"""Hard negatives: the most similar texts that are not the anchor's own, within margin and skip."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bertsmith.bundle import load_bundle
from bertsmith.config.finetune import EmbedderOptions
from bertsmith.data.examples import Example
from bertsmith.data.similar import SimilarityExample
from bertsmith.model import load
from bertsmith.models.sentence import SentenceModules
from bertsmith.tasks.mining import hard_negatives, mined_relevance, mined_similar
from bertsmith.tasks.similarity import unit
from tests.conftest import OBJECTS, SUBJECTS, VERBS

PLACE = Path("a.tsv")


def vectors(*angles: float) -> np.ndarray:
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def test_the_nearest_come_first_and_known_ones_never() -> None:
    anchor, positive, texts = vectors(0.0), vectors(0.2), vectors(0.1, 0.4, 0.3, 0.5, 0.9)
    for count, skip, margin, expected in (
        (2, 0, 0.0, [2, 1]),  # 0 is nearer than the positive
        (2, 1, 0.0, [2, 1]),  # and is the one that is skipped
        (2, 2, 0.0, [1, 3]),
        (9, 0, 0.0, [2, 1, 3, 4]),
        (2, 0, 0.2, [4]),  # cos 0.2 * 0.8 = 0.78
    ):
        found = hard_negatives(anchor, texts, positive, [[]], count=count, skip=skip, margin=margin)
        assert found == [expected], (count, skip, margin)
    assert hard_negatives(anchor, texts, positive, [[2, 3]], count=2, skip=0, margin=0.0) == [[1, 4]]
    assert hard_negatives(anchor, texts, positive, [[0, 1, 2, 3, 4]], count=2, skip=0, margin=0.0) == [[]]


def test_it_is_what_sorting_all_similarities_gives() -> None:
    rng = np.random.default_rng(0)
    anchors, texts = unit(rng.normal(size=(700, 6))), unit(rng.normal(size=(90, 6)))
    positives = unit(anchors + 0.3 * rng.normal(size=anchors.shape))
    excluded = [rng.integers(90, size=3).tolist() for _ in anchors]
    found = hard_negatives(anchors, texts, positives, excluded, count=4, skip=2, margin=0.1)
    for i, chosen in enumerate(found):
        scores = anchors[i] @ texts.T
        limit = 0.9 * (anchors[i] @ positives[i])
        order = [j for j in np.argsort(-scores) if j not in excluded[i]][2:]
        assert chosen == [j for j in order if scores[j] <= limit][:4]


def options(**changes: object) -> EmbedderOptions:
    values = {"model": "m", "train": PLACE, "out": Path("o"), "mine": 2, "mine_margin": 0.0}
    return EmbedderOptions(**(values | changes))  # type: ignore[arg-type]


def test_mining_compares_with_the_prompts_of_queries_and_passages(
    encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[str | None, list[str]]] = []

    def embedded(_: object, texts: list[str], *, prompt: str | None, **_choices: object) -> SimpleNamespace:
        read.append((prompt, texts))
        return SimpleNamespace(vectors=np.random.default_rng(0).normal(size=(len(texts), 4)))

    monkeypatch.setattr("bertsmith.tasks.mining.embed_texts", embedded)
    sentence = SentenceModules(prompts={"query": "Q: ", "passage": "P: "})
    bundle = replace(load_bundle(encoder_dir), sentence=sentence)
    mined_similar(
        [SimilarityExample(PLACE, i, "pairs", pair) for i, pair in enumerate([("a", "b"), ("c", "d")])],
        options(),
        bundle,
    )
    assert read == [("query", ["a", "c"]), ("passage", ["b", "d"])]


def test_rows_get_the_texts_that_the_model_finds_most_similar(encoder_dir: Path) -> None:
    texts = [f"{subject} {verb} {thing}" for subject, verb, thing in zip(SUBJECTS, VERBS, OBJECTS, strict=True)]
    rows = [
        SimilarityExample(PLACE, i, "pairs", (text, texts[(i + 1) % 6], texts[(i + 2) % 6]))
        for i, text in enumerate(texts)
    ]
    bundle = load_bundle(encoder_dir)
    mined = mined_similar(rows, options(), bundle)
    directions = unit(load(encoder_dir, device="cpu").embed(texts))
    similar = directions @ directions.T
    for i, row in enumerate(mined):
        assert row.texts[:3] == rows[i].texts
        own = {(i + k) % 6 for k in range(3)}
        allowed = [j for j in range(6) if j not in own and similar[i, j] <= similar[i, (i + 1) % 6]]
        expected = sorted(allowed, key=lambda j: -similar[i, j])[:2]
        assert list(row.texts[3:]) == [texts[j] for j in expected]


def test_a_reranker_gets_rows_of_label_zero_for_what_is_relevant(encoder_dir: Path) -> None:
    texts = [f"{subject} {verb}" for subject, verb in zip(SUBJECTS, VERBS, strict=True)]
    rows = [Example(PLACE, i, "a cat", text, float(i == 0)) for i, text in enumerate(texts[:2])]
    rows += [Example(PLACE, i, "a dog", text, 1.0) for i, text in enumerate(texts[2:])]
    mined = mined_relevance(rows, options(mine=3, mine_margin=0.0), load_bundle(encoder_dir))
    assert mined[: len(rows)] == rows
    assert len(mined) > len(rows)
    known = {row.content for row in rows}
    for row in mined[len(rows) :]:
        assert row.label == 0.0
        assert row.content not in known
    assert len({row.content for row in mined}) == len(mined)


def test_too_few_finds_are_told(encoder_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [SimilarityExample(PLACE, i, "pairs", (f"{text} sees", text)) for i, text in enumerate(SUBJECTS)]
    mined_similar(rows, options(mine_skip=20), load_bundle(encoder_dir))
    assert "less than half of --mine 2" in caplog.text
