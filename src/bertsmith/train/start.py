"""Where the weights of a pretraining come from: they are drawn, or another model's, with its vocabulary extended.

Not here: fine-tuning's start (`train.finetune_start`).
"""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import nn

from bertsmith.bundle import Bundle, load_bundle, read_bundle, resolve, start_from
from bertsmith.config.decoder import DecoderConfig
from bertsmith.config.encoder import EncoderConfig, shape_problem
from bertsmith.config.pretrain import PretrainOptions
from bertsmith.errors import InputError
from bertsmith.models.bert import Bert
from bertsmith.models.seq2seq import CausalLM, Seq2Seq
from bertsmith.models.surgery import attention_of, extend_vocabulary
from bertsmith.nn.init import attend_to_neighbours_, initialize, sinusoidal_, turn_to_neighbours_
from bertsmith.presets import LAYOUTS, SIZES, size_fields
from bertsmith.tokenizer.extend import old_pieces
from bertsmith.tokenizer.text_tokenizer import TextTokenizer
from bertsmith.writer import is_writer, load_writer

log = logging.getLogger("bertsmith")

POSITION_SCALE = 2.0
"""Deviation of positions that start as sines, in those of the other weights: attention finds places by them."""


def starting_model(options: PretrainOptions, tokenizer: TextTokenizer, *, heads: tuple[str, ...]) -> Bert:
    """The model of step 0: a function of the options, of what `--model` names, and of the seed."""
    torch.manual_seed(options.seed)
    if options.model is not None:
        return continued(read_bundle(resolve(options.model)), options, tokenizer, heads=heads)
    model = Bert(encoder_config(options, tokenizer), heads=heads)
    positions = model.encoder.embeddings.positions
    draw(model, positions, options)
    if options.attention_init == "neighbours":
        share = None if positions is None else position_share(model)
        for layer in range(model.config.num_hidden_layers):
            attention, base = attention_of(model, layer), model.config.rotary_base(layer)
            if share is not None:
                attend_to_neighbours_(attention, position_share=share)
            elif base is not None:
                turn_to_neighbours_(attention, base=base)
    return model


def starting_decoder(options: PretrainOptions, tokenizer: TextTokenizer) -> CausalLM:
    """The same for a decoder alone, which may go on from another one, or from an encoder and its masked-LM head."""
    torch.manual_seed(options.seed)
    if options.model is not None:
        return continued_decoder(resolve(options.model), options, tokenizer)
    config = encoder_config(options, tokenizer)
    model = CausalLM(DecoderConfig(**config.model_dump(), cross_attention=False))
    draw(model, model.decoder.embeddings.positions, options)
    return model


def draw(model: nn.Module, positions: nn.Module | None, options: PretrainOptions) -> None:
    """Draw weights and positions anew where the options ask for others than a new model has."""
    if options.init != "normal":
        initialize(model, std=options.initializer_range, kind=options.init)
    if options.position_init == "sinusoidal" and isinstance(positions, nn.Embedding):
        sinusoidal_(positions.weight, std=POSITION_SCALE * options.initializer_range)


@torch.no_grad()
def position_share(model: Bert) -> float:
    """Mean square of what positions add to a value that the first block's attention reads: of 1, if it is normed."""
    tables, config = model.encoder.embeddings, model.config
    assert tables.positions is not None
    positions = tables.positions.weight.square().mean()
    if config.norm_position == "post" and not config.embedding_norm:
        return float(positions)
    others = (tables.tokens.weight * tables.scale).square().mean()
    if tables.segments is not None:
        others = others + tables.segments.weight.square().mean()
    return float(positions / (positions + others))


def continued(bundle: Bundle, options: PretrainOptions, tokenizer: TextTokenizer, *, heads: tuple[str, ...]) -> Bert:
    """The model of `bundle` with `heads` and the pieces of `tokenizer`; what starts fresh is named in the log.

    New pieces start from the mean of their old ones. Raises `InputError` if the vocabulary is another one.
    """
    added = old_pieces(tokenizer, bundle.tokenizer)
    dropout = {"hidden_dropout_prob": options.dropout, "attention_probs_dropout_prob": options.dropout}
    config = bundle.model.config.model_copy(update=dropout)
    model, fresh = start_from(bundle, heads=heads, num_labels=2, config=config)
    if fresh:
        log.warning("%s lacks %s: starting fresh", options.model, ", ".join(fresh))
    if added:
        log.info("%d new pieces start from the mean of their old ones", len(added))
        model = extend_vocabulary(model, added)
    return model


def continued_decoder(path: Path, options: PretrainOptions, tokenizer: TextTokenizer) -> CausalLM:
    """A decoder with the weights of the decoder, or of the encoder, in `path`; what starts fresh is named in the log.

    Raises `InputError` for another vocabulary, and for what is neither.
    """
    start = load_writer(path) if is_writer(path) else load_bundle(path)
    if isinstance(start.model, Seq2Seq) or start.model.config.family != "bert":
        raise InputError("a decoder alone, or a BERT, is needed to go on from", file=path, field="--model")
    if old_pieces(tokenizer, start.tokenizer):
        raise InputError("the shards have pieces that this model lacks; prepare the text with its tokenizer", file=path)
    dropout = {"hidden_dropout_prob": options.dropout, "attention_probs_dropout_prob": options.dropout}
    fields = start.model.config.model_dump() | dropout | {"cross_attention": False}
    model = CausalLM(DecoderConfig(**fields))
    if isinstance(start.model, CausalLM):
        model.load_state_dict(start.model.state_dict())
    elif fresh := copy_to_decoder(start.model, model):
        log.warning("%s lacks %s: starting fresh", options.model, ", ".join(fresh))
    return model


@torch.no_grad()
def copy_to_decoder(start: Bert, model: CausalLM) -> list[str]:
    """Give a decoder an encoder's weights, and its head those of a masked-LM head; returns what starts fresh."""
    missing = model.decoder.load_state_dict(start.encoder.state_dict(), strict=False).missing_keys
    fresh = sorted({"attention to the source" if ".cross" in name else name for name in missing})
    if start.masked_lm is None:
        return [*fresh, "masked_lm"]
    model.masked_lm.load_state_dict(start.masked_lm.state_dict())
    return fresh


def encoder_config(options: PretrainOptions, tokenizer: TextTokenizer) -> EncoderConfig:
    """The shape that the options ask for."""
    layers, hidden = SIZES[options.size or "mini"]
    fields = {
        **LAYOUTS[options.layout or "bert"],
        **size_fields(options.layers or layers, options.hidden or hidden, layout=options.layout or "bert"),
        "vocab_size": tokenizer.vocab_size,
        "initializer_range": options.initializer_range,
        "hidden_dropout_prob": options.dropout,
        "attention_probs_dropout_prob": options.dropout,
        "max_position_embeddings": options.positions or 512,
        "pad_token_id": tokenizer.pad_id,
    }
    if options.hidden_act is not None:
        fields["hidden_act"] = options.hidden_act
    try:
        return EncoderConfig(**fields)
    except ValidationError as error:
        field, message = shape_problem(error)
        raise InputError(message, field=None if field is None else "--" + field.replace("_", "-")) from None
