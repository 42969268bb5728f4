"""Tiny decoders and encoder-decoders of transformers with drawn weights, and ours with the same."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from bertsmith.config.decoder import DecoderConfig
from bertsmith.config.encoder import EncoderConfig
from bertsmith.interop.decoders import causal_rules, seq2seq_rules
from bertsmith.interop.keymap import to_ours
from bertsmith.models.seq2seq import CausalLM, Seq2Seq
from tests.parity.reference import redraw

SHAPE: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
START, END = 2, 3


def causal_pair(*, dtype: torch.dtype = torch.float64) -> tuple[Any, CausalLM]:
    """(BertLMHeadModel, ours) with equal weights, in evaluation mode."""
    config = transformers.BertConfig(**SHAPE, is_decoder=True, attn_implementation="eager")
    theirs = transformers.BertLMHeadModel(config).to(dtype).eval()
    redraw(theirs)
    ours = CausalLM(DecoderConfig(**SHAPE, cross_attention=False)).to(dtype).eval()
    load(ours, theirs, causal_rules(ours.config), ours.config)
    return theirs, ours


def seq2seq_pair(*, dtype: torch.dtype = torch.float64, encoder_size: int = 32) -> tuple[Any, Seq2Seq]:
    """(EncoderDecoderModel, ours) with equal weights, in evaluation mode."""
    reading = SHAPE | {"hidden_size": encoder_size}
    parts = (
        transformers.BertConfig(**reading, attn_implementation="eager"),
        transformers.BertConfig(**SHAPE, is_decoder=True, add_cross_attention=True, attn_implementation="eager"),
    )
    config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(
        *parts, decoder_start_token_id=START, eos_token_id=END, pad_token_id=0
    )
    theirs = transformers.EncoderDecoderModel(config).to(dtype).eval()
    redraw(theirs)
    ours = Seq2Seq(EncoderConfig(**reading), DecoderConfig(**SHAPE)).to(dtype).eval()
    load(ours, theirs, seq2seq_rules(ours.encoder.config, ours.writer.config), ours.writer.config)
    return theirs, ours


def load(ours: Any, theirs: Any, rules: Any, config: EncoderConfig) -> None:
    """Copy the weights of `theirs`; tied tables count once."""
    state = dict(theirs.state_dict())
    for prefix in ("", "decoder."):
        state.pop(f"{prefix}cls.predictions.decoder.weight", None)
        state.pop(f"{prefix}cls.predictions.decoder.bias", None)
    tensors, unknown = to_ours(state, rules, config=config)
    assert not unknown
    ours.load_state_dict(tensors)
