"""What bertsmith writes, transformers loads with equal logits; what transformers writes, bertsmith loads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import bertsmith
from bertsmith.bundle import load_bundle
from bertsmith.errors import InputError
from tests.parity.reference import SHAPE, redraw

TEXTS = ["the cat sees a red ball.", "a dog", "One fish paints the blue sky with joy near the river again!", ""]


def their_inputs(directory: Path, text: str) -> dict[str, torch.Tensor]:
    return dict(transformers.AutoTokenizer.from_pretrained(directory)(text, return_tensors="pt"))


def assert_close(ours: object, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(torch.as_tensor(ours), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["AutoModelForMaskedLM", "BertForMaskedLM", "BertForPreTraining"])
def test_an_encoder_directory_gives_equal_logits_in_transformers(name: str, encoder_dir: Path) -> None:
    theirs = getattr(transformers, name).from_pretrained(encoder_dir).eval()
    ours = bertsmith.load(encoder_dir, device="cpu")
    for text in TEXTS:
        with torch.no_grad():
            output = theirs(**their_inputs(encoder_dir, text))
        assert_close(ours.logits([text])[0], output["logits" if "MaskedLM" in name else "prediction_logits"][0])
        if name == "BertForPreTraining":
            batch = next(ours._batches([text]))
            with torch.no_grad():
                follows = ours.bundle.model.next_sentence_logits(ours.bundle.model.pooled(batch))
            assert_close(follows, output.seq_relationship_logits)


def test_a_classifier_directory_gives_equal_logits_and_labels_in_transformers(classifier_dir: Path) -> None:
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(classifier_dir).eval()
    ours = bertsmith.load(classifier_dir, device="cpu")
    for text in TEXTS:
        with torch.no_grad():
            logits = theirs(**their_inputs(classifier_dir, text)).logits[0]
        assert_close(ours.logits([text])[0], logits)
        assert ours.predict([text])[0]["label"] == theirs.config.id2label[int(logits.argmax())]


def test_hidden_states_and_attentions_of_the_python_interface_equal_transformers(encoder_dir: Path) -> None:
    theirs = transformers.AutoModel.from_pretrained(encoder_dir, attn_implementation="eager").eval()
    ours = bertsmith.load(encoder_dir, device="cpu")
    for text, states, maps in zip(TEXTS, ours.hidden_states(TEXTS), ours.attentions(TEXTS), strict=True):
        with torch.no_grad():
            inputs = their_inputs(encoder_dir, text)
            output = theirs(**inputs, output_hidden_states=True, output_attentions=True)
        assert_close(states, torch.stack(output.hidden_states)[:, 0])
        assert_close(maps, torch.stack(output.attentions)[:, 0])


def test_a_masked_head_changes_the_attentions_of_that_head_only(encoder_dir: Path) -> None:
    ours = bertsmith.load(encoder_dir, device="cpu")
    shape = (ours.encoder.config.num_hidden_layers, ours.encoder.config.num_attention_heads)
    mask = torch.ones(shape)
    mask[1, 0] = 0
    free, masked = ours.attentions(TEXTS[:1])[0], ours.attentions(TEXTS[:1], head_mask=mask)[0]
    assert (masked[1, 0] == 0).all()
    assert (masked[0] == free[0]).all()
    with pytest.raises(InputError, match="head_mask is"):
        ours.attentions(TEXTS[:1], head_mask=torch.ones(5, 5))


@pytest.mark.parametrize("name", ["BertForPreTraining", "BertForMaskedLM", "BertForSequenceClassification"])
def test_a_directory_of_transformers_loads_with_equal_logits(name: str, tokenizer_dir: Path, tmp_path: Path) -> None:
    vocabulary = len((tokenizer_dir / "vocab.txt").read_text().splitlines())
    config = transformers.BertConfig(**(SHAPE | {"vocab_size": vocabulary}), num_labels=3)
    theirs = getattr(transformers, name)(config).eval()
    redraw(theirs)
    theirs.save_pretrained(tmp_path / "model")
    transformers.AutoTokenizer.from_pretrained(tokenizer_dir).save_pretrained(tmp_path / "model")
    ours = bertsmith.load(tmp_path / "model", device="cpu")
    for text in TEXTS[:3]:
        with torch.no_grad():
            output = theirs(**their_inputs(tokenizer_dir, text))
        key = "prediction_logits" if name == "BertForPreTraining" else "logits"
        torch.testing.assert_close(torch.as_tensor(ours.logits([text])[0]), output[key][0], rtol=1e-4, atol=1e-4)


def changed(source: Path, target: Path) -> Path:
    """A copy of a model directory without its manifest, so that other checks than the checksum are reached."""
    shutil.copytree(source, target)
    (target / "bertsmith.json").unlink()
    return target


def test_loading_names_the_tensor_that_is_missing_unknown_or_of_a_wrong_shape(
    encoder_dir: Path, tmp_path: Path
) -> None:
    key = "bert.encoder.layer.1.output.dense.weight"
    changes = {
        r"tensors are missing: bert\.encoder\.layer\.1\.output\.dense\.weight": lambda s: s.pop(key),
        r"tensor bert\.encoder\.layer\.1\.output\.dense\.weight has shape \(32, 7\)": lambda s: s.update(
            {key: s[key][:, :7]}
        ),
        r"key\.weight' is missing": lambda s: s.pop("bert.encoder.layer.0.attention.self.key.weight"),
    }
    for number, (message, change) in enumerate(changes.items()):
        directory = changed(encoder_dir, tmp_path / str(number))
        state = load_file(directory / "model.safetensors")
        change(state)
        save_file({k: v.contiguous().clone() for k, v in state.items()}, directory / "model.safetensors")
        with pytest.raises(InputError, match=message):
            load_bundle(directory)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("hidden_act", "gellu", "unknown hidden_act 'gellu'; did you mean \"gelu\""),
        ("num_attention_heads", 7, "not a multiple of num_attention_heads"),
        ("model_type", "gpt2", r"model_type is 'gpt2'"),
        ("vocab_size", 91, r"91"),
        ("position_embedding_type", "relative_key", "only absolute positions"),
        ("num_hidden_layers", "two", r'field "num_hidden_layers"'),
    ],
)
def test_a_contradicting_configuration_is_refused_by_field(
    field: str, value: object, message: str, encoder_dir: Path, tmp_path: Path
) -> None:
    directory = changed(encoder_dir, tmp_path / "model")
    config = json.loads((directory / "config.json").read_text()) | {field: value}
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=message):
        load_bundle(directory)


def test_a_truncated_weights_file_is_refused(encoder_dir: Path, tmp_path: Path) -> None:
    directory = changed(encoder_dir, tmp_path / "model")
    content = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").write_bytes(content[:-100])
    with pytest.raises(InputError, match=r"model\.safetensors: not a readable safetensors file"):
        load_bundle(directory)


def test_a_label_that_is_no_text_and_a_tensorflow_folder_are_refused_with_their_names(
    classifier_dir: Path, tmp_path: Path
) -> None:
    directory = changed(classifier_dir, tmp_path / "model")
    config = json.loads((directory / "config.json").read_text())
    config["id2label"] = {"0": "cat", "1": "\ud800"}
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match='field "id2label"'):
        load_bundle(directory)
    (tmp_path / "google").mkdir()
    (tmp_path / "google" / "bert_model.ckpt.index").write_bytes(b"")
    with pytest.raises(InputError, match="a TensorFlow checkpoint; make a model of it first: bertsmith convert"):
        load_bundle(tmp_path / "google")
