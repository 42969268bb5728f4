"""`bertsmith finetune seq2seq`: an encoder-decoder from rows of source and target, from an encoder or from nothing.

Not here: the loss (`tasks.seq2seq`), the loop (`train.loop`), writing (`models.generate`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from bertsmith.bundle import load_bundle, resolve
from bertsmith.card import Card
from bertsmith.config.decoder import DecoderConfig, Shared
from bertsmith.config.encoder import EncoderConfig, shape_problem
from bertsmith.config.finetune import Seq2SeqOptions
from bertsmith.data.loader import Buckets, Loader
from bertsmith.data.parallel import ParallelExample, read_parallel
from bertsmith.errors import InputError, import_extra
from bertsmith.files import to_json, write_file
from bertsmith.metrics.translation import translation_metrics
from bertsmith.models.bert import Bert
from bertsmith.models.seq2seq import Seq2Seq
from bertsmith.presets import LAYOUTS, WRITING, size_fields
from bertsmith.runtime import set_threads
from bertsmith.tasks.seq2seq import Seq2SeqTask
from bertsmith.tokenizer.lossless import train_lossless
from bertsmith.tokenizer.text_tokenizer import TextTokenizer
from bertsmith.train.directory import open_training_directory
from bertsmith.train.distributed import join_ranks
from bertsmith.train.finetune import EncodedData, keep_best
from bertsmith.train.loop import train
from bertsmith.train.setup import preview, provenance, set_up, speed_report
from bertsmith.train.start import copy_to_decoder
from bertsmith.writer import Writer, write_all, write_writer

log = logging.getLogger("bertsmith")

SCRATCH_RATE, WARM_RATE = 1e-3, 1e-4
"""Highest learning rate from nothing, and from an encoder."""

DEFAULT_EPOCHS = 10.0

USUAL_PIECES = 8000
"""Most pieces of a new vocabulary, unless told otherwise."""


def finetune_seq2seq(options: Seq2SeqOptions) -> dict[str, Any]:
    """Train an encoder-decoder; returns the report that also stands in `train/report.json`.

    Raises `InputError` before anything is written. With `dev` the evaluation after each epoch decides, by `metric`,
    which weights are kept.
    """
    with join_ranks(options.device) as ranks:
        if ranks.world_size > 1:
            raise InputError("an encoder-decoder is trained in one process", field="torchrun")
        set_threads(options.threads)
        directory = open_training_directory(options)
        if directory.finished:
            return directory.ended(ranks)
        rows = read_parallel(options.train, options.train_target, columns=options.columns)
        dev = [] if options.dev is None else read_parallel(options.dev, options.dev_target, columns=options.columns)
        if dev:
            import_extra("sacrebleu", extra="seq2seq", field="--dev")  # fails here, before anything is written
        torch.manual_seed(options.seed)
        model, tokenizer = starting_point(options, rows)
        task = Seq2SeqTask(options.max_length, options.max_target_length, options.long_docs, options.label_smoothing)
        inputs = task.prepare(rows, tokenizer)
        lengths = np.array([(encoded.tokens, len(encoded.label) - 1) for encoded in inputs])
        sources = [encoded.sequences[0].tolist() for encoded in task.prepare(dev, tokenizer)]
        loader = Loader(
            EncodedData(task, inputs),
            batch_size=options.batch_size,
            micro_batch=options.micro_batch,
            seed=options.seed,
            buckets=None if options.batch_tokens is None else Buckets(lengths, options.batch_tokens),
        )
        run = set_up(
            options,
            model.to(ranks.device),
            task,
            loader,
            directory,
            default_epochs=DEFAULT_EPOCHS,
            eval_each_epoch=True,
            learning_rate=options.learning_rate or (SCRATCH_RATE if options.from_scratch else WARM_RATE),
            ranks=ranks,
        )
        if options.plan:
            return preview(run, options)
        writer = Writer(directory.out, model, tokenizer, tokenizer.cls_id, tokenizer.sep_id)

        def measured(most: int) -> dict[str, Any]:
            written = write_all(writer, sources[:most], most_tokens=options.max_target_length - 1)
            return translation_metrics(written, [row.target for row in dev[:most]])

        if dev:
            run.evaluate = lambda _: numbers(measured(options.dev_rows))
            run.after_evaluation = keep_best(run, options.metric, patience=options.patience)
        train(run)
        report = speed_report(run, options) | padding_shares(loader.cuts(0), lengths)
        report |= {"rows": len(rows), "learning_rate": run.plan.learning_rate}
        if dev:
            model.load_state_dict(load_file(directory.train / "best.safetensors"))
            report |= {f"dev_{name}": value for name, value in measured(len(dev)).items()}
            report |= {"best_step": run.progress.best_step, "best_value": run.progress.best_value}
        write_file(directory.train / "report.json", to_json(report))
        start = "random weights" if options.model is None else f"`{options.model}`"
        write_writer(
            directory.work,
            model.cpu(),
            tokenizer,
            task=task.manifest(),
            provenance=provenance(report, model=options.model, train=str(options.train)),
            card=Card(
                title=options.out.name,
                origin=f"Trained by `bertsmith finetune seq2seq` from {start}.",
                data=f"`{Path(options.train).name}`, {len(rows):,} rows.",
                figures=numbers(report),
            ),
        )
        directory.finish()
        return report


def numbers(figures: dict[str, Any]) -> dict[str, Any]:
    """Without signatures."""
    return {name: value for name, value in figures.items() if not isinstance(value, str)}


def new_fields(options: Seq2SeqOptions) -> dict[str, Any]:
    """Size and layout of both halves of a new model."""
    layout, hidden = options.layout or "bert", options.hidden or 256
    fields = LAYOUTS[layout] | WRITING.get(layout, {}) | size_fields(options.layers or 3, hidden, layout=layout)
    if options.tie_embeddings is not None:
        fields["tie_word_embeddings"] = options.tie_embeddings != "none"
    if fields.get("embedding_scale"):
        # Token vectors become as large as the sines, and matrices start about as Glorot's (tensor2tensor).
        fields["initializer_range"] = hidden**-0.5
    return fields


def starting_point(options: Seq2SeqOptions, rows: Sequence[ParallelExample]) -> tuple[Seq2Seq, TextTokenizer]:
    """The model of step 0 and its tokenizer."""
    dropout = {"hidden_dropout_prob": options.dropout, "attention_probs_dropout_prob": options.dropout}
    longest = max(options.max_length, options.max_target_length)
    if options.model is None:
        texts = (text for row in rows for text in row.content)
        tokenizer = train_lossless(texts, vocab_size=options.vocab_size or USUAL_PIECES, model_max_length=longest)
        log.info("a vocabulary of %d pieces", tokenizer.vocab_size)
        fields = new_fields(options) | dropout
        fields |= {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": longest}
        fields |= {"pad_token_id": tokenizer.pad_id}
        tokens: Shared = "tokens" if options.tie_embeddings == "all" else "nothing"
        shared = "halves" if options.share_halves else tokens
        return Seq2Seq(EncoderConfig(**fields), DecoderConfig(**fields, shared=shared)), tokenizer
    bundle = load_bundle(resolve(options.model))
    config = bundle.model.config.model_copy(update=dropout)
    if config.family != "bert" or longest > config.max_position_embeddings:
        problem = f"is of the family {config.family}; both halves must be BERTs"
        if config.family == "bert":
            problem = f"reads {config.max_position_embeddings} tokens; lower --max-length and --max-target-length"
        raise InputError(problem, field="--model")
    try:
        decoder = DecoderConfig(**config.model_dump(), shared="halves" if options.share_halves else "nothing")
    except ValidationError as error:
        raise InputError(shape_problem(error)[1], field="--model") from None
    model = Seq2Seq(config, decoder)
    fresh = copy_halves(bundle.model, model)
    log.info("starting fresh: %s", ", ".join(fresh))
    return model, bundle.tokenizer


def copy_halves(start: Bert, model: Seq2Seq) -> list[str]:
    """Give both halves the encoder's weights, and the head those of a masked-LM head; returns what starts fresh."""
    model.encoder.load_state_dict(start.encoder.state_dict())
    return copy_to_decoder(start, model.writer)


def padding_shares(steps: Sequence[np.ndarray], lengths: np.ndarray) -> dict[str, float]:
    """Shares of places of sources and of targets that attention computes for padding; nothing else is padded.

    `steps`: the rows of each step; `lengths`: `[rows, 2]`.
    """
    padded = sum(len(rows) * lengths[rows].max(0) for rows in steps)
    shares = 1 - lengths.sum(0) / padded
    return {"source_padding": float(shares[0]), "target_padding": float(shares[1])}
