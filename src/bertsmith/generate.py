"""`bertsmith generate`: texts from a decoder (`BertLMHeadModel`), or from an encoder and a decoder of transformers'
`EncoderDecoderModel`, both of BERT's shape.

Not here: how tokens are chosen (`models.generate`), reading a directory (`writer`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bertsmith.bundle import resolve
from bertsmith.config.inference import GenerateOptions, PredictOptions
from bertsmith.data.text import read_all_rows
from bertsmith.engines.choose import make_writer_ready
from bertsmith.errors import InputError
from bertsmith.models.generate import Search
from bertsmith.models.seq2seq import Seq2Seq
from bertsmith.runtime import choose_device, set_threads
from bertsmith.tasks.inference import token_groups
from bertsmith.writer import Writer, load_writer

BATCH_TOKENS = 4096
"""Most tokens of the sources that `predict` reads at a time."""

USUAL = 128
"""Most tokens that are written, unless told otherwise."""


def generate_texts(options: GenerateOptions) -> Iterator[dict[str, Any]]:
    """`{"generated_text": …}` for each text, in order, as transformers' pipelines have it: of a decoder alone what
    comes after the text, with the space, if any, that parts the two."""
    writer, inputs, search = _prepared(options)
    for start in range(0, len(inputs), options.batch_size):
        part = inputs[start : start + options.batch_size]
        for text in writer.write(part, search):
            yield {"generated_text": text}


def predict_texts(options: PredictOptions) -> Iterator[dict[str, Any]]:
    """`{"text": …, "score": …}` for each text: what is written of the likeliest tokens, and the geometric mean of their
    probabilities."""
    for name in ("pair", "question", "choices"):
        if getattr(options, name) is not None:
            raise InputError("a model that writes has no use for it; --text has all that it reads", field=f"--{name}")
    shared = {name: getattr(options, name) for name in ("model", "text", "data", "columns", "device", "threads")}
    cut = "shorten it; `bertsmith generate --long-docs truncate` cuts it"
    writer, inputs, search = _prepared(GenerateOptions(**shared), engine=options.engine, fix=cut)
    answers: dict[int, tuple[str, float]] = {}
    for group in token_groups([len(ids) for ids in inputs], options.batch_tokens or BATCH_TOKENS):
        answers |= zip(group, writer.write_with_scores([inputs[i] for i in group], search), strict=True)
    for _, (text, score) in sorted(answers.items()):
        yield {"text": text, "score": score}


def _prepared(
    options: GenerateOptions, *, engine: str = "torch", **message: str
) -> tuple[Writer, list[list[int]], Search]:
    """The model, what it shall read, and how it shall write."""
    set_threads(options.threads)
    writer = load_writer(resolve(options.model))
    writer.model.to(choose_device(options.device))
    make_writer_ready(writer.model, engine)
    texts, places = _texts(options)
    search = _search(options, writer)
    cuts = options.long_docs == "truncate"
    inputs = writer.inputs(texts, places=places, cuts=cuts, room=search.max_new_tokens, **message)
    return writer, inputs, search


def _texts(options: GenerateOptions) -> tuple[list[str], list[dict[str, Any]]]:
    """The texts, and where each stands."""
    if options.data is None:
        return [options.text or ""], [{"field": "--text"}]
    rows = read_all_rows(options.data, required=("text|sentence|source",), optional=(), columns=options.columns)
    return [row.values["text"] for row in rows], [{"file": row.file, "line": row.line} for row in rows]


def check_beams(beams: int, writer: Writer) -> None:
    """Raise `InputError` for more sequences than there are first tokens."""
    if beams > writer.decoder.config.vocab_size:
        raise InputError(f"{beams} is more than the vocabulary has pieces", field="--beams")


def _search(options: GenerateOptions, writer: Writer) -> Search:
    first = None
    if options.forced_first is not None:
        first = writer.target_tokenizer.token_id(options.forced_first)
        if first is None:
            raise InputError(f"{options.forced_first!r} is no token of the vocabulary", field="--forced-first")
        if first >= writer.decoder.config.vocab_size:
            raise InputError(f"{options.forced_first!r} has no row in the decoder's table", field="--forced-first")
    most = (writer.decoder.config.max_position_embeddings if isinstance(writer.model, Seq2Seq) else writer.limit) - 1
    usual = min(USUAL, most if isinstance(writer.model, Seq2Seq) else writer.limit // 2)
    if options.max_new_tokens is not None and options.max_new_tokens > most:
        raise InputError(f"{options.max_new_tokens} is more than the decoder's {most}", field="--max-new-tokens")
    check_beams(options.beams, writer)
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
