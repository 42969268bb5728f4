"""Training with bfloat16 products: weights stay float32, the loss follows, and a resumed run is bitwise the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from bertsmith.files import sha256
from bertsmith.train.loop import Plan
from bertsmith.train.pretrain import pretrain
from tests.conftest import tiny_pretraining

RUN = {"steps": 12, "checkpoint_every": 4, "eval_every": 6}


def plan_of(out: Path) -> Plan:
    return Plan(**yaml.safe_load((out / "train/config.yaml").read_text())["plan"])


@pytest.fixture(scope="module", params=["adamw", "muon"])
def half(request: pytest.FixtureRequest, shards_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("half") / "encoder"
    pretrain(tiny_pretraining(shards_dir, out, **RUN, precision="bfloat16", optimizer=request.param))
    return out


def test_the_run_says_what_it_was_and_weights_are_float32(half: Path) -> None:
    assert plan_of(half).dtype == torch.bfloat16
    report = json.loads((half / "train/report.json").read_text())
    assert report["precision"] == "bfloat16"
    tensors = load_file(half / "model.safetensors") | load_file(
        half / "train/checkpoints/step-12/optimizer.safetensors"
    )
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


def test_the_loss_follows_that_of_float32_and_is_not_the_same(half: Path, shards_dir: Path, tmp_path: Path) -> None:
    optimizer = yaml.safe_load((half / "train/config.yaml").read_text())["options"]["optimizer"]
    whole = pretrain(tiny_pretraining(shards_dir, tmp_path / "encoder", **RUN, optimizer=optimizer))
    rounded = json.loads((half / "train/report.json").read_text())
    assert whole["precision"] == "float32"
    assert rounded["heldout_mlm_loss"] != whole["heldout_mlm_loss"]
    assert rounded["heldout_mlm_loss"] == pytest.approx(whole["heldout_mlm_loss"], abs=0.02)


def test_a_resumed_run_is_bitwise_the_same(half: Path, shards_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "encoder"
    shutil.copytree(half / "train", out / "train")
    shutil.rmtree(out / "train/checkpoints/step-12")
    stored = yaml.safe_load((out / "train/config.yaml").read_text())
    stored["options"]["out"] = str(out)
    (out / "train/config.yaml").write_text(yaml.safe_dump(stored))
    options = {"precision": "bfloat16", "optimizer": stored["options"]["optimizer"]}
    pretrain(tiny_pretraining(shards_dir, out, **RUN, **options, resume=True))
    assert sha256(out / "model.safetensors") == sha256(half / "model.safetensors")


@pytest.mark.parametrize("fastest", ["float32", "bfloat16"])
def test_auto_takes_what_is_measured_and_a_resumed_run_measures_nothing(
    fastest: str, shards_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "encoder"
    monkeypatch.setattr("bertsmith.train.setup.fastest_precision", lambda _: fastest)
    pretrain(tiny_pretraining(shards_dir, out, **RUN, recipe="fast"))
    assert plan_of(out).precision == fastest
    shutil.rmtree(out / "train/checkpoints/step-12")
    for path in out.iterdir():
        if path.name != "train":
            path.unlink()
    monkeypatch.setattr("bertsmith.train.setup.fastest_precision", lambda _: pytest.fail("measured again"))
    report = pretrain(tiny_pretraining(shards_dir, out, **RUN, recipe="fast", resume=True))
    assert report["precision"] == fastest


def test_on_a_cpu_the_default_is_float32(encoder_dir: Path) -> None:
    assert plan_of(encoder_dir).precision == "float32"
