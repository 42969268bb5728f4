"""A directory that writes: a decoder (`BertLMHeadModel`), or an encoder and a decoder (`EncoderDecoderModel`), as
transformers has them, or of another shape (`model_type: bertsmith`).

What the two halves share stands in the file under both names. Where targets have a vocabulary of their own, its
tokenizer is in the folder `target_tokenizer`.

Not here: how tokens are chosen (`models.generate`), whose names the tensors have (`interop.decoders`), directories of
encoders (`bundle`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from safetensors.torch import save
from torch import Tensor

from bertsmith.batch import Batch
from bertsmith.bundle import put_in
from bertsmith.card import CARD, Card, writer_card
from bertsmith.config.decoder import DecoderConfig
from bertsmith.config.encoder import shape_problem
from bertsmith.errors import ErrorCollector, InputError
from bertsmith.files import MANIFEST, read_json, read_manifest, to_json, write_file, write_manifest
from bertsmith.interop.decoders import (
    causal_rules,
    decoder_config,
    decoder_to_hf,
    is_seq2seq,
    seq2seq_configs,
    seq2seq_rules,
    seq2seq_to_hf,
    unlike_bert,
    with_pooler,
)
from bertsmith.interop.families import canonical, written
from bertsmith.interop.keymap import their_names, to_ours, to_theirs
from bertsmith.interop.weights import WEIGHTS, read_weights, weights_file
from bertsmith.models.generate import Search, generate, mean_probabilities
from bertsmith.models.seq2seq import CausalLM, Seq2Seq, twins
from bertsmith.nn.cross_attention import Memory
from bertsmith.tokenizer.directory import load_tokenizer
from bertsmith.tokenizer.text_tokenizer import TextTokenizer

WRITTEN_AT_A_TIME = 64
"""Texts that `write_all` writes at a time."""

TARGETS = "target_tokenizer"
"""Folder of the targets' tokenizer, where sources have another one."""


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
    task: dict[str, Any] = field(default_factory=dict)
    """What it was trained for, as its manifest has it."""
    targets: TextTokenizer | None = None
    """The targets' tokenizer, where they have a vocabulary of their own."""

    @property
    def target_tokenizer(self) -> TextTokenizer:
        """Of what is written."""
        return self.targets or self.tokenizer

    @property
    def decoder(self) -> CausalLM:
        """The half that writes."""
        return self.model.writer if isinstance(self.model, Seq2Seq) else self.model

    @property
    def limit(self) -> int:
        """Most tokens of a text, special tokens included; of a decoder alone no more than it has learnt with."""
        model = self.model.encoder if isinstance(self.model, Seq2Seq) else self.model
        learnt = self.task.get("max_length") if isinstance(self.model, CausalLM) else None
        positions = model.config.max_position_embeddings
        return min(positions, self.tokenizer.model_max_length, learnt or positions)

    @torch.inference_mode()
    def write(self, inputs: Sequence[Sequence[int]], search: Search) -> list[str]:
        """The text that each of `inputs` becomes, or goes on with; special tokens are left out."""
        prompts, memories = self._read(inputs)
        written = generate(self.decoder, prompts, memories, search)
        return [self._text(prompt, ids) for prompt, ids in zip(prompts, written, strict=True)]

    @torch.inference_mode()
    def write_with_scores(self, inputs: Sequence[Sequence[int]], search: Search) -> list[tuple[str, float]]:
        """The same with the geometric mean of the tokens' probabilities, the end included."""
        prompts, memories = self._read(inputs)
        written = generate(self.decoder, prompts, memories, search)
        scores = mean_probabilities(self.decoder, prompts, memories, written, search)
        texts = [self._text(prompt, ids) for prompt, ids in zip(prompts, written, strict=True)]
        return list(zip(texts, scores, strict=True))

    def _read(self, inputs: Sequence[Sequence[int]]) -> tuple[Sequence[Sequence[int]], list[Memory]]:
        """What the decoder begins with, and what it reads."""
        if not isinstance(self.model, Seq2Seq):
            return inputs, []
        sources = Batch.from_sequences([np.array(ids) for ids in inputs]).to(self.device)
        return [[self.start]] * len(inputs), self.model.read(sources)

    def _text(self, prompt: Sequence[int], written: Sequence[int]) -> str:
        """What was written; after a prompt with the space, if any, that parts the two: "the c" -> "at sat"."""
        decode = self.target_tokenizer.decode
        before, whole = decode(prompt), decode([*prompt, *written])
        return whole.removeprefix(before) if whole.startswith(before) else decode(written)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.decoder.decoder.embeddings.tokens.weight.device

    def inputs(
        self,
        texts: Sequence[str],
        *,
        places: Sequence[dict[str, Any]],
        cuts: bool,
        room: int,
        fix: str = "shorten it, or give --long-docs truncate",
    ) -> list[list[int]]:
        """The ids of each text: `[CLS] text [SEP]` for an encoder, `[CLS] text` to go on with, which leaves `room` for
        what is written. Raises `InputError`s for empty texts and, unless `cuts`, for longer ones, with the `fix`.
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
                errors.add(InputError(f"{len(whole)} tokens, the limit is {limit}; {fix}", **place))
            elif len(whole) > limit:
                kept = limit - 1 - len(ends)
                whole = [whole[0], *(ids[:kept] if ends else ids[len(ids) - kept :]), *ends]
            found.append(whole)
        errors.raise_if_any()
        return found


def is_writer(path: Path) -> bool:
    """Whether a directory holds an encoder-decoder, or a decoder."""
    file = path / "config.json"
    values = read_json(file) if file.is_file() else None
    return isinstance(values, dict) and (is_seq2seq(values) or bool(values.get("is_decoder")))


def load_writer(path: Path) -> Writer:
    """Read a directory. Raises `InputError` for one that cannot write, naming file, field or tensor."""
    manifest = read_manifest(path, kind="model") if (path / MANIFEST).is_file() else {}
    file = path / "config.json"
    values = read_json(file)
    try:
        model, rules = _built(values)
    except ValueError as error:
        field, message = shape_problem(error) if isinstance(error, ValidationError) else (None, str(error))
        raise InputError(message, file=file, field=field) from None
    weights = weights_file(path)
    config = model.writer.config if isinstance(model, Seq2Seq) else model.config
    try:
        tensors, unknown = to_ours(canonical_writer(read_weights(weights), config), rules, config=config)
        tensors = one_of_twins(tensors, twins(model), theirs=their_names(rules))
        put_in(model, tensors, theirs=their_names(rules), unknown=unknown, without_place=unknown)
    except InputError as error:
        raise InputError(error.message, file=weights) from None
    tokenizer = load_tokenizer(path)
    targets = load_tokenizer(path / TARGETS) if (path / TARGETS).is_dir() else None
    given = read_json(path / "generation_config.json") if (path / "generation_config.json").is_file() else {}
    start = given.get("decoder_start_token_id", values.get("decoder_start_token_id"))
    end = given.get("eos_token_id", values.get("eos_token_id"))
    if isinstance(end, list):
        end = end[0] if end else None
    check_vocabularies(model, tokenizer, targets, file=path)
    own = targets or tokenizer
    return Writer(
        path,
        model,
        tokenizer,
        own.cls_id if start is None else int(start),
        own.sep_id if end is None else int(end),
        manifest.get("task", {}),
        targets,
    )


def check_vocabularies(
    model: CausalLM | Seq2Seq, tokenizer: TextTokenizer, targets: TextTokenizer | None, *, file: Path
) -> None:
    """Every id that a text can have must have a row in the table of its half. Raises `InputError`."""
    writer = model.writer if isinstance(model, Seq2Seq) else model
    rows = [("decoder", writer.config.vocab_size, targets or tokenizer)]
    if isinstance(model, Seq2Seq):
        rows.append(("encoder", model.encoder.config.vocab_size, tokenizer))
    for half, count, own in rows:
        pieces = 1 + max(number for number in own.ids if number != own.mask_id)
        if pieces > count:
            raise InputError(f"the tokenizer has {pieces} pieces, the {half} {count}", file=file)


def canonical_writer(state: dict[str, Tensor], config: DecoderConfig) -> dict[str, Tensor]:
    """The tensors of a decoder, alone or as a half, as `families.canonical` has them."""
    prefix = "decoder." if any(name.startswith("decoder.") for name in state) else ""
    own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    found = canonical(own, family="bert", tied=config.tie_word_embeddings)
    others = {name: tensor for name, tensor in state.items() if not name.startswith(prefix)}
    return others | {prefix + name: tensor for name, tensor in found.items()}


def one_of_twins(
    tensors: dict[str, Tensor], same: Mapping[str, str], *, theirs: Mapping[str, str]
) -> dict[str, Tensor]:
    """Without what is shared and was stored twice. Raises `InputError` if the two differ: they were trained apart."""
    found = dict(tensors)
    for name, first in same.items():
        if name in found and not torch.equal(found.setdefault(first, found[name]), found.pop(name)):
            raise InputError(
                f"tensors {theirs[first]} and {theirs[name]} differ, and config.json says that the halves share them"
            )
    return found


def _built(values: Any) -> tuple[CausalLM | Seq2Seq, Any]:
    """The model that a config.json describes, without memory, and its key table. Raises `ValueError`."""
    kind = values.get("model_type") if isinstance(values, dict) else None
    with torch.device("meta"):
        if is_seq2seq(values):
            configs = seq2seq_configs(values)
            return Seq2Seq(*configs), seq2seq_rules(*configs)
        if kind == "bert" and values.get("is_decoder"):
            config = decoder_config(values)
            if config.cross_attention:
                raise ValueError("add_cross_attention is on: it is half of an encoder-decoder, and reads a source")
            return CausalLM(config), causal_rules(config)
    raise ValueError(
        f"model_type is {kind!r}; a decoder (bert with is_decoder) or an encoder-decoder is needed to write"
    )


def write_all(writer: Writer, sources: Sequence[Sequence[int]], *, most_tokens: int, beams: int = 1) -> list[str]:
    """What is written from each source, in their order; computed in order of length."""
    search = Search(end=writer.end, max_new_tokens=most_tokens, beams=beams)
    was_training = writer.model.training
    writer.model.eval()
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    found = [""] * len(sources)
    for start in range(0, len(order), WRITTEN_AT_A_TIME):
        part = order[start : start + WRITTEN_AT_A_TIME]
        for i, text in zip(part, writer.write([sources[i] for i in part], search), strict=True):
            found[i] = text
    writer.model.train(was_training)
    return found


def write_writer(
    directory: Path,
    model: Seq2Seq | CausalLM,
    tokenizer: TextTokenizer,
    *,
    task: dict[str, Any],
    provenance: dict[str, Any],
    card: Card,
    targets: TextTokenizer | None = None,
) -> None:
    """Write an encoder-decoder into `directory` (which exists), as an `EncoderDecoderModel` if that is one, or a
    decoder, as a `BertLMHeadModel`; the manifest comes last, and leaves `train/` out. Texts begin with `[CLS]` and end
    with `[SEP]`; `targets` is the tokenizer of targets, if they have another one than sources.
    """
    own = targets or tokenizer
    unlike: tuple[str, ...] = ()
    ours = dict(model.state_dict())
    if isinstance(model, Seq2Seq):
        encoder, decoder = model.encoder.config, model.writer.config
        config = seq2seq_to_hf(encoder, decoder, start=own.cls_id, end=own.sep_id)
        ours |= {name: ours[first] for name, first in twins(model).items()}
        state = written_writer(to_theirs(ours, seq2seq_rules(encoder, decoder), vocab_size=decoder.vocab_size))
        unlike = tuple(unlike_bert(encoder, decoder))
        state = state if unlike else with_pooler(state, encoder.hidden_size)
    else:
        decoder = model.config
        config = decoder_to_hf(decoder)
        state = to_theirs(ours, causal_rules(decoder), vocab_size=decoder.vocab_size)
    tokenizer.save(directory)
    if targets is not None:
        (directory / TARGETS).mkdir()
        targets.save(directory / TARGETS)
    write_file(directory / "config.json", to_json(config))
    first = "decoder_start_token_id" if isinstance(model, Seq2Seq) else "bos_token_id"
    usual = {first: own.cls_id, "eos_token_id": own.sep_id, "pad_token_id": decoder.pad_token_id}
    write_file(directory / "generation_config.json", to_json(usual))
    write_file(directory / WEIGHTS, save(state, metadata={"format": "pt"}))
    write_file(directory / CARD, writer_card(card, model, unlike=unlike))
    content = {"task": task, "data": card.data, "provenance": provenance}
    write_manifest(directory, content, kind="model", exclude=("train", CARD))


def written_writer(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with those of the decoder as `families.written` has them."""
    own = {name: tensor for name, tensor in state.items() if name.startswith("decoder.")}
    found = written({name.removeprefix("decoder."): own[name] for name in own}, ("masked_lm",), family="bert")
    others = {name: tensor for name, tensor in state.items() if name not in own}
    return others | {f"decoder.{name}": tensor for name, tensor in found.items()}
