"""The source systems: their arithmetic rebuilt in a few lines, their state dicts converted, and the way back."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bertsmith.batch import Batch
from bertsmith.bundle import build
from bertsmith.config.convert import ConvertOptions
from bertsmith.config.encoder import EncoderConfig
from bertsmith.convert import convert
from bertsmith.errors import InputError
from bertsmith.interop.seeds import convert_state_dict, detect_layout, restore_state_dict
from bertsmith.models.bert import Bert

V, D, INNER, LAYERS, HEADS, LONGEST = 50, 24, 40, 2, 3, 20
IDS = torch.tensor([[7, 3, 9, 11, 2, 8, 5], [4, 6, 2, 9, 0, 0, 0]])
MASK = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
TYPES = torch.tensor([[0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 0, 0, 0]])


def draw(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def linear(name: str, out: int, into: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def waves() -> Tensor:
    """Sines and cosines, column by column: the definition."""
    table = torch.zeros(LONGEST, D)
    for position in range(LONGEST):
        for column in range(0, D, 2):
            table[position, column] = math.sin(position / 10000 ** (column / D))
            table[position, column + 1] = math.cos(position / 10000 ** (column / D))
    return table


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """[batch, seq, heads x size] each; padding is masked on the keys."""
    q, k, v = (t.view(*t.shape[:2], HEADS, -1).transpose(1, 2) for t in (q, k, v))
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    scores = scores.masked_fill(MASK[:, None, None] == 0, -1e9)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def codertimo_state(prefix: str = "bert.") -> dict[str, Tensor]:
    shapes = {f"{prefix}embedding.token.weight": (V, D), f"{prefix}embedding.segment.weight": (3, D)}
    for i in range(LAYERS):
        block = f"{prefix}transformer_blocks.{i}"
        for part in ("linear_layers.0", "linear_layers.1", "linear_layers.2", "output_linear"):
            shapes |= linear(f"{block}.attention.{part}", D, D)
        shapes |= linear(f"{block}.feed_forward.w_1", INNER, D) | linear(f"{block}.feed_forward.w_2", D, INNER)
        for place in ("input", "output"):
            shapes |= {f"{block}.{place}_sublayer.norm.a_2": (D,), f"{block}.{place}_sublayer.norm.b_2": (D,)}
    if prefix:
        shapes |= linear("mask_lm.linear", V, D) | linear("next_sentence.linear", 2, D)
    return draw(shapes) | {f"{prefix}embedding.position.pe": waves()[None]}


def codertimo_forward(s: dict[str, Tensor]) -> dict[str, Tensor]:
    """Pre-norm with (x - mean) / (std + 1e-6), tanh GELU, segments 1 and 2 with 0 for padding, no norm at the end."""

    def apply(name: str, x: Tensor) -> Tensor:
        return x @ s[f"{name}.weight"].T + s[f"{name}.bias"]

    def norm(name: str, x: Tensor) -> Tensor:
        return s[f"{name}.a_2"] * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6) + s[f"{name}.b_2"]

    def gelu(x: Tensor) -> Tensor:
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    segments = (TYPES + 1) * MASK
    x = s["bert.embedding.token.weight"][IDS] + waves()[: IDS.shape[1]] + s["bert.embedding.segment.weight"][segments]
    for i in range(LAYERS):
        b = f"bert.transformer_blocks.{i}"
        n = norm(f"{b}.input_sublayer.norm", x)
        q, k, v = (apply(f"{b}.attention.linear_layers.{part}", n) for part in range(3))
        x = x + apply(f"{b}.attention.output_linear", attend(q, k, v))
        n = norm(f"{b}.output_sublayer.norm", x)
        x = x + apply(f"{b}.feed_forward.w_2", gelu(apply(f"{b}.feed_forward.w_1", n)))
    return {
        "states": x,
        "mlm": apply("mask_lm.linear", x).log_softmax(-1),
        "nsp": apply("next_sentence.linear", x[:, 0]).log_softmax(-1).flip(-1),  # class 1 is IsNext there
    }


def handwritten_state(k_size: int = 8, v_size: int = 8) -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {
        "encoder.token_embedding.weight": (V, D),
        "encoder.segment_embedding.weight": (2, D),
        "encoder.pos_embedding": (1, LONGEST, D),
    }
    for i in range(LAYERS):
        block = f"encoder.blks.{i}"
        for part, size in (("q", k_size), ("k", k_size), ("v", v_size)):
            shapes |= linear(f"{block}.attention.W_{part}", HEADS * size, D)
        shapes |= linear(f"{block}.attention.W_o", D, HEADS * v_size)
        shapes |= linear(f"{block}.ffn.dense1", INNER, D) | linear(f"{block}.ffn.dense2", D, INNER)
        for place in (1, 2):
            shapes |= {f"{block}.addnorm{place}.ln.weight": (D,), f"{block}.addnorm{place}.ln.bias": (D,)}
    shapes |= linear("hidden.0", D, D) | linear("nsp.output", 2, D)
    shapes |= linear("mlm.mlp.0", D, D) | linear("mlm.mlp.3", V, D)
    return draw(shapes | {"mlm.mlp.2.weight": (D,), "mlm.mlp.2.bias": (D,)})


def handwritten_forward(s: dict[str, Tensor]) -> dict[str, Tensor]:
    """Post-norm, ReLU, learned positions, no norm on the embeddings, heads of two linear layers."""

    def apply(name: str, x: Tensor) -> Tensor:
        return x @ s[f"{name}.weight"].T + s[f"{name}.bias"]

    def norm(name: str, x: Tensor) -> Tensor:
        scale = torch.sqrt(x.var(-1, unbiased=False, keepdim=True) + 1e-5)
        return s[f"{name}.weight"] * (x - x.mean(-1, keepdim=True)) / scale + s[f"{name}.bias"]

    x = s["encoder.token_embedding.weight"][IDS] + s["encoder.segment_embedding.weight"][TYPES]
    x = x + s["encoder.pos_embedding"][:, : IDS.shape[1]]
    for i in range(LAYERS):
        b = f"encoder.blks.{i}"
        q, k, v = (apply(f"{b}.attention.W_{part}", x) for part in "qkv")
        x = norm(f"{b}.addnorm1.ln", x + apply(f"{b}.attention.W_o", attend(q, k, v)))
        x = norm(f"{b}.addnorm2.ln", x + apply(f"{b}.ffn.dense2", apply(f"{b}.ffn.dense1", x).relu()))
    return {
        "states": x,
        "mlm": apply("mlm.mlp.3", norm("mlm.mlp.2", apply("mlm.mlp.0", x).relu())),
        "nsp": apply("nsp.output", torch.tanh(apply("hidden.0", x[:, 0]))).flip(-1),  # class 1 is IsNext there
    }


def original_state() -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {"encoder.emb.tok_emb.weight": (V, D), "decoder.emb.tok_emb.weight": (V, D)}
    for i in range(LAYERS):
        block = f"encoder.layers.{i}"
        for part in ("w_q", "w_k", "w_v", "w_concat"):
            shapes |= linear(f"{block}.attention.{part}", D, D)
        shapes |= linear(f"{block}.ffn.linear1", INNER, D) | linear(f"{block}.ffn.linear2", D, INNER)
        for place in (1, 2):
            shapes |= {f"{block}.norm{place}.gamma": (D,), f"{block}.norm{place}.beta": (D,)}
    return draw(shapes)


def original_forward(s: dict[str, Tensor], *, scale: float = math.sqrt(D)) -> dict[str, Tensor]:
    """Post-norm, ReLU, sines, token vectors times sqrt(d_model), no segments."""

    def apply(name: str, x: Tensor) -> Tensor:
        return x @ s[f"{name}.weight"].T + s[f"{name}.bias"]

    def norm(name: str, x: Tensor) -> Tensor:
        scaled = (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, unbiased=False, keepdim=True) + 1e-12)
        return s[f"{name}.gamma"] * scaled + s[f"{name}.beta"]

    x = s["encoder.emb.tok_emb.weight"][IDS] * scale + waves()[: IDS.shape[1]]
    for i in range(LAYERS):
        b = f"encoder.layers.{i}"
        q, k, v = (apply(f"{b}.attention.w_{part}", x) for part in "qkv")
        x = norm(f"{b}.norm1", x + apply(f"{b}.attention.w_concat", attend(q, k, v)))
        x = norm(f"{b}.norm2", x + apply(f"{b}.ffn.linear2", apply(f"{b}.ffn.linear1", x).relu()))
    return {"states": x}


SYSTEMS: dict[str, tuple[Callable[[], dict[str, Tensor]], Callable[[dict[str, Tensor]], dict[str, Tensor]]]] = {
    "codertimo": (codertimo_state, codertimo_forward),
    "handwritten": (handwritten_state, handwritten_forward),
    "original": (original_state, original_forward),
}


def built(state: dict[str, Tensor], layout: str, **options: object) -> Bert:
    config, completed, rules = convert_state_dict(state, layout=layout, num_attention_heads=HEADS, **options)
    model, unknown = build(config, completed, rules=rules)
    assert not unknown
    return model


def compare(model: Bert, expected: dict[str, Tensor]) -> None:
    batch = Batch.from_dense(IDS, MASK, TYPES)
    keep = MASK.bool()

    def close(ours: Tensor, theirs: Tensor) -> None:
        assert ((ours - theirs).abs() / theirs.abs().clamp(min=1)).max() < 1e-5

    with torch.no_grad():
        states = model.encoder(batch)
        close(states, expected["states"][keep])
        if "mlm" in expected:
            logits = model.masked_lm_logits(states)[:, :V]
            theirs = expected["mlm"][keep]
            close(logits.log_softmax(-1), theirs.log_softmax(-1))
            close(
                model.next_sentence_logits(model.pool(states, batch)).log_softmax(-1), expected["nsp"].log_softmax(-1)
            )


@pytest.mark.parametrize("layout", SYSTEMS)
def test_a_converted_state_dict_gives_the_outputs_of_its_system(layout: str) -> None:
    state, forward = SYSTEMS[layout][0](), SYSTEMS[layout][1]
    assert detect_layout(state) == layout
    compare(built(state, layout), forward(state))


@pytest.mark.parametrize(("k_size", "v_size"), [(16, 16), (5, 9), (24, 24)])
def test_the_heads_of_the_handwritten_system_may_have_sizes_of_their_own(k_size: int, v_size: int) -> None:
    state = handwritten_state(k_size, v_size)
    model = built(state, "handwritten")
    assert (model.config.head_size, model.config.value_size) == (k_size, v_size)
    compare(model, handwritten_forward(state))


def test_the_original_reads_with_and_without_the_embedding_scale() -> None:
    state = original_state()
    scaled, unscaled = (built(state, "original", embedding_scale=on) for on in (True, False))
    assert (scaled.config.embedding_scale, unscaled.config.embedding_scale) == (True, False)
    compare(scaled, original_forward(state))
    compare(unscaled, original_forward(state, scale=1.0))
    with pytest.raises(AssertionError):
        compare(scaled, original_forward(state, scale=1.0))


def test_codertimos_encoder_alone_converts_too() -> None:
    state = codertimo_state()
    alone = {name.removeprefix("bert."): tensor for name, tensor in state.items() if name.startswith("bert.")}
    model = built(alone, "codertimo")
    assert model.heads == ()
    compare(model, {"states": codertimo_forward(state)["states"]})
    assert restore_state_dict(dict(model.state_dict()), model.config, layout="codertimo").keys() == alone.keys()


MUTATIONS: dict[str, dict[str, object]] = {
    "post-norm for pre-norm": {"norm_position": "post"},
    "erf GELU for tanh GELU": {"hidden_act": "gelu"},
    "LayerNorm for std + eps": {"norm_kind": "layer_norm"},
    "segments from row 0": {"token_type_offset": 0},
    "a norm at the end": {"final_norm": True},
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_comparison_notices_a_mutation(name: str) -> None:
    state = codertimo_state()
    right = built(state, "codertimo")
    config = EncoderConfig(**right.config.model_dump() | MUTATIONS[name])
    model = Bert(config, heads=right.heads).eval()
    model.load_state_dict(right.state_dict(), strict=False)
    with pytest.raises(AssertionError):
        compare(model, codertimo_forward(state))


@pytest.mark.parametrize("layout", SYSTEMS)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_convert_there_and_back_is_bitwise(layout: str, suffix: str, tokenizer_dir: Path, tmp_path: Path) -> None:
    state, source = SYSTEMS[layout][0](), tmp_path / "source.pt"
    torch.save(state, source)
    vocabulary = [*"ab", "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(V - 7))]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    one, two = tmp_path / "one", tmp_path / "two"
    report = convert(ConvertOptions(src=str(source), out=one, heads=HEADS, tokenizer=tmp_path / "vocab.txt"))
    assert report["model_type"] == "bertsmith"
    convert(ConvertOptions(src=str(one), out=two))
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
    back = tmp_path / f"back{suffix}"
    convert(ConvertOptions(src=str(two), out=back, to=layout))  # type: ignore[arg-type]
    again = tmp_path / "again"
    convert(ConvertOptions(src=str(back), out=again, heads=HEADS, tokenizer=tmp_path / "vocab.txt"))
    assert (one / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()
    if suffix == ".pt":
        restored = torch.load(back, weights_only=True)
        expected = {name: tensor for name, tensor in state.items() if not name.startswith("decoder.")}
        assert restored.keys() == expected.keys()
        assert all(torch.equal(restored[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": None}, "--heads N"),
        ({"heads": 5}, "cannot be 5 heads"),
        ({"tokenizer": None}, "--tokenizer DIR"),
        ({"layout": "original"}, r"encoder\.emb\.tok_emb\.weight is missing"),
    ],
)
def test_what_a_state_dict_does_not_say_must_be_given(
    changes: dict[str, object], message: str, tokenizer_dir: Path, tmp_path: Path
) -> None:
    torch.save(codertimo_state(), tmp_path / "source.pt")
    values = {"src": str(tmp_path / "source.pt"), "out": tmp_path / "out", "heads": HEADS, "tokenizer": tokenizer_dir}
    with pytest.raises(InputError, match=message):
        convert(ConvertOptions(**(values | changes)))
    assert not (tmp_path / "out").exists()


def test_a_parallel_wrapper_and_half_precision_are_read() -> None:
    state = {f"module.{name}": tensor.half() for name, tensor in handwritten_state().items()}
    assert detect_layout(state) == "handwritten"
    halves = {name.removeprefix("module."): tensor.float() for name, tensor in state.items()}
    compare(built(state, "handwritten"), handwritten_forward(halves))


@pytest.mark.parametrize(
    ("layout", "changes"),
    [
        ("handwritten", {"embedding_scale": True}),
        ("handwritten", {"norm_position": "pre"}),
        ("handwritten", {"type_vocab_size": 3, "token_type_offset": 1}),
        ("handwritten", {"norm_kind": "std_norm"}),
        ("codertimo", {"attention_head_size": 5}),
        ("original", {"pruned_heads": {0: (1,)}}),
    ],
)
def test_what_a_source_system_cannot_express_is_not_written_for_it(layout: str, changes: dict[str, object]) -> None:
    config = EncoderConfig(**built(SYSTEMS[layout][0](), layout).config.model_dump() | changes)
    with pytest.raises(InputError, match=f"not of the layout {layout}: {next(reversed(changes))}="):
        restore_state_dict(dict(Bert(config).state_dict()), config, layout=layout)


def test_a_model_of_another_layout_is_not_written_as_one(encoder_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not of the layout codertimo: norm_position='post'"):
        convert(ConvertOptions(src=str(encoder_dir), out=tmp_path / "out.pt", to="codertimo"))
