from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from bertsmith.data.loader import Loader, Position
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
