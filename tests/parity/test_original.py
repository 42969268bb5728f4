"""The layout `original` against `torch.nn.Transformer`: logits, every gradient, mutations; parts that halves share."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bertsmith.batch import Batch
from bertsmith.config.decoder import DecoderConfig
from bertsmith.config.encoder import EncoderConfig
from bertsmith.models.seq2seq import Seq2Seq, Writing, twins
from bertsmith.presets import LAYOUTS, WRITING
from tests.parity.decoders import SHAPE
from tests.parity.reference import redraw
from tests.parity.test_decoders import SOURCES, TARGETS, assert_close, dense

WIDTH, VOCABULARY = SHAPE["hidden_size"], SHAPE["vocab_size"]
TIES: dict[str, dict[str, Any]] = {
    "none": {},
    "output": {"tie_word_embeddings": True},
    "all": {"tie_word_embeddings": True, "shared": "tokens"},
}


def original(*, dtype: torch.dtype = torch.float64, **changes: Any) -> Seq2Seq:
    """A drawn model of the layout, in training mode, without dropout."""
    fields = LAYOUTS["original"] | WRITING["original"] | SHAPE | changes
    shared = fields.pop("shared", "nothing")
    model = Seq2Seq(EncoderConfig(**fields), DecoderConfig(**fields, shared=shared)).to(dtype)
    redraw(model)
    return model


def waves(length: int) -> Tensor:
    """The definition, number by number (Vaswani et al. 2017, section 3.5). Ours are float32 in any model."""
    table = torch.zeros(length, WIDTH, dtype=torch.float64)
    for place in range(length):
        for pair in range(WIDTH // 2):
            angle = place / 10000 ** (2 * pair / WIDTH)
            table[place, 2 * pair], table[place, 2 * pair + 1] = math.sin(angle), math.cos(angle)
    return table


class Reference(nn.Module):
    """`torch.nn.Transformer` without the norms that it has at the end, between tables and an output matrix."""

    def __init__(self, ours: Seq2Seq) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of nested tensors, which training does not use
            self.halves = nn.Transformer(
                WIDTH,
                SHAPE["num_attention_heads"],
                SHAPE["num_hidden_layers"],
                SHAPE["num_hidden_layers"],
                SHAPE["intermediate_size"],
                dropout=0.0,
                activation="relu",
                layer_norm_eps=1e-12,
                batch_first=True,
                norm_first=False,
                dtype=next(ours.parameters()).dtype,
            )
        self.halves.encoder.norm = self.halves.decoder.norm = None
        parameters = dict(ours.named_parameters(remove_duplicate=False))
        self.source = nn.Parameter(parameters["encoder.embeddings.tokens.weight"].detach()[:VOCABULARY].clone())
        is_one = ours.writer.config.shared == "tokens"
        table = parameters["writer.decoder.embeddings.tokens.weight"].detach()[:VOCABULARY].clone()
        self.target = self.source if is_one else nn.Parameter(table)
        head = ours.writer.masked_lm
        own = None if head.decoder is None else nn.Parameter(head.decoder.weight.detach()[:VOCABULARY].clone())
        self.output = self.target if own is None else own
        assert head.bias is not None
        self.bias = nn.Parameter(head.bias.detach().clone())
        with torch.no_grad():
            for name, names in pairs():
                self.halves.get_parameter(name).copy_(torch.cat([parameters[part] for part in names]))

    def forward(self, source: Tensor, mask: Tensor, target: Tensor, target_mask: Tensor) -> Tensor:
        places, length = waves(SHAPE["max_position_embeddings"]).to(self.source), target.shape[1]
        read = self.source[source] * math.sqrt(WIDTH) + places[: source.shape[1]]
        written = self.target[target] * math.sqrt(WIDTH) + places[:length]
        states = self.halves(
            read,
            written,
            tgt_mask=torch.ones(length, length, dtype=torch.bool).triu(1),
            src_key_padding_mask=mask == 0,
            tgt_key_padding_mask=target_mask == 0,
            memory_key_padding_mask=mask == 0,
        )
        return (states @ self.output.T + self.bias)[target_mask.bool()]


def pairs() -> Iterator[tuple[str, list[str]]]:
    """Names of torch's parameters, with ours of which each is made."""
    for layer in range(SHAPE["num_hidden_layers"]):
        for half, ours, norms in (
            ("encoder", "encoder", ("attention_norm", "feedforward_norm")),
            ("decoder", "writer.decoder", ("attention_norm", "cross_norm", "feedforward_norm")),
        ):
            theirs, block = f"{half}.layers.{layer}", f"{ours}.blocks.{layer}"
            for kind in ("weight", "bias"):
                yield f"{theirs}.self_attn.in_proj_{kind}", [f"{block}.attention.qkv.{kind}"]
                yield f"{theirs}.self_attn.out_proj.{kind}", [f"{block}.attention.output.{kind}"]
                yield f"{theirs}.linear1.{kind}", [f"{block}.feedforward.intermediate.{kind}"]
                yield f"{theirs}.linear2.{kind}", [f"{block}.feedforward.output.{kind}"]
                for number, norm in enumerate(norms, 1):
                    yield f"{theirs}.norm{number}.{kind}", [f"{block}.{norm}.{kind}"]
                if half == "decoder":
                    cross = [f"{block}.cross.{part}.{kind}" for part in ("query", "key_value")]
                    yield f"{theirs}.multihead_attn.in_proj_{kind}", cross
                    yield f"{theirs}.multihead_attn.out_proj.{kind}", [f"{block}.cross.output.{kind}"]


def logits(model: Seq2Seq) -> Tensor:
    (source, mask), (target, target_mask) = dense(SOURCES, seed=2), dense(TARGETS, seed=3)
    return model(Batch.from_dense(source, mask), Batch.from_dense(target, target_mask))[:, :VOCABULARY]


def expected(reference: Reference) -> Tensor:
    found: Tensor = reference(*dense(SOURCES, seed=2), *dense(TARGETS, seed=3))
    return found


@pytest.mark.parametrize("tie", TIES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-7), (torch.float32, 1e-5)])
def test_logits_and_gradients_are_those_of_torchs_transformer(tie: str, dtype: torch.dtype, tolerance: float) -> None:
    ours = original(dtype=dtype, **TIES[tie])
    theirs = Reference(ours)
    found, wanted = logits(ours), expected(theirs)
    assert_close(found, wanted, tolerance)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64).to(dtype)
    (found * weights).mean().backward()
    (wanted * weights).mean().backward()
    mine = {name: parameter.grad for name, parameter in ours.named_parameters(remove_duplicate=False)}
    for name, names in pairs():
        parts = [mine[part] for part in names]
        assert all(part is not None for part in parts), names
        assert_close(torch.cat([part for part in parts if part is not None]), grad(theirs.halves, name), tolerance)
    heads = {"writer.masked_lm.bias": theirs.bias, "encoder.embeddings.tokens.weight": theirs.source}
    heads["writer.decoder.embeddings.tokens.weight"] = theirs.target
    if tie == "none":
        heads["writer.masked_lm.decoder.weight"] = theirs.output
    for name, parameter in heads.items():
        own = mine[name]
        assert own is not None, name
        assert parameter.grad is not None
        assert_close(own[:VOCABULARY], parameter.grad, tolerance)


def grad(module: nn.Module, name: str) -> Tensor:
    found = module.get_parameter(name).grad
    assert found is not None, name
    return found


MUTATIONS: dict[str, dict[str, Any]] = {
    "no sqrt(d_model)": {"embedding_scale": False},
    "GELU for ReLU": {"hidden_act": "gelu"},
    "pre-norm": {"norm_position": "pre", "final_norm": False},
    "a norm of the embeddings": {"embedding_norm": True},
    "a transform before the output": {"masked_lm_transform": True},
    "another epsilon": {"layer_norm_eps": 1e-2},
    "output tied to the table": {"tie_word_embeddings": True},
    "sines a place late": {},
    "cosines before sines": {},
    "sines of another base": {},
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_comparison_notices_a_mutation(name: str) -> None:
    right = original()
    wanted = expected(Reference(right))
    assert_close(logits(right), wanted, 1e-7)
    wrong = original(**MUTATIONS[name])
    wrong.load_state_dict(right.state_dict(), strict=False)
    for half in (wrong.encoder, wrong.writer.decoder):
        table: Any = half.embeddings.positions
        if name == "sines a place late":
            table.weight = table.weight.roll(1, 0)
        elif name == "cosines before sines":
            table.weight = table.weight.unflatten(1, (-1, 2)).flip(2).flatten(1)
        elif name == "sines of another base":
            table.weight = waves(100)[:: 100 // 40][:40]
    with pytest.raises(AssertionError):
        assert_close(logits(wrong), wanted, 1e-3)


def test_what_is_written_step_by_step_is_the_whole() -> None:
    model = original(**TIES["all"]).eval()
    (source, mask), (target, _) = dense(SOURCES, seed=8), dense((11,) * 4, seed=9)
    with torch.no_grad():
        whole = model(Batch.from_dense(source, mask), Batch.from_dense(target)).unflatten(0, (4, 11))
        writing = Writing(model.writer, model.read(Batch.from_dense(source, mask)), rows=4, capacity=11)
        for place in range(11):
            assert_close(writing.step(target[:, place]), whole[:, place, :VOCABULARY])


def bert(**changes: Any) -> Seq2Seq:
    fields = SHAPE | changes
    shared = fields.pop("shared", "nothing")
    reading = fields | {"vocab_size": fields.pop("source_vocabulary", fields["vocab_size"])}
    return Seq2Seq(EncoderConfig(**reading), DecoderConfig(**fields, shared=shared)).double()


@pytest.mark.parametrize("shared", ["tokens", "halves"])
def test_a_shared_part_gets_the_gradient_of_both_its_places(shared: str) -> None:
    one, two = bert(shared=shared), bert()
    redraw(one)
    state = dict(one.state_dict())
    same = twins(one)
    two.load_state_dict(state | {name: state[first] for name, first in same.items()})
    assert_close(logits(one), logits(two))
    for model in (one, two):
        logits(model).square().mean().backward()
    mine, theirs = (dict(model.named_parameters()) for model in (one, two))
    for name, parameter in mine.items():
        places = [name, *(other for other, first in same.items() if first == name)]
        grads = [theirs[place].grad for place in places]
        assert parameter.grad is not None, name
        assert_close(parameter.grad, torch.stack([part for part in grads if part is not None]).sum(0), 1e-8)
    assert all((".cross" in name or ".masked_lm." in name) for name in mine if name.startswith("writer.")) == (
        shared == "halves"
    )


@pytest.mark.parametrize("shared", ["tokens", "halves"])
def test_a_shared_part_is_counted_saved_and_copied_once(shared: str) -> None:
    one, two = bert(shared=shared), bert()
    redraw(one)
    saved = {name: tensor.numel() for name, tensor in one.state_dict().items()}
    assert not set(saved) & set(twins(one))
    rows = sum(one.state_dict()[name].shape[0] - VOCABULARY for name in saved if name.endswith("tokens.weight"))
    assert one.num_parameters == sum(saved.values()) - rows * WIDTH
    counts = {name: parameter.numel() for name, parameter in two.named_parameters()}
    counts |= {name: VOCABULARY * WIDTH for name in counts if name.endswith("tokens.weight")}
    assert two.num_parameters == sum(counts.values())
    assert one.num_parameters == two.num_parameters - sum(counts[name] for name in twins(one))
    other = copy.deepcopy(one)
    assert twins(other) == twins(one)
    again = bert(shared=shared)
    again.load_state_dict(one.state_dict())
    assert_close(logits(again), logits(one))
    with pytest.raises(RuntimeError, match="Missing key"):
        again.load_state_dict({name: one.state_dict()[name] for name in list(saved)[1:]})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shared": "tokens", "source_vocabulary": 98}, "vocab_size is 98 in the encoder and 99 in the decoder"),
        ({"shared": "halves", "source_vocabulary": 98}, "vocab_size is 98 in the encoder and 99 in the decoder"),
        ({"cross_attention": False, "shared": "tokens"}, "shared names parts of an encoder"),
    ],
)
def test_what_cannot_be_shared_is_said(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bert(**changes) if "cross_attention" not in changes else DecoderConfig(**SHAPE | changes)


@pytest.mark.parametrize("field", ["hidden_act", "num_hidden_layers", "num_attention_heads", "norm_position"])
def test_halves_that_differ_are_not_made_one(field: str) -> None:
    values = {"hidden_act": "relu", "num_hidden_layers": 1, "num_attention_heads": 2, "norm_position": "pre"}
    encoder = EncoderConfig(**SHAPE | {field: values[field]})
    with pytest.raises(ValueError, match=f"^{field} is .* in the encoder"):
        Seq2Seq(encoder, DecoderConfig(**SHAPE, shared="halves"))
    Seq2Seq(encoder, DecoderConfig(**SHAPE))
