"""Training options that change the network: layouts, recomputed activations, frozen layers."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import bertsmith
from bertsmith.batch import Batch
from bertsmith.bundle import load_bundle
from bertsmith.config.finetune import ClassifyOptions
from bertsmith.errors import InputError
from bertsmith.nn.attention import ReferenceAttention
from bertsmith.nn.init import NEIGHBOURS
from bertsmith.presets import LAYOUTS
from bertsmith.tokenizer.directory import load_tokenizer
from bertsmith.train.finetune import finetune
from bertsmith.train.pretrain import pretrain
from bertsmith.train.start import starting_model
from tests.conftest import tiny_pretraining


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_pretrained_saved_and_used(layout: str, shards_dir: Path, rows: Path, tmp_path: Path) -> None:
    report = pretrain(tiny_pretraining(shards_dir, tmp_path / "encoder", layout=layout, optimizer="muon"))
    assert report["heldout_mlm_loss"] > 0
    model = bertsmith.load(tmp_path / "encoder", device="cpu")
    for name, value in LAYOUTS[layout].items():
        assert getattr(model.encoder.config, name) == value
    assert len(model.fill("the cat [MASK] a red ball.")[0]) == 5
    options = {"train": rows / "train.tsv", "out": tmp_path / "classifier", "steps": 2, "threads": 2}
    finetune(ClassifyOptions(model=str(tmp_path / "encoder"), **options))
    answer = bertsmith.load(tmp_path / "classifier", device="cpu").predict(["a dog"])[0]
    assert answer["label"] in ("cat", "dog")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_heads_start_by_looking_at_the_tokens_beside(layout: str, shards_dir: Path, tmp_path: Path) -> None:
    changes = {"layout": layout, "hidden": 256, "positions": 64}
    options = tiny_pretraining(shards_dir, tmp_path, position_init="sinusoidal", attention_init="neighbours", **changes)
    tokenizer = load_tokenizer(shards_dir / "tokenizer")
    model = starting_model(options, tokenizer, heads=("masked_lm",)).eval()
    attention = ReferenceAttention()
    ids = torch.randint(5, tokenizer.vocab_size, (8, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.encoder(Batch.from_dense(ids), attention=attention)
    probabilities = torch.stack(attention.probabilities[0]).mean(0)
    for head, offset in enumerate(NEIGHBOURS):
        places = torch.arange(4, 60)
        by_offset = {shift: probabilities[head, places, places + shift].mean().item() for shift in range(-4, 5)}
        beside = {shift: share for shift, share in by_offset.items() if shift != 0}  # a token is like itself, too
        assert max(beside, key=lambda shift: beside[shift]) == offset
        assert beside[offset] > max(4 * beside[-offset], 4 / 64), "64 is the length: much more than all alike"


def test_neighbours_are_not_found_without_sines(shards_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--position-init sinusoidal, or --attention-init normal"):
        tiny_pretraining(shards_dir, tmp_path, recipe="fast", position_init="normal")
    original = tiny_pretraining(shards_dir, tmp_path, attention_init="neighbours", layout="original")
    assert original.position_init == "normal"


def test_recomputed_activations_change_nothing_in_a_run(shards_dir: Path, tmp_path: Path) -> None:
    weights = []
    for on in (False, True):
        out = tmp_path / str(on)
        pretrain(tiny_pretraining(shards_dir, out, gradient_checkpointing=on, steps=6))
        weights.append(load_file(out / "model.safetensors"))
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=0, atol=1e-6)


def test_frozen_layers_stay_as_they_were(encoder_dir: Path, rows: Path, tmp_path: Path) -> None:
    options = {"model": str(encoder_dir), "train": rows / "train.tsv", "steps": 4, "threads": 2}
    finetune(ClassifyOptions(**options, out=tmp_path / "out", freeze_layers=1))
    before = load_bundle(encoder_dir).model.state_dict()
    after = load_bundle(tmp_path / "out").model.state_dict()
    for name, tensor in after.items():
        frozen = name.startswith(("encoder.embeddings.", "encoder.blocks.0."))
        if name in before and (frozen or (name.startswith("encoder.blocks.1.") and name.endswith("weight"))):
            assert torch.equal(tensor, before[name]) == frozen, name
    with pytest.raises(InputError, match=r'field "--freeze-layers": 3 layers cannot be frozen; the model has 2'):
        finetune(ClassifyOptions(**options, out=tmp_path / "no", freeze_layers=3))
    with pytest.raises(InputError, match=r'field "--freeze-layers": 2 frozen and 1 new blocks are more than'):
        finetune(ClassifyOptions(**options, out=tmp_path / "no", freeze_layers=2, reinit_layers=1))
    assert not (tmp_path / "no").exists()
    with pytest.raises(ValueError, match="--random-init and --freeze-layers: random weights would never learn"):
        ClassifyOptions(**options, out=tmp_path / "no", freeze_layers=0, random_init=True)


def test_blocks_that_are_drawn_anew_are_named(
    encoder_dir: Path, rows: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "bertsmith")
    options = {"model": str(encoder_dir), "train": rows / "train.tsv", "steps": 1, "threads": 2}
    finetune(ClassifyOptions(**options, out=tmp_path / "out", freeze_layers=1, reinit_layers=1))
    assert "starting fresh: classifier, last 1 of 2 blocks, pooler;" in caplog.text


def test_an_unknown_activation_is_refused_by_its_flag(shards_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'field "--hidden-act".*did you mean "gelu"'):
        pretrain(tiny_pretraining(shards_dir, tmp_path / "out", hidden_act="gellu"))
    assert not (tmp_path / "out").exists()
