"""Checkpoints as others wrote them: shards, `.bin`, old names, missing prefixes, tied weights, heads and labels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import bertsmith
from bertsmith.bundle import load_bundle
from bertsmith.config.convert import ConvertOptions
from bertsmith.convert import convert
from tests.cli.run import bertsmith as command
from tests.interop.checkpoints import State, assert_equal_outputs, save, their_model
from tests.parity.reference import HEADS, redraw


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", HEADS)
def test_theirs_loads_here_and_ours_loads_there_with_equal_outputs(
    name: str, tied: bool, tokenizer_dir: Path, tmp_path: Path
) -> None:
    theirs = their_model(name, tokenizer_dir, tie_word_embeddings=tied)
    ours = load_bundle(save(theirs, tokenizer_dir, tmp_path / "theirs"))
    assert ours.model.heads == HEADS[name]
    assert_equal_outputs(name, theirs, ours.model)
    report = convert(ConvertOptions(src=str(tmp_path / "theirs"), out=tmp_path / "ours"))
    assert report["architecture"] == name
    again = getattr(transformers, name).from_pretrained(tmp_path / "ours", attn_implementation="eager").eval()
    assert_equal_outputs(name, again, ours.model)
    written = load_file(tmp_path / "ours" / "model.safetensors")
    buffers = {"bert.embeddings.position_ids"}
    wanted = {key for key in load_file(tmp_path / "theirs" / "model.safetensors") if key not in buffers}
    assert wanted <= written.keys(), "every tensor that transformers writes"


def as_bin(directory: Path, state: State) -> None:
    torch.save(state, directory / "pytorch_model.bin")


def in_shards(directory: Path, state: State, *, suffix: str = "safetensors") -> None:
    names, places = sorted(state), {}
    base = "model" if suffix == "safetensors" else "pytorch_model"
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"{base}-{number:05}-of-00002.{suffix}"
        tensors = {name: state[name].clone() for name in part}
        if suffix == "bin":
            torch.save(tensors, directory / file)
        else:
            save_file(tensors, directory / file)
        places |= dict.fromkeys(part, file)
    index = directory / f"{base}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))


def renamed(state: State, change: Callable[[str], str]) -> State:
    return {change(name): tensor.clone() for name, tensor in state.items()}


def old_norms(name: str) -> str:
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


WRITERS: dict[str, Callable[[Path, State], None]] = {
    "bin": as_bin,
    "sharded safetensors": in_shards,
    "sharded bin": lambda d, s: in_shards(d, s, suffix="bin"),
    "gamma and beta": lambda d, s: as_bin(d, renamed(s, old_norms)),
    "module. of a parallel wrapper": lambda d, s: as_bin(d, renamed(s, lambda name: f"module.{name}")),
    "position_ids stored": lambda d, s: as_bin(d, s | {"bert.embeddings.position_ids": torch.arange(40)[None]}),
    "tied decoder stored too": lambda d, s: as_bin(
        d, s | {"cls.predictions.decoder.weight": s["bert.embeddings.word_embeddings.weight"]}
    ),
    "decoder stored instead of the embeddings": lambda d, s: as_bin(
        d,
        {k: v for k, v in s.items() if k != "bert.embeddings.word_embeddings.weight"}
        | {"cls.predictions.decoder.weight": s["bert.embeddings.word_embeddings.weight"]},
    ),
    "decoder bias instead of bias": lambda d, s: as_bin(
        d, {k.replace("cls.predictions.bias", "cls.predictions.decoder.bias"): v for k, v in s.items()}
    ),
    "half precision": lambda d, s: save_file({k: v.half() for k, v in s.items()}, d / "model.safetensors"),
    "nested under state_dict": lambda d, s: as_bin(d, {"state_dict": s, "epoch": 3}),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRITERS)
def test_every_way_to_store_a_masked_language_model_is_read(kind: str, tokenizer_dir: Path, tmp_path: Path) -> None:
    theirs = their_model("BertForPreTraining", tokenizer_dir)
    if kind == "half precision":
        theirs = theirs.half().float()
    directory = save(theirs, tokenizer_dir, tmp_path / "model")
    state = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    WRITERS[kind](directory, {name: tensor.contiguous() for name, tensor in state.items()})
    assert_equal_outputs("BertForPreTraining", theirs, load_bundle(directory).model)


@pytest.mark.parametrize("prefix", ["bert.", ""])
def test_a_bare_encoder_is_read_with_and_without_its_prefix(prefix: str, tokenizer_dir: Path, tmp_path: Path) -> None:
    theirs = their_model("BertModel", tokenizer_dir)
    directory = save(theirs, tokenizer_dir, tmp_path / "model")
    state = renamed(theirs.state_dict(), lambda name: prefix + name)
    save_file(state, directory / "model.safetensors")
    assert_equal_outputs("BertModel", theirs, load_bundle(directory).model)


def test_extra_heads_are_left_out_and_listed_and_a_head_without_weights_is_named(
    tokenizer_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = their_model("BertForMaskedLM", tokenizer_dir)
    directory = save(theirs, tokenizer_dir, tmp_path / "model")
    state = load_file(directory / "model.safetensors") | {"lm_extra.weight": torch.zeros(2, 3)}
    save_file(state, directory / "model.safetensors")
    config = json.loads((directory / "config.json").read_text()) | {"architectures": ["BertForTokenClassification"]}
    (directory / "config.json").write_text(json.dumps(config))
    report = convert(ConvertOptions(src=str(directory), out=tmp_path / "out"))
    assert report["not_read"] == ["lm_extra.weight"]
    assert "lm_extra.weight" in caplog.text
    assert "names BertForTokenClassification, but its head has no weights here: it must start fresh" in caplog.text


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression"])
def test_a_classifier_of_another_problem_answers_as_its_config_says(
    problem: str, tokenizer_dir: Path, tmp_path: Path, capsys
) -> None:
    outputs = {"num_labels": 1} if problem == "regression" else {}
    theirs = their_model("BertForSequenceClassification", tokenizer_dir, **outputs)
    theirs.config.problem_type = problem
    save(theirs, tokenizer_dir, tmp_path / "theirs")
    convert(ConvertOptions(src=str(tmp_path / "theirs"), out=tmp_path / "ours"))
    answers = []
    for directory in ("theirs", "ours"):
        outcome = command(capsys, "predict", tmp_path / directory, "--text", "a dog")
        assert outcome.code == 0
        answers.append(json.loads(outcome.out))
    assert answers[0] == answers[1]
    assert isinstance(answers[0], list if problem == "multi_label_classification" else dict)
    assert transformers.AutoConfig.from_pretrained(tmp_path / "ours").problem_type == problem


@pytest.mark.parametrize("problem", [None, "regression"])
def test_one_label_is_answered_as_by_the_pipeline_of_transformers(
    problem: str | None, tokenizer_dir: Path, tmp_path: Path
) -> None:
    shape = their_model("BertForSequenceClassification", tokenizer_dir).config.to_dict()
    labels = {"num_labels": 1, "id2label": {0: "toxic"}, "label2id": {"toxic": 0}, "problem_type": problem}
    theirs = transformers.BertForSequenceClassification(transformers.BertConfig(**shape | labels)).eval()
    redraw(theirs)
    save(theirs, tokenizer_dir, tmp_path / "theirs")
    convert(ConvertOptions(src=str(tmp_path / "theirs"), out=tmp_path / "ours"))
    texts = ["the cat sees a red ball.", "a dog"]
    expected = transformers.pipeline("text-classification", str(tmp_path / "theirs"), device="cpu")(texts)
    again = transformers.pipeline("text-classification", str(tmp_path / "ours"), device="cpu")(texts)
    for name in ("theirs", "ours"):
        answers = bertsmith.load(tmp_path / name, device="cpu").predict(texts)
        for one, other, third in zip(answers, expected, again, strict=True):
            assert one["label"] == other["label"] == third["label"] == "toxic"
            assert one["score"] == pytest.approx(other["score"], abs=1e-5)
            assert third["score"] == pytest.approx(other["score"], abs=1e-5)


def test_a_classifier_of_transformers_predicts_with_its_own_labels(tokenizer_dir: Path, tmp_path: Path) -> None:
    labels = {0: "bad", 1: "so-so", 2: "good"}
    theirs = their_model("BertForSequenceClassification", tokenizer_dir)
    config = theirs.config
    theirs = transformers.BertForSequenceClassification(
        transformers.BertConfig(
            **config.to_dict() | {"id2label": labels, "label2id": {v: k for k, v in labels.items()}}
        )
    )
    redraw(theirs)
    save(theirs.eval(), tokenizer_dir, tmp_path / "model")
    ours = bertsmith.load(tmp_path / "model", device="cpu")
    for text in ("the cat sees a red ball.", "a dog"):
        tokens = transformers.AutoTokenizer.from_pretrained(tokenizer_dir)(text, return_tensors="pt")
        with torch.no_grad():
            probabilities = theirs(**tokens).logits.softmax(-1)[0]
        answer = ours.predict([text])[0]
        assert answer["label"] == labels[int(probabilities.argmax())]
        assert answer["score"] == pytest.approx(float(probabilities.max()), abs=1e-5)
