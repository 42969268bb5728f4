"""Directories of sentence-transformers give equal vectors here, whichever version wrote them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers.base.modules import Normalize
from sentence_transformers.sentence_transformer.modules import Dropout, Pooling
from torch import nn

import bertsmith
from bertsmith.errors import InputError
from bertsmith.interop.sentence_transformers import read_sentence_modules
from bertsmith.tasks import embedding
from tests.interop.sentence_models import (
    HIDDEN,
    LONG,
    PROMPTS,
    TEXTS,
    assert_equal_vectors,
    bert_directory,
    change,
    dense,
    saved,
    theirs,
)

STACKS: dict[str, Callable[[], list[nn.Module]]] = {
    **{mode: lambda mode=mode: [Pooling(HIDDEN, mode)] for mode in ("cls", "mean", "max", "weightedmean")},
    **{
        f"{mode}, length 1": lambda mode=mode: [Pooling(HIDDEN, mode), Normalize()]
        for mode in ("cls", "mean", "max", "weightedmean")
    },
    "two poolings": lambda: [Pooling(HIDDEN, ("cls", "mean"))],
    "three poolings in another order": lambda: [Pooling(HIDDEN, ("weightedmean", "max", "cls")), Normalize()],
    "dense, tanh": lambda: [Pooling(HIDDEN, "cls"), dense(HIDDEN, 12, nn.Tanh()), Normalize()],
    "dense, identity, no bias": lambda: [Pooling(HIDDEN), dense(HIDDEN, 40, nn.Identity(), bias=False)],
    "dense, gelu": lambda: [Pooling(HIDDEN), dense(HIDDEN, 12, nn.GELU())],
    "dense, relu": lambda: [Pooling(HIDDEN), dense(HIDDEN, 12, nn.ReLU())],
    "dense, silu": lambda: [Pooling(HIDDEN), dense(HIDDEN, 12, nn.SiLU())],
    "dropout, which is for training": lambda: [Pooling(HIDDEN), Dropout(0.5), dense(HIDDEN, 12, nn.Tanh())],
    "two dense on two poolings": lambda: [
        Pooling(HIDDEN, ("mean", "max")),
        dense(2 * HIDDEN, 24, nn.Tanh()),
        dense(24, 7, nn.Identity()),
        Normalize(),
    ],
}


@pytest.mark.parametrize("stack", STACKS)
def test_a_directory_of_theirs_gives_their_vectors(stack: str, bert: Path, tmp_path: Path) -> None:
    model = saved(bert, tmp_path / "model", *STACKS[stack]())
    assert_equal_vectors(bertsmith.load(tmp_path / "model", device="cpu").embed(TEXTS), model.encode(TEXTS))


def test_a_plain_directory_gives_their_vectors_by_the_mean(bert: Path, encoder_dir: Path) -> None:
    for directory in (bert, encoder_dir):
        vectors = bertsmith.load(directory, device="cpu").embed(TEXTS, long_docs="truncate")
        assert_equal_vectors(vectors, theirs(directory).encode(TEXTS))
        assert np.abs(np.linalg.norm(vectors, axis=1) - 1).min() > 0.01  # not normalised


def test_prompts_are_put_before_the_text_as_they_do(bert: Path, tmp_path: Path) -> None:
    model = saved(bert, tmp_path / "model", Pooling(HIDDEN), prompts=PROMPTS, default_prompt_name="query")
    ours = bertsmith.load(tmp_path / "model", device="cpu")
    assert_equal_vectors(ours.embed(TEXTS), model.encode(TEXTS))
    assert_equal_vectors(ours.embed(TEXTS, prompt="passage"), model.encode(TEXTS, prompt_name="passage"))
    assert_equal_vectors(ours.embed(TEXTS, prompt=""), model.encode(TEXTS, prompt=""))
    assert np.abs(ours.embed(TEXTS) - ours.embed(TEXTS, prompt="")).max() > 0.01
    with pytest.raises(InputError, match=r'no prompt "passages"; did you mean "passage".*it has: .*query'):
        ours.embed(TEXTS, prompt="passages")


def test_without_a_default_no_prompt_is_taken(bert: Path, tmp_path: Path) -> None:
    model = saved(bert, tmp_path / "model", Pooling(HIDDEN), prompts=PROMPTS)
    assert_equal_vectors(bertsmith.load(tmp_path / "model", device="cpu").embed(TEXTS), model.encode(TEXTS))


@pytest.mark.parametrize("place", ["sentence_bert_config.json", "tokenizer_config.json", "processor_kwargs"])
def test_texts_are_cut_where_they_cut_them(
    place: str, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version 6 stores the limit with the tokenizer, older versions in sentence_bert_config.json."""
    directory = tmp_path / "model"
    saved(bert, directory, Pooling(HIDDEN, ("cls", "mean")))
    key, values = {
        "sentence_bert_config.json": ("max_seq_length", 9),
        "tokenizer_config.json": ("model_max_length", 9),
        "processor_kwargs": ("processor_kwargs", {"model_max_length": 9}),
    }[place]
    file = directory / ("tokenizer_config.json" if place == "tokenizer_config.json" else "sentence_bert_config.json")
    change(file, lambda content: content.update({key: values}))
    model = theirs(directory)
    assert model.max_seq_length == 9
    ours = bertsmith.load(directory, device="cpu")
    warnings: list[str] = []
    monkeypatch.setattr(embedding.log, "warning", lambda text, *values: warnings.append(text % values))
    assert_equal_vectors(ours.embed(TEXTS), model.encode(TEXTS))
    cut = sum(len(ours.bundle.tokenizer.encode(text).ids) > 9 for text in TEXTS)
    assert 0 < cut < len(TEXTS)
    assert warnings == [f"{cut} of 7 texts were cut to 9 tokens"]


@pytest.mark.parametrize("kind", ["roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"])
def test_old_versions_named_the_limits_after_the_encoder(kind: str, tokenizer_dir: Path, tmp_path: Path) -> None:
    bert, directory = bert_directory(tmp_path / "bert", tokenizer_dir, lowercase=False), tmp_path / "model"
    saved(bert, directory, Pooling(HIDDEN))
    usual = directory / "sentence_bert_config.json"
    change(usual, lambda _: {"max_seq_length": 9, "do_lower_case": True})
    usual.rename(directory / f"sentence_{kind}_config.json")
    model = theirs(directory)
    assert model.max_seq_length == 9
    assert_equal_vectors(bertsmith.load(directory, device="cpu").embed(TEXTS), model.encode(TEXTS))


def test_texts_are_cut_on_the_left_if_the_tokenizer_says_so(bert: Path, tmp_path: Path) -> None:
    saved(bert, tmp_path / "model", Pooling(HIDDEN))
    right = bertsmith.load(tmp_path / "model", device="cpu").embed([LONG])
    change(tmp_path / "model/tokenizer_config.json", lambda content: content.update(truncation_side="left"))
    left = bertsmith.load(tmp_path / "model", device="cpu").embed([LONG])
    assert_equal_vectors(left, theirs(tmp_path / "model").encode([LONG]))
    assert np.abs(left - right).max() > 1e-3


def renamed(content: dict[str, Any], names: list[str]) -> dict[str, int]:
    """The vocabulary of a tokenizer.json with other names for its last pieces."""
    vocabulary = content["model"]["vocab"]
    pieces = sorted(vocabulary, key=vocabulary.__getitem__)
    return {piece: number for number, piece in enumerate([*pieces[: -len(names)], *names])}


def test_do_lower_case_lowers_before_a_cased_tokenizer(tokenizer_dir: Path, tmp_path: Path) -> None:
    """Greek shows whose lower case it is: a final sigma stays σ, where Python writes ς."""
    bert = bert_directory(tmp_path / "cased", tokenizer_dir, lowercase=False)
    new = ["οδοσ", "οδος"]
    change(bert / "tokenizer.json", lambda content: content["model"].update(vocab=renamed(content, new)))
    (bert / "vocab.txt").unlink()
    saved(bert, tmp_path / "model", Pooling(HIDDEN))
    texts = [*TEXTS, "THE CAT SEES A DOG", "ΟΔΟΣ Ä"]
    assert bertsmith.load(bert, device="cpu").bundle.tokenizer.encode("οδοσ οδος").tokens[1:3] == new
    before = bertsmith.load(tmp_path / "model", device="cpu").embed(texts)
    change(tmp_path / "model/sentence_bert_config.json", lambda content: content.update(do_lower_case=True))
    ours = bertsmith.load(tmp_path / "model", device="cpu")
    assert_equal_vectors(ours.embed(texts), theirs(tmp_path / "model").encode(texts))
    assert np.abs(ours.embed(texts) - before).max() > 0.01
    with pytest.raises(InputError, match=r"texts\[1\].*surrogate"):
        ours.embed(["a", "\ud800"])


@pytest.mark.parametrize("normalize", [None, True, False])
def test_truncate_dim_and_an_explicit_normalisation_follow_their_order(
    normalize: bool | None, bert: Path, tmp_path: Path
) -> None:
    """Theirs: the modules, then the cut to `truncate_dim`, then what `encode` was asked for."""
    after = [] if normalize is False else [Normalize()]
    saved(bert, tmp_path / "model", Pooling(HIDDEN), *after, truncate_dim=5)
    reference = theirs(tmp_path / "model").encode(TEXTS, normalize_embeddings=bool(normalize))
    if normalize is False:  # ours leaves out the module of the directory
        entry = {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}
        change(tmp_path / "model/modules.json", lambda entries: [*entries, entry])
    ours = bertsmith.load(tmp_path / "model", device="cpu")
    assert_equal_vectors(ours.embed(TEXTS, normalize=normalize), reference)
    assert ours.embed([]).shape == (0, 5)


def test_old_class_paths_flags_and_bin_weights_are_read(bert: Path, tmp_path: Path) -> None:
    """As version 2 wrote them: flags, `sentence_transformers.models`, pytorch_model.bin, no folder of Normalize."""
    directory = tmp_path / "model"
    layer = dense(2 * HIDDEN, 12, nn.Tanh())
    model = saved(bert, directory, Pooling(HIDDEN, ("max", "mean")), layer, Normalize())
    kinds = ("Transformer", "Pooling", "Dense", "Normalize")
    change(
        directory / "modules.json",
        lambda entries: [
            entry | {"type": f"sentence_transformers.models.{kind}"} for entry, kind in zip(entries, kinds, strict=True)
        ],
    )
    flags = {f"pooling_mode_{name}": False for name in ("cls_token", "mean_sqrt_len_tokens")}
    flags |= {f"pooling_mode_{name}": True for name in ("mean_tokens", "max_tokens")}
    change(directory / "1_Pooling/config.json", lambda _: {"word_embedding_dimension": HIDDEN, **flags})
    change(directory / "2_Dense/config.json", lambda content: content.pop("module_input_name") and None)
    (directory / "2_Dense/model.safetensors").unlink()
    torch.save(layer.state_dict(), directory / "2_Dense/pytorch_model.bin")
    shutil.rmtree(directory / "3_Normalize")
    assert_equal_vectors(bertsmith.load(directory, device="cpu").embed(TEXTS), model.encode(TEXTS))
    assert_equal_vectors(theirs(directory).encode(TEXTS), model.encode(TEXTS))


def test_a_directory_of_a_cross_encoder_is_no_embedder(bert: Path, tmp_path: Path) -> None:
    saved(bert, tmp_path / "model", Pooling(HIDDEN))
    file = tmp_path / "model/config_sentence_transformers.json"
    change(file, lambda content: content.update(model_type="CrossEncoder"))
    change(tmp_path / "model/modules.json", lambda entries: entries[:1])
    assert read_sentence_modules(tmp_path / "model") is None
