"""Directories of sentence-transformers that cannot be computed exactly are refused by file and field."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from sentence_transformers.base.modules import Normalize
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import nn

import bertsmith
from bertsmith.errors import InputError
from bertsmith.interop.sentence_transformers import read_sentence_modules
from tests.interop.sentence_models import (
    HIDDEN,
    bert_directory,
    change,
    dense,
    saved,
)


def module(kind: str, folder: str = "", *, package: str = "sentence_transformers.models") -> dict[str, str]:
    return {"idx": "9", "name": "9", "path": folder, "type": f"{package}.{kind}"}


def set_to(**values: Any) -> Callable[[Any], None]:
    return lambda content: content.update(values)


def set_module(i: int, **values: Any) -> Callable[[Any], None]:
    return lambda entries: entries[i].update(values)


DAMAGE: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "no list": ("modules.json", lambda _: {}, "modules.json: not a list of modules"),
    "unknown module": ("modules.json", lambda m: m.append(module("CNN", "4_CNN")), 'json: field "type": .*"CNN"'),
    "lstm": ("modules.json", lambda m: m.append(module("LSTM", "4_LSTM")), 'field "type": unknown module "LSTM"'),
    "layer norm": ("modules.json", lambda m: m.append(module("LayerNorm")), 'unknown module "LayerNorm"'),
    "words": ("modules.json", set_module(0, type="sentence_transformers.models.WordEmbeddings"), "first two modules"),
    "no pooling": ("modules.json", lambda m: m[:1], 'field "type": the first two modules'),
    "code": ("modules.json", set_module(1, type="custom_st.Pooling"), "'custom_st.Pooling' is no module of"),
    "no type": ("modules.json", lambda m: m[1].pop("type") and None, 'field "type"'),
    "above": ("modules.json", set_module(1, path="../1_Pooling"), 'field "path": names a place outside'),
    "absolute": ("modules.json", set_module(1, path="/etc"), 'field "path": names a place outside'),
    "nul": ("modules.json", set_module(2, path="2\0Dense"), 'field "path": names a place outside'),
    "drive": ("modules.json", set_module(2, path="C:\\x"), 'field "path": names a place outside'),
    "no path": ("modules.json", lambda m: m[1].pop("path") and None, 'field "path"'),
    "old place": ("modules.json", set_module(0, path="0_Transformer"), 'field "path": .*"0_Transformer".*2 or newer'),
    "dense last": ("modules.json", lambda m: [*m[:2], m[3], m[2]], "a Dense after Normalize"),
    "last token": ("1_Pooling/config.json", set_to(pooling_mode="lasttoken"), 'field "pooling_mode": .*lasttoken'),
    "square root": ("1_Pooling/config.json", set_to(pooling_mode=["mean", "mean_sqrt_len_tokens"]), "sqrt_len"),
    "flag": (
        "1_Pooling/config.json",
        lambda c: {"word_embedding_dimension": HIDDEN, "pooling_mode_lasttoken": True},
        'field "pooling_mode_lasttoken": unknown pooling',
    ),
    "flag value": (
        "1_Pooling/config.json",
        lambda c: {"word_embedding_dimension": HIDDEN, "pooling_mode_cls_token": "yes"},
        "field \"pooling_mode_cls_token\": is 'yes'; expected true or false",
    ),
    "prompt left out": ("1_Pooling/config.json", set_to(include_prompt=False), 'field "include_prompt"'),
    "width": ("1_Pooling/config.json", set_to(embedding_dimension=31), 'field "embedding_dimension": is 31.*32'),
    "no width": ("1_Pooling/config.json", lambda c: {"pooling_mode": "mean"}, 'field "word_embedding_dimension"'),
    "activation": (
        "2_Dense/config.json",
        set_to(activation_function="os.system"),
        "field \"activation_function\": unknown activation 'os.system'",
    ),
    "residual": ("2_Dense/config.json", set_to(use_residual=True), 'field "use_residual"'),
    "other input": ("2_Dense/config.json", set_to(module_input_name="token_embeddings"), 'field "module_input_name"'),
    "dense width": ("2_Dense/config.json", set_to(in_features=64), 'field "in_features": is 64.*give 32'),
    "dense shape": ("2_Dense/config.json", set_to(out_features=13), r"2_Dense/model.safetensors: holds .*\(13, 32\)"),
    "no bias": ("2_Dense/config.json", set_to(bias=False), r"2_Dense/model.safetensors: holds .*linear.bias"),
    "limit": ("sentence_bert_config.json", set_to(max_seq_length=1), 'field "max_seq_length": is 1; .*at least 2'),
    "limit type": ("sentence_bert_config.json", set_to(max_seq_length="many"), 'field "max_seq_length": is'),
    "case": ("sentence_bert_config.json", set_to(do_lower_case="x"), 'field "do_lower_case"'),
    "task": ("sentence_bert_config.json", set_to(transformer_task="fill-mask"), 'field "transformer_task"'),
    "processing": ("sentence_bert_config.json", set_to(processing_kwargs={"text": {}}), 'field "processing_kwargs"'),
    "tokenizer": ("sentence_bert_config.json", set_to(tokenizer_args={"split": 1}), 'field "tokenizer_args": split'),
    "not an object": ("sentence_bert_config.json", lambda _: [1], "sentence_bert_config.json: not a JSON object"),
    "prompts": ("config_sentence_transformers.json", set_to(prompts=["a"]), 'field "prompts"'),
    "default": ("config_sentence_transformers.json", set_to(default_prompt_name="q"), 'field "default_prompt_name"'),
    "similarity": ("config_sentence_transformers.json", set_to(similarity_fn_name=1), 'field "similarity_fn_name"'),
    "first numbers": ("config_sentence_transformers.json", set_to(truncate_dim=0), 'field "truncate_dim"'),
}


@pytest.fixture(scope="module")
def model_of_theirs(tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sentence")
    bert = bert_directory(folder / "bert", tokenizer_dir)
    saved(bert, folder / "model", Pooling(HIDDEN), dense(HIDDEN, 12, nn.Tanh()), Normalize())
    return folder / "model"


@pytest.mark.parametrize("case", DAMAGE)
def test_what_cannot_be_computed_exactly_is_refused_by_file_and_field(
    case: str, model_of_theirs: Path, tmp_path: Path
) -> None:
    name, edit, pattern = DAMAGE[case]
    directory = tmp_path / "model"
    shutil.copytree(model_of_theirs, directory)
    assert read_sentence_modules(directory) is not None
    change(directory / name, edit)
    with pytest.raises(InputError) as caught:
        bertsmith.load(directory).embed(["a text"])
    (line,) = caught.value.lines()
    assert re.search(pattern, line), line
    assert str(directory) in line


def test_missing_files_of_a_module_are_named(model_of_theirs: Path, tmp_path: Path) -> None:
    for name in ("1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors"):
        directory = tmp_path / name.replace("/", "_")
        shutil.copytree(model_of_theirs, directory)
        (directory / name).unlink()
        with pytest.raises(InputError, match=name.split("/")[0]):
            bertsmith.load(directory).embed(["a text"])


@pytest.mark.parametrize(
    ("pooling", "message"),
    [("means", 'unknown pooling "means"; did you mean "mean"'), (("cls", "mean"), "takes 32"), ((), "no pooling")],
)
def test_a_pooling_that_cannot_be_is_refused(pooling: str | Sequence[str], message: str, model_of_theirs: Path) -> None:
    with pytest.raises(InputError, match=message):
        bertsmith.load(model_of_theirs, device="cpu").embed(["a"], pooling=pooling)
