"""Pairs and blocks: true negatives, no artefact, nothing outside its document."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from bertsmith.data.sequences import generator, plan_blocks, plan_ordered, plan_pairs
from bertsmith.data.shards import Rows, ShardWriter, TokenStore
from bertsmith.errors import InputError

Documents = list[list[list[int]]]


def store_of(documents: Documents, folder: Path, *, origins: list[int] | None = None) -> TokenStore:
    rows = Rows.of(documents)
    if origins is not None:
        rows = dataclasses.replace(rows, origins=np.array(origins))
    with ShardWriter(folder, "train", vocab_size=1000, shard_tokens=50) as writer:
        for number, tokens in enumerate(rows.tokens()):
            if not writer.fits(tokens[None]):
                writer.close_file()
            writer.add(rows.take(np.array([number])))
    return TokenStore(sorted(folder.glob("train-*.arrow")))


def random_documents(rng: np.random.Generator, count: int, *, sentences: int = 12) -> Documents:
    """Document d holds only tokens d + 1, so that a token tells where it comes from."""
    return [
        [[d + 1] * int(rng.integers(1, 30)) for _ in range(int(rng.integers(2, sentences + 1)))] for d in range(count)
    ]


@pytest.fixture
def many(tmp_path: Path) -> TokenStore:
    return store_of(random_documents(np.random.default_rng(0), 400), tmp_path)


def document_of(store: TokenStore, token: np.ndarray) -> np.ndarray:
    return np.searchsorted(store.document_bounds, token, side="right") - 1


def test_a_negative_is_always_from_another_document_and_a_positive_never(many: TokenStore) -> None:
    pairs = plan_pairs(many, length=60, rng=generator(0, 0, 2))
    same = document_of(many, pairs[:, 0]) == document_of(many, pairs[:, 2])
    assert np.array_equal(same, pairs[:, 4] == 0)
    assert abs(pairs[:, 4].mean() - 0.5) < 0.01


def test_pieces_of_one_document_are_no_strangers_to_one_another(tmp_path: Path) -> None:
    documents = random_documents(np.random.default_rng(0), 60)
    origins = [number // 20 for number in range(60)]
    store = store_of(documents, tmp_path, origins=origins)
    pairs = plan_pairs(store, length=40, rng=generator(0, 0))
    first, second = (document_of(store, pairs[:, column]) // 20 for column in (0, 2))
    negative = pairs[:, 4] == 1
    assert negative.sum() > 50
    assert (first[negative] != second[negative]).all()
    store = store_of(documents, tmp_path, origins=[7] * 60)
    with pytest.raises(InputError, match="draws negatives from another document, and there is only one"):
        plan_pairs(store, length=40, rng=generator(0, 0))


def test_b_of_a_positive_starts_where_a_ends_unless_tokens_were_cut_there(many: TokenStore) -> None:
    pairs = plan_pairs(many, length=10_000, rng=generator(0, 0, 2))
    positive = pairs[pairs[:, 4] == 0]
    assert np.array_equal(positive[:, 1], positive[:, 2])
    assert np.isin(positive[:, :4], many.sentence_bounds).all()


def test_neither_lengths_nor_truncation_give_the_label_away(many: TokenStore) -> None:
    plans = [plan_pairs(many, length=60, rng=generator(0, epoch, 2)) for epoch in range(12)]
    pairs = np.concatenate(plans)
    sizes = np.stack([pairs[:, 1] - pairs[:, 0], pairs[:, 3] - pairs[:, 2]], 1)
    bounds = many.sentence_bounds
    whole = np.isin(pairs[:, :4], bounds)  # was this end cut?
    features = np.concatenate([sizes, sizes.sum(1, keepdims=True), sizes**2 / 60, whole], axis=1)
    half = len(pairs) // 2
    probe = LogisticRegression(max_iter=2000).fit(features[:half], pairs[:half, 4])
    assert abs(probe.score(features[half:], pairs[half:, 4]) - 0.5) < 0.03


def test_the_plan_is_a_pure_function_of_seed_and_epoch(many: TokenStore) -> None:
    first, again, other = (plan_pairs(many, length=60, rng=generator(3, epoch, 2)) for epoch in (1, 1, 2))
    assert np.array_equal(first, again)
    assert len(first) != len(other) or not np.array_equal(first, other)


@settings(max_examples=40)
@given(seed=st.integers(0, 1000), length=st.integers(5, 80))
def test_pairs_fit_and_stay_inside_their_documents(seed: int, length: int, tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("store")
    store = store_of(random_documents(np.random.default_rng(seed), 6), folder)
    pairs = plan_pairs(store, length=length, rng=generator(seed, 0, 2))
    size_a, size_b = pairs[:, 1] - pairs[:, 0], pairs[:, 3] - pairs[:, 2]
    assert (size_a > 0).all()
    assert (size_b > 0).all()
    assert (size_a + size_b <= length).all()
    for start, end in ((0, 1), (2, 3)):
        assert np.array_equal(document_of(store, pairs[:, start]), document_of(store, pairs[:, end] - 1))


@settings(max_examples=40)
@given(seed=st.integers(0, 1000), length=st.integers(1, 80))
def test_blocks_hold_every_token_exactly_once(seed: int, length: int, tmp_path_factory) -> None:
    store = store_of(random_documents(np.random.default_rng(seed), 5), tmp_path_factory.mktemp("store"))
    blocks = plan_blocks(store, length=length, rng=generator(seed, 0, 2))
    assert (blocks[:, 1] - blocks[:, 0]).max() <= length
    covered = np.concatenate([np.arange(start, end) for start, end in blocks[:, :2]])
    assert np.array_equal(np.sort(covered), np.arange(store.tokens))
    assert np.array_equal(document_of(store, blocks[:, 0]), document_of(store, blocks[:, 1] - 1))


def test_one_sentence_documents_are_refused_with_the_numbers_and_the_fix(tmp_path: Path) -> None:
    documents = [[[1, 2, 3]]] * 412 + [[[1, 2], [3, 4]]] * 88
    with pytest.raises(InputError, match=r"412 of 500 have one\. Use `--objective none`"):
        plan_pairs(store_of(documents, tmp_path), length=20, rng=generator(0))


def test_a_single_document_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="another document, and there is only one"):
        plan_pairs(store_of([[[1, 2], [3, 4], [5]]], tmp_path), length=20, rng=generator(0))


def test_documents_come_back_from_several_shard_files(tmp_path: Path) -> None:
    documents = random_documents(np.random.default_rng(5), 30)
    store = store_of(documents, tmp_path)
    assert len(list(tmp_path.glob("*.arrow"))) > 3
    for number, document in enumerate(documents):
        start, end = store.document_bounds[number : number + 2]
        assert store.slice(int(start), int(end)).tolist() == [token for part in document for token in part]
    assert store.token_counts(1000).sum() == store.tokens


def test_exchanged_pairs_are_neighbours_in_the_other_order(many: TokenStore) -> None:
    pairs = plan_ordered(many, length=10_000, rng=generator(0, 0, 2))
    ordered, exchanged = pairs[pairs[:, 4] == 0], pairs[pairs[:, 4] == 1]
    assert abs(len(exchanged) / len(pairs) - 0.5) < 0.05
    assert (ordered[:, 1] <= ordered[:, 2]).all()
    assert (exchanged[:, 3] <= exchanged[:, 0]).all()
    assert np.array_equal(document_of(many, pairs[:, 0]), document_of(many, pairs[:, 2]))


@pytest.fixture(scope="module")
def skewed(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """Few long sentences among short ones: B holds the one that goes beyond the length, so it is the longer part."""
    rng = np.random.default_rng(4)
    sizes = np.minimum(rng.lognormal(2.3, 1.2, (400, 25)).astype(int) + 1, 150)
    return store_of(
        [[[int(t) for t in rng.integers(5, 90, n)] for n in row] for row in sizes], tmp_path_factory.mktemp("s")
    )


@pytest.mark.parametrize("name", ["many", "skewed"])
def test_neither_lengths_nor_truncation_give_the_order_away(name: str, request: pytest.FixtureRequest) -> None:
    store: TokenStore = request.getfixturevalue(name)
    pairs = np.concatenate([plan_ordered(store, length=60, rng=generator(0, epoch, 2)) for epoch in range(12)])
    first, second = pairs[:, 1] - pairs[:, 0], pairs[:, 3] - pairs[:, 2]
    whole = np.isin(pairs[:, :4], store.sentence_bounds)
    features = np.column_stack([first, second, first - second, first**2 / 60, second**2 / 60, whole])
    half = len(pairs) // 2
    probe = LogisticRegression(max_iter=2000).fit(features[:half], pairs[:half, 4])
    assert abs(probe.score(features[half:], pairs[half:, 4]) - 0.5) < 0.02


def test_exchanged_pairs_keep_most_of_their_tokens(skewed: TokenStore) -> None:
    plans = {plan: plan(skewed, length=60, rng=generator(0, 0, 2)) for plan in (plan_ordered, plan_pairs)}
    tokens = {plan: int((rows[:, [1, 3]] - rows[:, [0, 2]]).sum()) for plan, rows in plans.items()}
    assert tokens[plan_ordered] > 0.75 * tokens[plan_pairs]


def test_too_few_sentences_for_an_order_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="too few sentences to pair"):
        plan_ordered(store_of([[[1], [3, 4]]], tmp_path), length=20, rng=generator(0))
