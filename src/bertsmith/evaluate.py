"""`bertsmith evaluate`: metrics of a model on labelled rows or held-out documents, their report, and the gate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from bertsmith.baselines import baseline_metrics
from bertsmith.bundle import Bundle, resolve
from bertsmith.config.inference import EvaluateOptions
from bertsmith.data.ngrams import NGrams
from bertsmith.data.parallel import read_parallel
from bertsmith.data.pretraining import heldout_dataset
from bertsmith.data.shards import check_tokenizer, open_shards, store_of
from bertsmith.data.text import read_documents
from bertsmith.engines.choose import make_writer_ready
from bertsmith.errors import GateMissed, InputError, nearest
from bertsmith.files import MANIFEST, check_output
from bertsmith.generate import check_beams
from bertsmith.metrics.judgement import Judgement, counts_errors
from bertsmith.metrics.translation import translation_metrics
from bertsmith.model import Model, open_engine
from bertsmith.models.seq2seq import CausalLM, Seq2Seq
from bertsmith.runtime import choose_device, set_threads
from bertsmith.tasks.base import Task
from bertsmith.tasks.causal import evaluate_causal
from bertsmith.tasks.inference import results
from bertsmith.tasks.known import check_segments
from bertsmith.tasks.pretrain import PretrainTask, evaluate_pretraining
from bertsmith.tasks.qa import QaTask
from bertsmith.tasks.seq2seq import Seq2SeqTask, log_likelihood
from bertsmith.writer import WRITTEN_AT_A_TIME, Writer, is_writer, load_writer, write_all


@dataclass(frozen=True)
class Evaluation:
    """A model's answers to labelled rows, judged."""

    task: Task
    rows: Sequence[Any]
    results: Sequence[Any]
    judgement: Judgement


def evaluate(options: EvaluateOptions) -> dict[str, Any]:
    """Metrics by name, with `rows` or `sequences`; the gate is for `check_gate`.

    With `out` a report is written, with intervals, a table of classes, and the surest mistakes (`evaluation_report`).
    """
    gate = parse_gate(options.fail_under)
    if options.out is not None:
        check_output(options.out, overwrite=options.overwrite, kind="report")
    if is_writer(path := resolve(options.model)):
        set_threads(options.threads)
        writer = load_writer(path)
        writer.model.to(choose_device(options.device))
        make_writer_ready(writer.model, options.engine)
        metrics = (evaluate_writer if isinstance(writer.model, Seq2Seq) else evaluate_decoder)(writer, options)
        check_names(gate, metrics)
        return metrics
    model = open_engine(options)
    if options.data.is_dir() and (options.data / MANIFEST).is_file():
        refuse(options, "out", "baseline", "target", "beams", "columns", "batch_tokens", "batch_size", kind="shards")
        metrics = evaluate_encoder(model.bundle, options)
        check_names(gate, metrics)
    else:
        refuse(options, "target", "beams", "max_length", kind="labelled rows")
        if isinstance(model.task(), QaTask):
            refuse(options, "baseline", kind="questions about texts")
        found = evaluate_rows(model, options)
        baselines = _baselines(found, options)
        metrics = {**found.judgement.metrics, "rows": len(found.rows), **found.judgement.counts, **baselines}
        check_names(gate, metrics)
        if options.out is not None:
            from bertsmith.evaluation_report import write_report

            write_report(options, found, metrics)
    return metrics


def refuse(options: EvaluateOptions, *names: str, kind: str) -> None:
    """Raise `InputError` for options that do not go with this kind of model, or of data."""
    for name in names:
        if getattr(options, name) != type(options).model_fields[name].default:
            raise InputError(f"is not there for {kind}; leave it out", field=f"--{name.replace('_', '-')}")


def evaluate_writer(writer: Writer, options: EvaluateOptions) -> dict[str, Any]:
    """BLEU, chrF, TER and exact match of what an encoder-decoder writes, and the perplexity of what it should write."""
    refuse(options, "out", "baseline", "max_length", "batch_tokens", "batch_size", kind="encoder-decoders")
    assert isinstance(writer.model, Seq2Seq)
    check_beams(options.beams, writer)
    rows = read_parallel(options.data, options.target, columns=options.columns)
    limits = dict.fromkeys(("max_length", "max_target_length"), writer.limit)
    stored = {name: value for name, value in writer.task.items() if name in (*limits, "long_docs")}
    task = Seq2SeqTask(**limits | stored)
    inputs = task.prepare(rows, writer.tokenizer, writer.targets)
    most = task.max_target_length - 1
    sources = [encoded.sequences[0].tolist() for encoded in inputs]
    written = write_all(writer, sources, most_tokens=most, beams=options.beams)
    loss, tokens = 0.0, 0
    with torch.inference_mode():
        for start in range(0, len(inputs), WRITTEN_AT_A_TIME):
            batch = task.collate(inputs[start : start + WRITTEN_AT_A_TIME]).to(writer.device)
            loss -= float(log_likelihood(writer.model, batch))
            tokens += len(batch.labels["target_ids"])
    figures = {"token_loss": loss / tokens, "perplexity": math.exp(min(loss / tokens, 700.0)), "rows": len(rows)}
    return translation_metrics(written, [row.target for row in rows]) | figures


def evaluate_decoder(writer: Writer, options: EvaluateOptions) -> dict[str, Any]:
    """Loss and perplexity of the next token: of a text, or of the held-out documents of shards, with baselines."""
    refuse(options, "out", "baseline", "target", "beams", "batch_tokens", "batch_size", kind="a decoder alone")
    assert isinstance(writer.model, CausalLM)
    if options.max_length > writer.limit:
        raise InputError(f"{options.max_length} is more than the decoder's {writer.limit}", field="--max-length")
    tokenizer = writer.tokenizer
    with TemporaryDirectory() as folder:
        ngrams = None
        if options.data.is_dir() and (options.data / MANIFEST).is_file():
            refuse(options, "columns", kind="shards")
            train, manifest = open_shards(options.data, "train")
            store, _ = open_shards(options.data, "heldout")
            check_tokenizer(tokenizer, manifest, data=options.data)
            ngrams = NGrams(train, vocab_size=tokenizer.vocab_size, end=tokenizer.sep_id)
        else:
            documents = [
                [ids for ids in tokenizer.encode_ids(document.sentences) if ids]
                for document in read_documents([options.data], columns=options.columns)
            ]
            store = store_of(documents, Path(folder), vocab_size=tokenizer.vocab_size)
        data = heldout_dataset(store, tokenizer, objective="causal", max_length=options.max_length)
        if data is None:
            raise InputError("there are no documents to evaluate on", file=options.data)
        return evaluate_causal(writer.model, data, ngrams=ngrams) | {"sequences": data.size(0)}


def check_names(gate: Iterable[str], metrics: dict[str, Any]) -> None:
    """Raise `InputError` if the gate names what is no metric."""
    known = [key for key, value in metrics.items() if isinstance(value, float)]
    for name in gate:
        if name not in known:
            raise InputError(
                f"no metric {name!r}{nearest(name, known)}; there are: {', '.join(known)}", field="--fail-under"
            )


def evaluate_rows(model: Model, options: EvaluateOptions) -> Evaluation:
    """The answers of a fine-tuned model to labelled rows."""
    task = model.task()
    rows = task.read(options.data, columns=options.columns)
    inputs = task.prepare(rows, model.bundle.tokenizer)
    check_segments(rows, inputs, model.bundle.model.config)
    found = results(
        model.bundle.model,
        task,
        rows,
        inputs,
        batch_tokens=options.batch_tokens,
        batch_size=options.batch_size,
    )
    return Evaluation(task, rows, found, task.judge(rows, found))


def _baselines(found: Evaluation, options: EvaluateOptions) -> dict[str, float]:
    if options.baseline is None:
        return {}
    train = found.task.read(options.baseline, columns=options.columns)
    return baseline_metrics(found.task, train, found.rows)


def evaluate_encoder(bundle: Bundle, options: EvaluateOptions) -> dict[str, Any]:
    """Held-out figures of a pretrained encoder, on the shards' held-out documents."""
    if bundle.task["name"] != "pretrain":
        raise InputError("only a pretrained encoder is evaluated on shards; give labelled rows", file=options.data)
    train, manifest = open_shards(options.data, "train")
    heldout, _ = open_shards(options.data, "heldout")
    check_tokenizer(bundle.tokenizer, manifest, data=options.data)
    task = PretrainTask(bundle.task["objective"])
    data = heldout_dataset(heldout, bundle.tokenizer, objective=task.objective, max_length=options.max_length)
    if data is None:
        raise InputError("these shards have no held-out documents", file=options.data)
    ngrams = NGrams(train, vocab_size=bundle.tokenizer.vocab_size)
    metrics = evaluate_pretraining(bundle.model, task, data, ngrams=ngrams)
    return {**metrics, "sequences": data.size(0)}


def parse_gate(text: str | None) -> dict[str, float]:
    """`"accuracy=0.9,macro_f1=0.8"` -> `{"accuracy": 0.9, "macro_f1": 0.8}`; an entry ends with a number, because the
    names of labels, and so of metrics, may hold commas."""
    gate, entry = {}, ""
    for part in text.split(",") if text else []:
        entry += part
        name, _, value = entry.rpartition("=")
        try:
            limit = float(value)
        except ValueError:
            limit = math.nan
        if name and math.isfinite(limit):
            gate[name.strip()], entry = limit, ""
        else:
            entry += ","
    if entry:
        raise InputError(f"{entry[:-1]!r} is not METRIC=NUMBER, for example accuracy=0.9", field="--fail-under")
    return gate


def check_gate(metrics: dict[str, Any], fail_under: str | None) -> None:
    """Raise `GateMissed` naming the metrics that are worse than asked: lower, or higher if they count errors."""
    missed = []
    for name, limit in parse_gate(fail_under).items():
        value = metrics[name]
        is_bound = counts_errors(name)
        if not (value <= limit if is_bound else value >= limit):
            missed.append(f"{name} is {value:.4f}, {'above' if is_bound else 'below'} {limit:g}")
    if missed:
        raise GateMissed("; ".join(missed))
