from __future__ import annotations

from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.batch import Batch
from bertsmith.data.loader import Buckets, Loader, Position
from bertsmith.data.pretraining import make_dataset
from bertsmith.data.shards import open_shards
from bertsmith.tokenizer.directory import load_tokenizer


@pytest.fixture
def dataset(shards_dir: Path, tokenizer_dir: Path):
    store, _ = open_shards(shards_dir, "train")
    tokenizer = load_tokenizer(tokenizer_dir)
    return make_dataset(store, tokenizer, objective="nsp", max_length=32, mask_rate=0.15, seed=3)


def test_an_epoch_shows_every_example_once_and_epochs_differ_in_order(dataset) -> None:
    loader = Loader(dataset, batch_size=7, seed=3)
    seen: list[list[int]] = []
    original = dataset.batch
    dataset.batch = lambda epoch, indices: seen[epoch].extend(indices.tolist()) or original(epoch, indices)
    seen += [[], [], []]
    for step in loader.steps(Position()):
        if step.after.epoch == 2:
            break
    for epoch in range(2):
        assert sorted(seen[epoch]) == list(range(dataset.size(epoch)))
    assert seen[0] != sorted(seen[0])


def test_any_position_continues_with_exactly_the_same_steps(dataset) -> None:
    loader = Loader(dataset, batch_size=7, micro_batch=3, seed=3)
    steps = list(islice(loader.steps(Position()), 2 * loader.steps_per_epoch() + 2))
    for i in range(0, len(steps) - 1, 3):
        again = next(iter(loader.steps(steps[i].after)))
        for mine, yours in zip(again.batches, steps[i + 1].batches, strict=True):
            assert torch.equal(mine.input_ids, yours.input_ids)
            assert torch.equal(mine.labels["mlm_labels"], yours.labels["mlm_labels"])
        assert again.after == steps[i + 1].after


class Numbers:
    """A dataset whose batches are their indices."""

    def __init__(self, size: int) -> None:
        self.count = size

    def size(self, epoch: int) -> int:
        return self.count

    def batch(self, epoch: int, indices: np.ndarray) -> Batch:
        return Batch.from_sequences([indices])


@given(
    lengths=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=60),
    most=st.integers(1, 90),
    seed=st.integers(0, 5),
    micro=st.none() | st.integers(1, 4),
)
def test_buckets_hold_every_example_once_and_keep_to_the_budget(
    lengths: list[tuple[int, int]], most: int, seed: int, micro: int | None
) -> None:
    sizes = np.array(lengths)
    loader = Loader(Numbers(len(sizes)), batch_size=1, micro_batch=micro, seed=seed, buckets=Buckets(sizes, most))
    steps = list(islice(loader.steps(Position()), 2 * max(loader.steps_per_epoch(0), loader.steps_per_epoch(1))))
    for epoch, until in ((0, Position(1, 0)), (1, Position(2, 0))):
        own = loader.cuts(epoch)
        assert sorted(np.concatenate(own).tolist()) == list(range(len(sizes)))
        assert all(len(step) == 1 or len(step) * sizes[step].max() <= most for step in own)
        assert [step.tolist() for step in own] == [step.tolist() for step in loader.cuts(epoch)]
        assert any(step.after == until for step in steps) or epoch
    for one, following in pairwise(steps):
        again = next(loader.steps(one.after))
        assert again.after == following.after
        assert [b.input_ids.tolist() for b in again.batches] == [b.input_ids.tolist() for b in following.batches]


def test_buckets_are_drawn_anew_in_each_epoch_and_hold_like_lengths() -> None:
    sizes = np.random.default_rng(0).integers(3, 40, (2000, 2))
    loader = Loader(Numbers(2000), batch_size=1, seed=0, buckets=Buckets(sizes, 400))
    first, second = loader.cuts(0), loader.cuts(1)
    assert [step.tolist() for step in first] != [step.tolist() for step in second]
    assert np.mean([np.ptp(sizes[step, 1]) for step in first]) < 2
    places = [sizes[step, 1].mean() for step in first]
    assert np.corrcoef(places, np.arange(len(places)))[0, 1] < 0.3  # not from short to long


def test_a_pretraining_batch_holds_what_its_labels_say(dataset) -> None:
    batch = dataset.batch(0, np.arange(40))
    tokenizer_ids = {"cls": dataset.cls_id, "sep": dataset.sep_id}
    assert list(batch.lengths) == sorted(batch.lengths)
    for ids, types, positions in zip(
        batch.split(batch.input_ids), batch.split(batch.token_type_ids), batch.split(batch.position_ids), strict=True
    ):
        assert ids[0] == tokenizer_ids["cls"]
        assert ids[-1] == tokenizer_ids["sep"]
        first_separator = int((ids == tokenizer_ids["sep"]).nonzero()[0, 0])
        assert types.tolist() == [0] * (first_separator + 1) + [1] * (len(ids) - first_separator - 1)
        assert positions.tolist() == list(range(len(ids)))
    selected = batch.labels["mlm_positions"]
    specials = torch.tensor([dataset.cls_id, dataset.sep_id])
    assert not torch.isin(batch.labels["mlm_labels"], specials).any()
    masked_share = (batch.input_ids[selected] == dataset.masking.mask_id).float().mean()
    assert 0.7 < masked_share < 0.9


def test_masks_change_from_epoch_to_epoch(dataset) -> None:
    """Dynamic masking: the same plan row is masked elsewhere in the next epoch."""
    plan = dataset.plan(0)
    _, _, first, _ = dataset.sequence(0, 0)
    dataset._planned = (1, plan)
    _, _, second, _ = dataset.sequence(1, 0)
    assert not np.array_equal(first, second)
