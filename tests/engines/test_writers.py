"""Writers with packed layers write what they wrote before."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from bertsmith.batch import Batch
from bertsmith.config.decoder import DecoderConfig
from bertsmith.config.encoder import EncoderConfig
from bertsmith.engines.choose import make_writer_ready
from bertsmith.engines.linear import PackedLinear
from bertsmith.engines.swap import to_packed_writer
from bertsmith.errors import InputError
from bertsmith.models.generate import Search, generate
from bertsmith.models.seq2seq import CausalLM, Seq2Seq

SHAPE: dict[str, Any] = {
    "vocab_size": 101,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "max_position_embeddings": 40,
}
AXES: dict[str, dict[str, Any]] = {
    "bert": {},
    "own table, relu": {"tie_word_embeddings": False, "hidden_act": "relu"},
    "bare head": {"masked_lm_transform": False, "decoder_bias": False},
    "pre-norm": {"norm_position": "pre"},
    "gated": {"feedforward_kind": "gated", "hidden_act": "silu"},
    "mish in the head": {"masked_lm_activation": "mish"},
    "shared tokens": {"shared": "tokens"},
    "shared halves": {"shared": "halves"},
}


def models_of(axis: str) -> list[CausalLM | Seq2Seq]:
    """An encoder-decoder, its encoder wider than its decoder unless they share, and a decoder alone."""
    torch.manual_seed(0)
    fields = SHAPE | AXES[axis]
    shares = fields.pop("shared", None)
    wide = {} if shares else {"hidden_size": 64}
    reading = {name: value for name, value in fields.items() if not name.startswith(("masked", "tie", "decoder"))}
    both = Seq2Seq(EncoderConfig(**reading | wide), DecoderConfig(**fields, **({"shared": shares} if shares else {})))
    made: list[CausalLM | Seq2Seq] = [both.eval()]
    if not shares:
        made.append(CausalLM(DecoderConfig(**fields, cross_attention=False)).eval())
    with torch.no_grad():
        for parameter in (parameter for model in made for parameter in model.parameters()):
            parameter.normal_(0, 0.2)
    return made


def batch_of(*lengths: int) -> Batch:
    draw = np.random.default_rng(1)
    return Batch.from_sequences([draw.integers(4, 101, n) for n in lengths])


@torch.inference_mode()
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("lengths", [(1,), (2, 5, 5, 30)])
def test_packed_writers_have_the_same_logits_and_write_the_same(axis: str, lengths: tuple[int, ...]) -> None:
    for model in models_of(axis):
        packed = copy.deepcopy(model)
        to_packed_writer(packed)
        layers = [name for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)]
        assert not any(isinstance(part, torch.nn.Linear) for part in packed.modules())
        assert sum(isinstance(part, PackedLinear) for part in packed.modules()) >= len(layers)
        source, target = batch_of(*lengths), batch_of(*reversed(lengths))
        given = (source, target) if isinstance(model, Seq2Seq) else (target,)
        torch.testing.assert_close(packed(*given), model(*given), rtol=1e-4, atol=1e-4)
        written = []
        for each in (model, packed):
            memories = each.read(source) if isinstance(each, Seq2Seq) else []
            writer = each.writer if isinstance(each, Seq2Seq) else each
            for beams in (1, 3):
                written.append(
                    generate(writer, [[2]] * len(lengths), memories, Search(end=3, max_new_tokens=8, beams=beams))
                )
        assert written[:2] == written[2:]
        assert any(written[0])


def test_a_writer_has_no_other_engine() -> None:
    model = models_of("bert")[1]
    make_writer_ready(model, "auto")
    for engine in ("int8", "bf16", "onnx"):
        with pytest.raises(InputError, match=f"a model that writes has torch alone, not {engine}"):
            make_writer_ready(model, engine)
