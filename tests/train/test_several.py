"""Several seeds, a search, and the options that change how a model is fine-tuned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from bertsmith import files
from bertsmith.bundle import load_bundle
from bertsmith.config.finetune import ClassifyOptions
from bertsmith.errors import InputError
from bertsmith.models.surgery import reinitialize
from bertsmith.train import directory, several
from bertsmith.train.finetune import finetune
from bertsmith.train.finetune_start import suitable_rate
from bertsmith.train.optim import layer_scales, make_optimizers, set_learning_rate


@pytest.fixture
def given(encoder_dir: Path, rows: Path, tmp_path: Path) -> dict[str, object]:
    return {
        "model": str(encoder_dir),
        "train": rows / "train.tsv",
        "dev": rows / "dev.tsv",
        "out": tmp_path / "out",
        "steps": 6,
        "learning_rate": 2e-3,
        "threads": 2,
    }


def test_the_best_of_several_seeds_is_kept_and_their_spread_told(given: dict[str, object], tmp_path: Path) -> None:
    report = finetune(ClassifyOptions(**given, seeds=3))
    listed = json.loads((tmp_path / "out/train/several.json").read_text())
    values = [run["value"] for run in listed["runs"]]
    assert [run["seed"] for run in listed["runs"]] == [0, 1, 2]
    assert report["dev_accuracy_mean"] == pytest.approx(sum(values) / 3)
    assert report["dev_accuracy_deviation"] == pytest.approx(float(torch.tensor(values).std()), abs=1e-6)
    assert report["dev_accuracy"] == pytest.approx(max(values))
    assert load_bundle(tmp_path / "out").task["name"] == "classify"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert "# out" in (tmp_path / "out/README.md").read_text().splitlines()
    for changed in ({"steps": 7}, {"seeds": 4}, {"seeds": 1}):
        (name,) = changed
        with pytest.raises(InputError, match=f'field "{name}": the run to resume has'):
            finetune(ClassifyOptions(**given | {"seeds": 3, "resume": True} | changed))
    assert finetune(ClassifyOptions(**given, seeds=3, resume=True)) == report


def test_seeds_go_on_after_a_kill(given: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = finetune(ClassifyOptions(**given | {"out": tmp_path / "whole"}, seeds=3))
    real, calls = several.finetune, []

    def second_fails(options: ClassifyOptions, **more: object) -> dict[str, object]:
        calls.append(options.seed)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(options, **more)

    monkeypatch.setattr(several, "finetune", second_fails)
    with pytest.raises(KeyboardInterrupt):
        finetune(ClassifyOptions(**given, seeds=3))
    monkeypatch.setattr(several, "finetune", real)
    with pytest.raises(InputError, match="holds unfinished runs; --resume"):
        finetune(ClassifyOptions(**given, seeds=3))
    with pytest.raises(InputError, match=r'runs/config.yaml: field "seeds": the run to resume has 3, not 2'):
        finetune(ClassifyOptions(**given, seeds=2, resume=True))
    resumed = finetune(ClassifyOptions(**given, seeds=3, resume=True))
    for name in ("dev_accuracy", "dev_accuracy_mean", "best_run"):
        assert resumed[name] == whole[name]
    assert finetune(ClassifyOptions(**given, seeds=3, resume=True)) == resumed


@pytest.mark.parametrize("is_overwritten", [False, True])
@pytest.mark.parametrize("is_moved", [False, True])
def test_a_kill_while_the_best_is_put_in_place_loses_nothing(
    is_moved: bool,
    is_overwritten: bool,
    given: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if is_overwritten:
        finetune(ClassifyOptions(**given))

    def killed(temporary: Path, out: Path) -> None:
        if is_moved:  # and what stood there is not removed
            files._exchange(temporary, out) if is_overwritten else temporary.rename(out)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(directory, "put_in_place", killed)
        with pytest.raises(KeyboardInterrupt):
            finetune(ClassifyOptions(**given, seeds=2, overwrite=is_overwritten))
    monkeypatch.setattr(several, "finetune", None)  # nothing is trained again
    report = finetune(ClassifyOptions(**given, seeds=2, resume=True))
    assert report["runs"] == 2
    assert load_bundle(tmp_path / "out").task["name"] == "classify"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_search_chooses_what_was_not_given_and_can_be_repeated(given: dict[str, object], tmp_path: Path) -> None:
    free = {key: value for key, value in given.items() if key != "learning_rate"}
    finetune(ClassifyOptions(**free | {"out": tmp_path / "a"}, search=3))
    finetune(ClassifyOptions(**free | {"out": tmp_path / "b"}, search=3))
    first, second = (json.loads((tmp_path / name / "train/several.json").read_text()) for name in "ab")
    assert first == second
    assert len({run["learning_rate"] for run in first["runs"]}) == 3
    assert all(run["batch_size"] in several.BATCH_SIZES and "epochs" not in run for run in first["runs"])
    with pytest.raises(InputError, match="nothing is left to search"):
        finetune(ClassifyOptions(**given | {"out": tmp_path / "c"}, batch_size=8, search=2))


def test_options_that_need_dev_rows(given: dict[str, object]) -> None:
    for option in ({"seeds": 2}, {"search": 2}, {"patience": 1}, {"calibrate": True}, {"thresholds": "auto"}):
        with pytest.raises(ValidationError, match="--dev"):
            ClassifyOptions(**{**given, "dev": None}, **option)


def test_layers_learn_at_their_share_of_the_rate(encoder_dir: Path) -> None:
    model = load_bundle(encoder_dir).model
    scales = layer_scales(model, 0.5)
    assert scales["encoder.embeddings.tokens.weight"] == 0.125
    assert scales["encoder.blocks.0.attention.qkv.weight"] == 0.25
    assert scales["encoder.blocks.1.feedforward.output.bias"] == 0.5
    assert scales["masked_lm.dense.weight"] == 1.0
    optimizers = make_optimizers(model, name="muon", learning_rate=1.0, weight_decay=0.0, layer_decay=0.5)
    set_learning_rate(optimizers, 0.1)
    rates = {p: group["lr"] for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    assert len(rates) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        assert rates[parameter] == pytest.approx(0.1 * scales[name]), name


def test_the_last_blocks_and_the_pooler_start_anew(encoder_dir: Path) -> None:
    before, model = load_bundle(encoder_dir).model, load_bundle(encoder_dir).model
    reinitialize(model, 1)
    changed = {
        name.split(".attention")[0].split(".feedforward")[0].split(".dense")[0]
        for name, value in model.state_dict().items()
        if not torch.equal(value, before.state_dict()[name])
    }
    assert changed == {"encoder.blocks.1", "pooler"}
    with pytest.raises(ValueError, match="3 is more than the model's 2 blocks"):
        reinitialize(model, 3)


def test_the_suitable_rate_follows_the_size_of_the_weights(encoder_dir: Path) -> None:
    model = load_bundle(encoder_dir).model
    rate = suitable_rate(model)
    with torch.no_grad():
        for name, parameter in model.encoder.named_parameters():
            if "blocks" in name:
                parameter.mul_(3)
    assert suitable_rate(model) == pytest.approx(3 * rate)
