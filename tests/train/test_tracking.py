"""What a run says of itself while it goes on."""

from __future__ import annotations

import json
import logging
import random
import sys
from itertools import islice
from pathlib import Path

import pytest

from bertsmith.data.loader import Loader, Position
from bertsmith.data.pretraining import make_dataset
from bertsmith.data.shards import open_shards
from bertsmith.errors import InputError
from bertsmith.tokenizer.directory import load_tokenizer
from bertsmith.train.pretrain import pretrain
from bertsmith.train.tracking import SpikeWatch, Tracker
from tests.conftest import tiny_pretraining


def falling(lines: int, *, noise: float = 0.02) -> list[float]:
    rng = random.Random(0)
    return [7.0 - 3.0 * i / lines + rng.gauss(0, noise) for i in range(lines)]


def test_a_falling_noisy_loss_is_no_spike_and_a_jump_is() -> None:
    watch = SpikeWatch()
    assert not any(watch.is_spike(loss) for loss in falling(200))
    assert watch.is_spike(9.0)
    assert not watch.is_spike(4.0), "what comes after a spike is compared with what was before it"
    assert not any(SpikeWatch().is_spike(loss) for loss in (7.0, 9.0, 5.0)), "too little is known yet"


def test_a_jump_is_said_in_the_log_with_the_fix(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "bertsmith"), Tracker(tmp_path / "m.jsonl", steps=60, start=0) as tracker:
        for step, loss in enumerate([*falling(50), 8.0], 1):
            tracker.step(step, {"mlm_loss": loss, "gradient_norm": 1.0})
    (record,) = caplog.records
    assert "the loss jumped to 8 at step 51" in record.getMessage()
    assert "--learning-rate" in record.getMessage()


def test_metrics_hold_the_norm_of_the_gradient(encoder_dir: Path) -> None:
    lines = [json.loads(line) for line in (encoder_dir / "train/metrics.jsonl").read_text().splitlines()]
    norms = [line["gradient_norm"] for line in lines if "eval" not in line]
    assert norms
    assert all(norm > 0 for norm in norms)


def test_tensorboard_gets_the_figures_of_metrics(shards_dir: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "encoder"
    pretrain(tiny_pretraining(shards_dir, out, tensorboard=True))
    events = EventAccumulator(str(out / "train/tensorboard"))
    events.Reload()
    lines = [json.loads(line) for line in (out / "train/metrics.jsonl").read_text().splitlines()]
    losses = [(line["step"], line["mlm_loss"]) for line in lines if "eval" not in line]
    evaluated = [(line["step"], line["eval"]["heldout_mlm_loss"]) for line in lines if "eval" in line]
    for tag, expected in (("train/mlm_loss", losses), ("eval/heldout_mlm_loss", evaluated)):
        assert expected
        for event, (step, value) in zip(events.Scalars(tag), expected, strict=True):
            assert event.step == step
            assert event.value == pytest.approx(value, rel=1e-6)


def test_tensorboard_missing_is_said_before_anything_is_written(
    shards_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(InputError, match=r'"--tensorboard": needs tensorboard: pip install "bertsmith\[track\]"'):
        pretrain(tiny_pretraining(shards_dir, tmp_path / "encoder", tensorboard=True))
    assert not (tmp_path / "encoder").exists()


def test_the_report_says_how_much_padding_was_avoided(encoder_dir: Path, shards_dir: Path) -> None:
    """The share that batches padded to their longest sequence would hold, counted from the batches themselves."""
    options = tiny_pretraining(shards_dir, encoder_dir)
    store, _ = open_shards(shards_dir, "train")
    data = make_dataset(store, load_tokenizer(shards_dir / "tokenizer"), objective="nsp", max_length=32, seed=0)
    steps = islice(Loader(data, batch_size=options.batch_size, seed=0).steps(Position()), 12)
    lengths = [batch.lengths for step in steps for batch in step.batches]
    padded = sum(max(of_batch) * len(of_batch) for of_batch in lengths)
    report = json.loads((encoder_dir / "train/report.json").read_text())
    assert report["padding_avoided"] == pytest.approx(1 - sum(map(sum, lengths)) / padded)
    assert 0 < report["padding_avoided"] < 1
