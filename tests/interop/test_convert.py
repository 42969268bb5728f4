"""What `convert` writes: the same bytes again, other shapes, another tokenizer; what it never overwrites."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

import bertsmith
from bertsmith.bundle import load_bundle
from bertsmith.config.convert import ConvertOptions
from bertsmith.convert import convert
from bertsmith.errors import InputError
from tests.cli.run import bertsmith as command
from tests.interop.checkpoints import inputs, save, their_model, vocabulary_size
from tests.parity.heads import our_logits
from tests.parity.reference import packed


def test_convert_then_save_then_load_is_bitwise(tokenizer_dir: Path, tmp_path: Path) -> None:
    theirs = their_model("BertForPreTraining", tokenizer_dir)
    save(theirs, tokenizer_dir, tmp_path / "theirs")
    convert(ConvertOptions(src=str(tmp_path / "theirs"), out=tmp_path / "one"))
    convert(ConvertOptions(src=str(tmp_path / "one"), out=tmp_path / "two"))
    for name in ("model.safetensors", "config.json", "tokenizer.json", "vocab.txt"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    one, state = load_file(tmp_path / "one" / "model.safetensors"), theirs.state_dict()
    for name, tensor in one.items():
        assert torch.equal(tensor, state[name]), name


def test_a_resized_model_still_loads_in_transformers(tokenizer_dir: Path, tmp_path: Path) -> None:
    theirs = their_model("BertForMaskedLM", tokenizer_dir)
    size = theirs.config.vocab_size
    save(theirs, tokenizer_dir, tmp_path / "theirs")
    report = convert(ConvertOptions(src=str(tmp_path / "theirs"), out=tmp_path / "out", vocab_size=size + 9))
    assert report["changes"] == [f"vocabulary resized from {size} to {size + 9}"]
    again = transformers.BertForMaskedLM.from_pretrained(tmp_path / "out").eval()
    ids, mask, types = inputs(size)
    with torch.no_grad():
        logits = again(ids, attention_mask=mask, token_type_ids=types).logits
        expected = theirs(ids, attention_mask=mask, token_type_ids=types).logits
    assert logits.shape[-1] == size + 9
    torch.testing.assert_close(logits[..., :size], expected, rtol=1e-5, atol=1e-4)


def test_a_vocabulary_smaller_than_the_tokenizer_is_refused_with_the_command_that_mends_it(
    tokenizer_dir: Path, tmp_path: Path
) -> None:
    size = vocabulary_size(tokenizer_dir)
    theirs = their_model("BertForMaskedLM", tokenizer_dir, vocab_size=size - 4)
    directory = save(theirs, tokenizer_dir, tmp_path / "model")
    with pytest.raises(InputError, match=f"--vocab-size {size} --out DIR` adds the rows"):
        load_bundle(directory)
    convert(ConvertOptions(src=str(directory), out=tmp_path / "out", vocab_size=size))
    assert bertsmith.load(tmp_path / "out", device="cpu").bundle.model.config.vocab_size == size


def test_a_pruned_model_saves_loads_and_goes_back_to_a_full_shape(tokenizer_dir: Path, tmp_path: Path) -> None:
    theirs = their_model("BertForMaskedLM", tokenizer_dir)
    save(theirs, tokenizer_dir, tmp_path / "theirs")
    report = convert(ConvertOptions(src=str(tmp_path / "theirs"), out=tmp_path / "pruned", prune_heads="0:1,3 2:0"))
    assert (report["model_type"], report["unlike_bert"]) == ("bertsmith", ["pruned_heads"])
    pruned = load_bundle(tmp_path / "pruned").model
    assert [block.attention.heads for block in pruned.encoder.blocks] == [2, 4, 3]
    assert "--to-hf" in (tmp_path / "pruned" / "README.md").read_text()
    report = convert(ConvertOptions(src=str(tmp_path / "pruned"), out=tmp_path / "full", to_hf=True))
    assert report["model_type"] == "bert"
    again = transformers.BertForMaskedLM.from_pretrained(tmp_path / "full", attn_implementation="eager").eval()
    ids, mask, types = inputs(theirs.config.vocab_size)
    with torch.no_grad():
        full = again(ids, attention_mask=mask, token_type_ids=types).logits[mask.bool()]
        ours = our_logits(pruned, packed(ids, mask, types))["mlm"]
    assert ((full - ours).abs() <= 1e-6 * full.abs().clamp(min=1)).all()


def test_the_card_may_be_edited_and_its_licence_is_kept(tokenizer_dir: Path, tmp_path: Path) -> None:
    save(their_model("BertModel", tokenizer_dir), tokenizer_dir, tmp_path / "theirs")
    convert(ConvertOptions(src=str(tmp_path / "theirs"), out=tmp_path / "ours"))
    card = tmp_path / "ours" / "README.md"
    card.write_text(card.read_text().replace("license: other", "license: apache-2.0"))
    load_bundle(tmp_path / "ours")
    convert(ConvertOptions(src=str(tmp_path / "ours"), out=tmp_path / "again"))
    assert "\nlicense: apache-2.0\n" in (tmp_path / "again" / "README.md").read_text()


def test_what_overwriting_would_destroy_is_kept(encoder_dir: Path, tmp_path: Path, capsys) -> None:
    source = tmp_path / "folder" / "encoder"
    shutil.copytree(encoder_dir, source)
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "thesis.txt").write_text("mine")
    for out, message in (
        (source, "take the place of its own source"),
        (tmp_path / "folder", "bertsmith did not write"),
        (notes, "bertsmith did not write"),
    ):
        outcome = command(capsys, "convert", source, "--out", out, "--overwrite")
        assert outcome.code == 2
        assert message in outcome.err
    assert (notes / "thesis.txt").read_text() == "mine"
    assert (source / "train").is_dir()
    assert command(capsys, "convert", source, "--out", "", "--overwrite").code == 2


def test_flags_of_state_dicts_are_refused_with_a_directory(encoder_dir: Path, tmp_path: Path, capsys) -> None:
    for flags in (("--heads", "2"), ("--positions", "9"), ("--layout", "original"), ("--no-embedding-scale",)):
        outcome = command(capsys, "convert", encoder_dir, "--out", tmp_path / "out", *flags)
        assert outcome.code == 2
        assert "is for a state dict" in outcome.err


def test_another_tokenizer_brings_its_own_padding_id(tokenizer_dir: Path, tmp_path: Path) -> None:
    save(their_model("BertModel", tokenizer_dir), tokenizer_dir, tmp_path / "theirs")
    pieces = (tokenizer_dir / "vocab.txt").read_text().splitlines()
    (tmp_path / "vocab.txt").write_text("\n".join([*pieces[1:], pieces[0]]) + "\n")
    options = {"src": str(tmp_path / "theirs"), "tokenizer": tmp_path / "vocab.txt", "out": tmp_path / "out"}
    convert(ConvertOptions(**options))
    model = load_bundle(tmp_path / "out").model
    assert model.config.pad_token_id == len(pieces) - 1
    assert model.encoder.embeddings.tokens.padding_idx == len(pieces) - 1
