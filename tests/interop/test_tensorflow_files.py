"""Which files are the TensorFlow checkpoint that is meant, and what is said without a TensorFlow that can read it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bertsmith.errors import InputError
from bertsmith.interop.tensorflow import checkpoint_prefix, read_tensorflow


def touch(directory: Path, *prefixes: str) -> None:
    directory.mkdir(exist_ok=True)
    for prefix in prefixes:
        for part in ("index", "data-00000-of-00001", "meta"):
            (directory / f"{prefix}.{part}").touch()


@pytest.mark.parametrize("name", ["", ".index", ".meta", ".data-00000-of-00001"])
def test_a_prefix_and_any_of_its_files_mean_the_checkpoint(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "bert_model.ckpt", "other.ckpt")
    assert checkpoint_prefix(tmp_path / f"bert_model.ckpt{name}") == tmp_path / "bert_model.ckpt"


def test_the_only_checkpoint_of_a_directory_is_meant_whatever_the_record_says(tmp_path: Path) -> None:
    touch(tmp_path, "model.ckpt-5")
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-900"\n')
    assert checkpoint_prefix(tmp_path) == tmp_path / "model.ckpt-5"


def test_where_no_checkpoint_is_there_is_no_prefix(tmp_path: Path) -> None:
    (tmp_path / "vectors.index").touch()
    (tmp_path / "model.safetensors.index.json").touch()
    assert checkpoint_prefix(tmp_path) is None
    assert checkpoint_prefix(tmp_path / "bert_model.ckpt") is None
    assert checkpoint_prefix(tmp_path / "no" / "bert_model.ckpt") is None


@pytest.mark.parametrize("folder", ["", "/home/someone/run/", "C:\\\\run\\\\"])
def test_of_several_the_one_that_the_record_names_is_meant(tmp_path: Path, folder: str) -> None:
    touch(tmp_path, "model.ckpt-5", "model.ckpt-20", "model.ckpt-100")
    record = f'model_checkpoint_path: "{folder}model.ckpt-20"\nall_model_checkpoint_paths: "{folder}model.ckpt-5"\n'
    (tmp_path / "checkpoint").write_text(record)
    assert checkpoint_prefix(tmp_path) == tmp_path / "model.ckpt-20"


def test_of_several_without_a_record_the_highest_step_is_meant(tmp_path: Path) -> None:
    touch(tmp_path, "model.ckpt-9", "model.ckpt-100", "model.ckpt-20")
    assert checkpoint_prefix(tmp_path) == tmp_path / "model.ckpt-100"


@pytest.mark.parametrize(
    "prefixes", [("bert_model.ckpt", "best.ckpt"), ("bert_model.ckpt", "bert_model.ckpt-7"), ("a.ckpt-1", "b.ckpt-2")]
)
def test_several_checkpoints_of_which_none_is_named_are_refused_by_name(
    tmp_path: Path, prefixes: tuple[str, ...]
) -> None:
    touch(tmp_path, *prefixes)
    with pytest.raises(InputError, match="several TensorFlow checkpoints") as refused:
        checkpoint_prefix(tmp_path)
    assert all(prefix in str(refused.value) for prefix in prefixes)


def test_a_record_that_names_an_absent_checkpoint_is_no_guess(tmp_path: Path) -> None:
    touch(tmp_path, "model.ckpt-5", "model.ckpt-20")
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-900"\n')
    with pytest.raises(InputError, match=r"model\.ckpt-900, which is not here; name one"):
        checkpoint_prefix(tmp_path)


# Without TensorFlow, or with one that is broken


@pytest.mark.parametrize("part", ["index", "data-00000-of-00001"])
def test_a_missing_file_is_named_before_tensorflow_is_asked_for(tmp_path: Path, part: str) -> None:
    touch(tmp_path, "bert_model.ckpt")
    (tmp_path / f"bert_model.ckpt.{part}").unlink()
    prefix = checkpoint_prefix(tmp_path)
    assert prefix == tmp_path / "bert_model.ckpt"
    with pytest.raises(InputError, match=rf"bert_model\.ckpt\.{part}: no such file"):
        read_tensorflow(prefix)


def test_without_tensorflow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "bert_model.ckpt")
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(InputError, match=r'is not installed; pip install "bertsmith\[tf\]"'):
        read_tensorflow(tmp_path / "bert_model.ckpt")


def test_a_tensorflow_that_cannot_be_imported_gives_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorflow.py").write_text("raise ImportError('libnothing.so: cannot open\\nmore')\n")
    touch(tmp_path, "bert_model.ckpt")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    with pytest.raises(InputError, match=r"cannot be imported \(libnothing\.so: cannot open\); pip install"):
        read_tensorflow(tmp_path / "bert_model.ckpt")
