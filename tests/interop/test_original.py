"""hyunwoongko's encoder and decoder: his arithmetic rebuilt in a few lines, his state dict converted, and back."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bertsmith.batch import Batch
from bertsmith.errors import InputError
from bertsmith.files import read_manifest
from bertsmith.interop.original import convert_transformer, restore_transformer
from bertsmith.models.seq2seq import Seq2Seq
from bertsmith.train.seq2seq import finetune_seq2seq
from bertsmith.writer import load_writer
from tests.cli.run import Outcome, assert_refused, bertsmith
from tests.interop.test_seeds import linear
from tests.train.test_seq2seq import toy

SOURCES, TARGETS, D, INNER, LAYERS, HEADS, LONGEST = 50, 60, 24, 40, 2, 3, 20
PAD, START, END = 1, 2, 3
SOURCE = torch.tensor([[2, 7, 13, 9, 11, 8, 3], [2, 4, 6, 3, PAD, PAD, PAD]])
TARGET = torch.tensor([[2, 9, 5, 55, 8], [2, 59, 4, PAD, PAD]])
SPECIAL = ("[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]")


def his_state() -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {}
    for half, size, attentions in (
        ("encoder", SOURCES, ("attention",)),
        ("decoder", TARGETS, ("self_attention", "enc_dec_attention")),
    ):
        shapes[f"{half}.emb.tok_emb.weight"] = (size, D)
        for i in range(LAYERS):
            block = f"{half}.layers.{i}"
            for attention in attentions:
                for part in ("w_q", "w_k", "w_v", "w_concat"):
                    shapes |= linear(f"{block}.{attention}.{part}", D, D)
            shapes |= linear(f"{block}.ffn.linear1", INNER, D) | linear(f"{block}.ffn.linear2", D, INNER)
            for norm in range(1, 2 + len(attentions)):
                shapes |= {f"{block}.norm{norm}.{kind}": (D,) for kind in ("gamma", "beta")}
    shapes |= linear("decoder.linear", TARGETS, D)
    generator = torch.Generator().manual_seed(0)
    return {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def his_forward(
    s: dict[str, Tensor], source: Tensor, target: Tensor, *, heads: int = HEADS, padding: int = PAD
) -> Tensor:
    """`[batch, target, vocabulary]`, as his `Transformer(source, target)`."""
    width = s["encoder.emb.tok_emb.weight"].shape[1]

    def apply(name: str, x: Tensor) -> Tensor:
        return x @ s[f"{name}.weight"].T + s[f"{name}.bias"]

    def norm(name: str, x: Tensor) -> Tensor:
        spread = torch.sqrt(((x - x.mean(-1, keepdim=True)) ** 2).mean(-1, keepdim=True) + 1e-12)
        return s[f"{name}.gamma"] * ((x - x.mean(-1, keepdim=True)) / spread) + s[f"{name}.beta"]

    def attend(name: str, asking: Tensor, answering: Tensor, seen: Tensor) -> Tensor:
        q = apply(f"{name}.w_q", asking)
        k, v = (apply(f"{name}.{part}", answering) for part in ("w_k", "w_v"))
        q, k, v = (t.view(*t.shape[:2], heads, width // heads).transpose(1, 2) for t in (q, k, v))
        scores = (q @ k.transpose(2, 3)) / math.sqrt(width // heads)
        mixed = scores.masked_fill(~seen, -10000).softmax(-1) @ v
        return apply(f"{name}.w_concat", mixed.transpose(1, 2).reshape(asking.shape))

    def embed(half: str, ids: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1])[:, None] / 10000 ** (torch.arange(0, width, 2) / width)
        encoding = torch.zeros(ids.shape[1], width)
        encoding[:, 0::2], encoding[:, 1::2] = places.sin(), places.cos()
        return s[f"{half}.emb.tok_emb.weight"][ids] + encoding

    def feed(name: str, x: Tensor) -> Tensor:
        return apply(f"{name}.linear2", apply(f"{name}.linear1", x).clamp(min=0))

    reading = (source != padding)[:, None, None]
    x = embed("encoder", source)
    for i in range(LAYERS):
        b = f"encoder.layers.{i}"
        x = norm(f"{b}.norm1", attend(f"{b}.attention", x, x, reading) + x)
        x = norm(f"{b}.norm2", feed(f"{b}.ffn", x) + x)
    before = torch.tril(torch.ones(target.shape[1], target.shape[1], dtype=torch.bool))
    writing = (target != padding)[:, None, :, None] & before
    y = embed("decoder", target)
    for i in range(LAYERS):
        b = f"decoder.layers.{i}"
        y = norm(f"{b}.norm1", attend(f"{b}.self_attention", y, y, writing) + y)
        y = norm(f"{b}.norm2", attend(f"{b}.enc_dec_attention", y, x, reading) + y)
        y = norm(f"{b}.norm3", feed(f"{b}.ffn", y) + y)
    return apply("decoder.linear", y)


def vocabulary(folder: Path, letter: str, size: int) -> Path:
    file = folder / f"{letter}.txt"
    file.write_text("\n".join([*SPECIAL, *(f"{letter}{i}" for i in range(size - len(SPECIAL)))]) + "\n")
    return file


@pytest.fixture
def source(tmp_path: Path) -> Path:
    torch.save(his_state(), tmp_path / "his.pt")
    return tmp_path / "his.pt"


def converted(capsys: pytest.CaptureFixture[str], source: Path, out: Path, *words: object) -> Outcome:
    own = ("--tokenizer", vocabulary(out.parent, "s", SOURCES))
    other = ("--target-tokenizer", vocabulary(out.parent, "t", TARGETS))
    given = ("--heads", HEADS, "--positions", LONGEST)
    return bertsmith(capsys, "convert", source, "--out", out, *own, *other, *given, *words)


def assert_equal_outputs(model: Any, state: dict[str, Tensor]) -> None:
    assert isinstance(model, Seq2Seq)
    batches = [Batch.from_dense(ids.where(ids != PAD, 0), (ids != PAD).long()) for ids in (SOURCE, TARGET)]
    with torch.no_grad():
        found = model(*batches)[:, :TARGETS]
    wanted = his_forward(state, SOURCE, TARGET)[TARGET != PAD]
    assert ((found - wanted).abs() / wanted.abs().clamp(min=1)).max() < 1e-5


def test_a_state_dict_becomes_a_directory_with_equal_outputs(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model"
    outcome = converted(capsys, source, out, "--json")
    assert outcome.code == 0, outcome.err
    assert "token vectors are not scaled" in outcome.err
    report = json.loads(outcome.out)
    assert (report["vocab_size"], report["target_vocab_size"]) == (SOURCES, TARGETS)
    assert report["parameters"] == sum(tensor.numel() for tensor in his_state().values())
    assert not report["not_read"]
    writer = load_writer(out)
    assert_equal_outputs(writer.model, his_state())
    assert (writer.start, writer.end) == (START, END)
    files = read_manifest(out, kind="model")["files"]
    assert {"config.json", "model.safetensors", "vocab.txt", "target_tokenizer/vocab.txt"} <= files.keys()
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "An encoder-decoder of two Transformers, 2 and 2 layers of width 24" in card
    assert "transformers has no class for this architecture (embedding_norm" in card
    assert json.loads((out / "config.json").read_text())["model_type"] == "bertsmith"


def test_it_writes_what_his_model_writes(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    converted(capsys, source, tmp_path / "model")
    ids, written = torch.tensor([[2, 7, 13, 9, 3]]), [START]
    while written[-1] != END and len(written) < 12:
        with torch.no_grad():
            written.append(int(his_forward(his_state(), ids, torch.tensor([written]))[0, -1].argmax()))
    text = " ".join(f"s{i - len(SPECIAL)}" for i in ids[0, 1:-1].tolist())
    outcome = bertsmith(capsys, "generate", tmp_path / "model", "--text", text, "--max-new-tokens", 11)
    assert outcome.code == 0, outcome.err
    words = [f"t{i - len(SPECIAL)}" for i in written[1:] if i >= len(SPECIAL)]
    assert json.loads(outcome.out)["generated_text"].split() == words
    assert words
    rows = tmp_path / "rows.tsv"
    rows.write_text(f"source\ttarget\n{text}\tt1 t2 t50\n")
    outcome = bertsmith(capsys, "evaluate", tmp_path / "model", "--data", rows, "--json")
    assert outcome.code == 0, outcome.err
    target = torch.tensor([[START, 6, 7, 55, END]])
    with torch.no_grad():
        chances = his_forward(his_state(), ids, target[:, :-1]).log_softmax(-1)[0]
    loss = -chances[torch.arange(4), target[0, 1:]].mean()
    assert json.loads(outcome.out)["token_loss"] == pytest.approx(float(loss), rel=1e-5)


def test_the_way_back_is_bitwise(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    converted(capsys, source, tmp_path / "model")
    outcome = bertsmith(capsys, "convert", tmp_path / "model", "--to", "original", "--out", tmp_path / "back.pt")
    assert outcome.code == 0, outcome.err
    back, state = torch.load(tmp_path / "back.pt", weights_only=True), his_state()
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("tie", ["none", "output", "all"])
def test_what_we_train_computes_the_same_in_his_code(
    tie: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = toy(tmp_path, layout="original", tie_embeddings=tie, hidden=24, steps=3)
    finetune_seq2seq(options)
    out = options.out
    back = tmp_path / "back.safetensors"
    assert bertsmith(capsys, "convert", out, "--to", "original", "--out", back).code == 0
    source, target = torch.tensor([[2, 5, 7, 9, 3], [2, 6, 3, 0, 0]]), torch.tensor([[2, 8, 9], [2, 10, 0]])
    writer = load_writer(out)
    with torch.no_grad():
        batches = [Batch.from_dense(ids, (ids != 0).long()) for ids in (source, target)]
        found = writer.model(*batches)[:, : writer.decoder.config.vocab_size]
    wanted = his_forward(load_file(back), source, target, heads=1, padding=0)[target != 0]
    assert ((found - wanted).abs() / wanted.abs().clamp(min=1)).max() < 1e-5


def test_scaled_and_shared_tables_go_back_as_what_his_code_computes() -> None:
    state = his_state()
    encoder, decoder, completed, _ = convert_transformer(state, num_attention_heads=HEADS, embedding_scale=True)
    assert encoder.embedding_scale
    assert len(completed["encoder.emb.pos_emb.encoding"]) == 512
    fields = decoder.model_dump() | {"vocab_size": SOURCES, "tie_word_embeddings": True, "shared": "tokens"}
    model = Seq2Seq(encoder, type(decoder)(**fields)).eval()
    back = restore_transformer(model)
    assert torch.equal(back["encoder.emb.tok_emb.weight"], back["decoder.emb.tok_emb.weight"])
    batches = [Batch.from_dense(ids.clamp(max=SOURCES - 1)) for ids in (SOURCE[:1], TARGET[:1])]
    wanted = his_forward(back, *(ids[:1].clamp(max=SOURCES - 1) for ids in (SOURCE, TARGET)))[0]
    with torch.no_grad():
        torch.testing.assert_close(model(*batches)[:, :SOURCES], wanted, atol=1e-5, rtol=1e-5)


def test_a_parallel_wrapper_saved_sines_and_the_encoder_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = his_state()
    for half in ("encoder", "decoder"):
        state[f"{half}.emb.pos_emb.encoding"] = torch.randn(30, D, generator=torch.Generator().manual_seed(3))
    save_file({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "his.safetensors")
    words = ("convert", tmp_path / "his.safetensors", "--heads", HEADS, "--tokenizer", vocabulary(tmp_path, "s", 50))
    assert bertsmith(capsys, *words, "--out", tmp_path / "both").code == 0
    model = load_writer(tmp_path / "both").model
    assert isinstance(model, Seq2Seq)
    for half, name in ((model.encoder, "encoder"), (model.writer.decoder, "decoder")):
        assert half.config.max_position_embeddings == 30
        found = half.embeddings.positions
        assert found is not None
        assert torch.equal(found.weight, state[f"{name}.emb.pos_emb.encoding"])
    outcome = bertsmith(capsys, *words, "--encoder-only", "--out", tmp_path / "one", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["architecture"] == "BertModel"
    weights = load_file(tmp_path / "one" / "model.safetensors")
    assert not [name for name in weights if "crossattention" in name]
    assert torch.equal(weights["embeddings.word_embeddings.weight"], state["encoder.emb.tok_emb.weight"])


def test_a_vocabulary_without_a_mask_token_is_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """torchtext's has <unk> <pad> <sos> <eos>; the mask, which no text holds, gets an id after the last row."""
    torch.save(his_state(), tmp_path / "his.pt")
    folders = {}
    for letter, size in (("s", SOURCES), ("t", TARGETS)):
        folders[letter] = tmp_path / letter
        folders[letter].mkdir()
        pieces = ["<unk>", "<pad>", "<sos>", "<eos>", *(f"{letter}{i}" for i in range(size - 4))]
        (folders[letter] / "vocab.txt").write_text("\n".join(pieces) + "\n")
        names = {"unk_token": "<unk>", "pad_token": "<pad>", "cls_token": "<sos>", "sep_token": "<eos>"}
        added = {"added_tokens_decoder": {str(size): {"content": "[MASK]", "special": True}}}
        (folders[letter] / "tokenizer_config.json").write_text(json.dumps(names | added))
    words = ("--tokenizer", folders["s"], "--target-tokenizer", folders["t"], "--heads", HEADS, "--positions", LONGEST)
    outcome = bertsmith(capsys, "convert", tmp_path / "his.pt", *words, "--out", tmp_path / "model")
    assert outcome.code == 0, outcome.err
    assert_equal_outputs(load_writer(tmp_path / "model").model, his_state())
    words = ("generate", tmp_path / "model", "--text", "s1 s45", "--max-new-tokens", 5)
    assert bertsmith(capsys, *words).code == 0
    assert_refused(bertsmith(capsys, *words, "--forced-first", "[MASK]"), "has no row in the decoder's table")


def test_what_is_no_such_state_dict_is_said_in_one_line(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"

    def refused(changes: dict[str, Tensor | None], message: str, *words: object) -> None:
        state = {name: tensor for name, tensor in (his_state() | changes).items() if tensor is not None}
        torch.save(state, source)
        assert_refused(converted(capsys, source, out, *words), message, out)

    refused({"decoder.linear.bias": None}, r"his\.pt: tensors are missing: decoder\.linear\.bias")
    refused({"decoder.layers.1.norm3.beta": None}, r"tensors are missing: decoder\.layers\.1\.norm3\.beta")
    refused({"decoder.emb.tok_emb.weight": None}, r"tensor decoder\.emb\.tok_emb\.weight is missing")
    name = "decoder.layers.0.enc_dec_attention.w_k.weight"
    refused({name: None}, rf"tensor '{name}' is missing, though .*w_v")
    refused({name: torch.zeros(D, D + 1)}, "do not belong together")
    refused({"decoder.linear.weight": torch.zeros(TARGETS + 1, D)}, r"decoder\.linear\.weight has 61 rows")
    refused({name: torch.full((D, D), math.nan)}, "values that are no numbers")
    refused({"encoder.emb.tok_emb.weight": None}, r"belong to none of the source systems")
    refused({}, "24 rows of queries cannot be 5 heads", "--heads", 5)
    refused({"encoder.emb.tok_emb.weight": torch.zeros(40, D)}, "the tokenizer has 50 pieces, the encoder 40")
    refused({"decoder.emb.tok_emb.weight": torch.zeros(40, D)}, r"decoder\.linear\.weight has 60 rows")
    refused({}, 'field "--vocab-size": is for encoders', "--vocab-size", 70)
    refused({}, 'field "--to"', "--to", "codertimo")
    torch.save([1, 2], source)
    assert_refused(converted(capsys, source, out), r"his\.pt: a list, not a state dict", out)
    source.write_text("no tensors")
    assert_refused(converted(capsys, source, out), r"his\.pt: not a readable PyTorch file", out)


def test_flags_that_need_a_decoder(encoder_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    for words in (("--encoder-only",), ("--target-tokenizer", tmp_path)):
        outcome = bertsmith(capsys, "convert", encoder_dir, "--out", out, *words)
        assert_refused(outcome, f'field "{words[0]}": is for a state dict', out)
    torch.save({name: t for name, t in his_state().items() if name.startswith("encoder.")}, tmp_path / "e.pt")
    words = ("convert", tmp_path / "e.pt", "--out", out, "--heads", 3, "--tokenizer", vocabulary(tmp_path, "s", 50))
    assert_refused(bertsmith(capsys, *words, "--encoder-only"), 'field "--encoder-only": .*this one has none', out)


def test_a_model_of_another_layout_is_not_written_as_his() -> None:
    encoder, decoder, *_ = convert_transformer(his_state(), num_attention_heads=HEADS)
    for changes, named in (({"hidden_act": "gelu"}, "hidden_act='gelu'"), ({"decoder_bias": False}, "decoder_bias")):
        model = Seq2Seq(encoder, type(decoder)(**decoder.model_dump() | changes))
        with pytest.raises(InputError, match=f"not of the layout original: {named}"):
            restore_transformer(model)
