"""What `--resume` finds in a training directory: a model that is not yet in its place, other data, no run at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bertsmith import files
from bertsmith.config.finetune import ClassifyOptions
from bertsmith.errors import InputError
from bertsmith.files import MANIFEST, read_manifest, sha256, write_manifest
from bertsmith.train import directory
from bertsmith.train.directory import check_same, write_config
from bertsmith.train.finetune import finetune
from bertsmith.train.pretrain import pretrain
from bertsmith.train.seq2seq import finetune_seq2seq
from tests.conftest import tiny_pretraining
from tests.train.test_seq2seq import toy

Trained = Callable[..., dict[str, Any]]


@pytest.fixture
def given(encoder_dir: Path, rows: Path, tmp_path: Path) -> dict[str, Any]:
    """A fine-tuning of 2 steps whose file may be changed."""
    train = shutil.copy(rows / "train.tsv", tmp_path / "train.tsv")
    return {"model": str(encoder_dir), "train": train, "out": tmp_path / "a" / "out", "steps": 2, "threads": 2}


def trainer(verb: str, given: dict[str, Any], shards: Path) -> Trained:
    def run(**changes: Any) -> dict[str, Any]:
        if verb == "pretrain":
            return pretrain(tiny_pretraining(shards, given["out"], **changes))
        if verb == "seq2seq":
            return finetune_seq2seq(toy(given["train"].parent, out=given["out"], hidden=16, **changes))
        return finetune(ClassifyOptions(**given | changes))

    given["out"].parent.mkdir()
    return run


@pytest.mark.parametrize(
    ("verb", "killed"), [("classify", "before"), ("classify", "after"), ("pretrain", "before"), ("seq2seq", "before")]
)
def test_a_kill_beside_the_exchange_of_names_does_not_bring_the_old_model_back(
    verb: str, killed: str, given: dict[str, Any], shards_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, out = trainer(verb, given, shards_dir), given["out"]
    train(steps=1)
    new: list[str] = []

    def interrupted(temporary: Path, place: Path) -> None:
        new.append(sha256(temporary / "model.safetensors"))
        if killed == "after":
            files._exchange(temporary, place)  # and what was there is not removed
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(directory, "put_in_place", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(steps=2, overwrite=True)
    assert (sha256(out / "model.safetensors") == new[0]) == (killed == "after")
    assert train(steps=2, resume=True)["steps"] == 2
    assert sha256(out / "model.safetensors") == new[0]
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("is_finished", [False, True])
def test_rows_that_changed_since_are_not_resumed_with(is_finished: bool, given: dict[str, Any]) -> None:
    finetune(ClassifyOptions(**given))
    if not is_finished:
        (given["out"] / MANIFEST).unlink()
    header, first, second, *rest = given["train"].read_text().splitlines()
    given["train"].write_text("\n".join([header, second, first, *rest]) + "\n")
    with pytest.raises(InputError, match=r'train.tsv: field "train": changed since .*--overwrite or another --out'):
        finetune(ClassifyOptions(**given, resume=True))
    given["train"].write_text("\n".join([header, first, second, *rest]) + "\n")
    assert finetune(ClassifyOptions(**given, resume=True))["steps"] == 2


@pytest.mark.parametrize("field", ["train", "dev", "unlabelled", "model", "teacher"])
def test_each_file_and_directory_that_is_read_has_a_fingerprint(
    field: str, given: dict[str, Any], classifier_dir: Path, tmp_path: Path
) -> None:
    for name in ("dev", "unlabelled"):
        given[name] = shutil.copy(given["train"], tmp_path / f"{name}.tsv")
    for name in ("model", "teacher"):
        given[name] = str(shutil.copytree(classifier_dir, tmp_path / name))
    options = ClassifyOptions(**given)
    write_config(tmp_path, options)
    check_same(tmp_path, options)
    if field in ("model", "teacher"):
        content = read_manifest(Path(given[field]))
        write_manifest(Path(given[field]), {**content, "data": "other"}, kind="model")
    else:
        given[field].write_text("text\tlabel\n")
    with pytest.raises(InputError, match=f'field "{field}": changed since'):
        check_same(tmp_path, options)
    out = ClassifyOptions(**given | {"out": Path(given["model"])})
    assert "model" not in directory.fingerprints(out), "a run may replace the model that it started from"


def test_other_shards_are_not_resumed_with(shards_dir: Path, tmp_path: Path) -> None:
    options = tiny_pretraining(shutil.copytree(shards_dir, tmp_path / "shards"), tmp_path / "out")
    write_config(tmp_path, options)
    write_manifest(options.data, {**read_manifest(options.data), "seconds": 0.0}, kind="shards")
    with pytest.raises(InputError, match=r'shards: field "data": changed since'):
        check_same(tmp_path, options)


def test_a_checkpoint_is_refused_where_no_run_goes_on_from_it(given: dict[str, Any], tmp_path: Path) -> None:
    finetune(ClassifyOptions(**given, checkpoint_every=1))
    given |= {"checkpoint_every": 1, "resume_from": given["out"] / "train/checkpoints/step-1"}
    with pytest.raises(InputError, match=r'field "--resume-from": .*out has ended already; give --resume alone'):
        finetune(ClassifyOptions(**given))
    (tmp_path / "empty").mkdir()
    for name in ("empty", "absent"):
        with pytest.raises(InputError, match=rf"{name}: there is no run in it to resume"):
            finetune(ClassifyOptions(**given | {"out": tmp_path / name}))
    for several in ({"seeds": 2}, {"search": 2}):
        with pytest.raises(ValidationError, match="--resume-from is about one run"):
            ClassifyOptions(**given | {"dev": given["train"]} | several)
