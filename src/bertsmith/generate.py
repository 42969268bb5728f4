"""`bertsmith generate`: texts from a decoder (`BertLMHeadModel`), or from an encoder and a decoder of transformers'
`EncoderDecoderModel`, both of BERT's shape.

Not here: how tokens are chosen (`models.generate`), whose names the tensors have (`interop.decoders`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from bertsmith.batch import Batch
from bertsmith.bundle import put_in, resolve
from bertsmith.config.decoder import DecoderConfig
from bertsmith.config.encoder import EncoderConfig, shape_problem
from bertsmith.config.families import read_fields
from bertsmith.config.inference import GenerateOptions
from bertsmith.data.text import read_all_rows
from bertsmith.errors import ErrorCollector, InputError
from bertsmith.files import MANIFEST, read_json, read_manifest
from bertsmith.interop.decoders import causal_rules, seq2seq_rules
from bertsmith.interop.keymap import their_names, to_ours
from bertsmith.interop.weights import read_weights, weights_file
from bertsmith.models.generate import Search, generate
from bertsmith.models.seq2seq import CausalLM, Seq2Seq
from bertsmith.runtime import choose_device, set_threads
from bertsmith.tokenizer.directory import load_tokenizer
from bertsmith.tokenizer.text_tokenizer import TextTokenizer

log = logging.getLogger("bertsmith")

USUAL = 128
"""Most tokens that are written, unless told otherwise."""

TIED = ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias")
"""Tensors of a decoder that transformers may store twice."""


@dataclass(frozen=True)
class Writer:
    """A loaded directory that writes."""

    path: Path
    model: CausalLM | Seq2Seq
    tokenizer: TextTokenizer
    start: int
    """Id that a target begins with; of a decoder alone, that a text begins with."""
    end: int
    """Id that a target ends with."""

    @property
    def decoder(self) -> CausalLM:
        """The half that writes."""
        return self.model.writer if isinstance(self.model, Seq2Seq) else self.model

    @property
    def limit(self) -> int:
        """Most tokens of a text, special tokens included."""
        model = self.model.encoder if isinstance(self.model, Seq2Seq) else self.model
        return min(model.config.max_position_embeddings, self.tokenizer.model_max_length)

    @torch.inference_mode()
    def write(self, inputs: Sequence[Sequence[int]], search: Search) -> list[str]:
        """The text that each of `inputs` becomes, or goes on with; special tokens are left out."""
        if isinstance(self.model, Seq2Seq):
            memories = self.model.read(Batch.from_sequences([np.array(ids) for ids in inputs]).to(self.device))
            prompts: Sequence[Sequence[int]] = [[self.start]] * len(inputs)
        else:
            memories, prompts = [], inputs
        return [self.tokenizer.decode(ids) for ids in generate(self.decoder, prompts, memories, search)]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.decoder.decoder.embeddings.tokens.weight.device

    def inputs(
        self, texts: Sequence[str], *, places: Sequence[dict[str, Any]], cuts: bool, room: int
    ) -> list[list[int]]:
        """The ids of each text: `[CLS] text [SEP]` for an encoder, `[CLS] text` to go on with, which leaves `room` for
        what is written. Raises `InputError`s for empty texts and, unless `cuts`, for longer ones.
        """
        ends = [self.tokenizer.sep_id] if isinstance(self.model, Seq2Seq) else []
        limit = self.limit - (0 if ends else room)
        if limit < 2:
            raise InputError(f"{room} tokens leave no room for a text in {self.limit}", field="--max-new-tokens")
        found, errors = [], ErrorCollector()
        for ids, place in zip(self.tokenizer.encode_ids(texts), places, strict=True):
            whole = [self.tokenizer.cls_id, *ids, *ends]
            if not ids and ends:
                errors.add(InputError("is empty", **place))
            if len(whole) > limit and not cuts:
                message = f"{len(whole)} tokens, the limit is {limit}; shorten it, or give --long-docs truncate"
                errors.add(InputError(message, **place))
            elif len(whole) > limit:
                kept = limit - 1 - len(ends)
                whole = [whole[0], *(ids[:kept] if ends else ids[len(ids) - kept :]), *ends]
            found.append(whole)
        errors.raise_if_any()
        return found


def load_writer(path: Path) -> Writer:
    """Read a directory. Raises `InputError` for one that cannot write, naming file, field or tensor."""
    if (path / MANIFEST).is_file():
        read_manifest(path, kind="model")
    file = path / "config.json"
    values = read_json(file)
    kind = values.get("model_type") if isinstance(values, dict) else None
    try:
        model, rules = _built(values)
    except ValueError as error:
        field, message = shape_problem(error) if isinstance(error, ValidationError) else (None, str(error))
        raise InputError(message, file=file, field=field) from None
    weights = weights_file(path)
    prefix = "decoder." if kind == "encoder-decoder" else ""
    state = {name: tensor for name, tensor in read_weights(weights).items() if name not in [prefix + t for t in TIED]}
    config = model.writer.config if isinstance(model, Seq2Seq) else model.config
    try:
        tensors, unknown = to_ours(state, rules, config=config)
        put_in(model, tensors, theirs=their_names(rules), unknown=unknown, without_place=unknown)
    except InputError as error:
        raise InputError(error.message, file=weights) from None
    tokenizer = load_tokenizer(path)
    given = read_json(path / "generation_config.json") if (path / "generation_config.json").is_file() else {}
    start = given.get("decoder_start_token_id", values.get("decoder_start_token_id"))
    end = given.get("eos_token_id", values.get("eos_token_id"))
    if isinstance(end, list):
        end = end[0] if end else None
    if tokenizer.vocab_size > config.vocab_size:
        raise InputError(f"the tokenizer has {tokenizer.vocab_size} pieces, the decoder {config.vocab_size}", file=path)
    return Writer(
        path,
        model,
        tokenizer,
        tokenizer.cls_id if start is None else int(start),
        tokenizer.sep_id if end is None else int(end),
    )


def _built(values: Any) -> tuple[CausalLM | Seq2Seq, Any]:
    """The model that a config.json describes, without memory, and its key table. Raises `ValueError`."""
    kind = values.get("model_type") if isinstance(values, dict) else None
    with torch.device("meta"):
        if kind == "encoder-decoder":
            for half in ("encoder", "decoder"):
                if not isinstance(values.get(half), dict) or values[half].get("model_type") != "bert":
                    raise ValueError(f"{half} is not a BERT; only encoder-decoders of two BERTs are known")
            encoder = EncoderConfig(**read_fields(values["encoder"], family="bert"))
            decoder = _decoder_config(values["decoder"])
            if not decoder.cross_attention:
                raise ValueError("add_cross_attention of the decoder is off: it was never joined to its encoder")
            return Seq2Seq(encoder, decoder), seq2seq_rules(encoder, decoder)
        if kind == "bert" and values.get("is_decoder"):
            config = _decoder_config(values)
            return CausalLM(config), causal_rules(config)
    raise ValueError(
        f"model_type is {kind!r}; a decoder (bert with is_decoder) or an encoder-decoder is needed to write"
    )


def _decoder_config(values: dict[str, Any]) -> DecoderConfig:
    fields = read_fields(values, family="bert")
    return DecoderConfig(**fields, cross_attention=bool(values.get("add_cross_attention")))


def generate_texts(options: GenerateOptions) -> Iterator[dict[str, Any]]:
    """`{"generated_text": …}` for each text, in order, as transformers' pipelines have it."""
    set_threads(options.threads)
    writer = load_writer(resolve(options.model))
    writer.model.to(choose_device(options.device))
    texts, places = _texts(options)
    search = _search(options, writer)
    cuts = options.long_docs == "truncate"
    inputs = writer.inputs(texts, places=places, cuts=cuts, room=search.max_new_tokens)
    for start in range(0, len(inputs), options.batch_size):
        part = inputs[start : start + options.batch_size]
        for text in writer.write(part, search):
            yield {"generated_text": text}


def _texts(options: GenerateOptions) -> tuple[list[str], list[dict[str, Any]]]:
    """The texts, and where each stands."""
    if options.data is None:
        return [options.text or ""], [{"field": "--text"}]
    rows = read_all_rows(options.data, required=("text|sentence|source",), optional=(), columns=options.columns)
    return [row.values["text"] for row in rows], [{"file": row.file, "line": row.line} for row in rows]


def _search(options: GenerateOptions, writer: Writer) -> Search:
    first = None
    if options.forced_first is not None:
        first = writer.tokenizer.token_id(options.forced_first)
        if first is None:
            raise InputError(f"{options.forced_first!r} is no token of the vocabulary", field="--forced-first")
    most = writer.decoder.config.max_position_embeddings - 1
    usual = min(USUAL, most if isinstance(writer.model, Seq2Seq) else writer.limit // 2)
    if options.max_new_tokens is not None and options.max_new_tokens > most:
        raise InputError(f"{options.max_new_tokens} is more than the decoder's {most}", field="--max-new-tokens")
    if options.beams > writer.decoder.config.vocab_size:
        raise InputError(f"{options.beams} is more than the vocabulary has pieces", field="--beams")
    return Search(
        end=writer.end,
        max_new_tokens=usual if options.max_new_tokens is None else options.max_new_tokens,
        beams=options.beams,
        length_penalty=options.length_penalty,
        samples=options.sample,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        no_repeat_ngram=options.no_repeat_ngram,
        forced_first=first,
        seed=options.seed,
    )
