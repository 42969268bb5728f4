"""The table of verbs: options model, library function, and how the result is shown. Nothing is imported yet."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Verb:
    """One verb. The strings are `module:name`, imported when the verb is chosen."""

    summary: str
    options: str
    function: str
    show: str
    """A function of `cli.show`: (result, options) -> lines for stdout."""
    json_lines: str | None = None
    """With `--json`, the list of the result whose items are printed, one JSON object a line; None: all as one."""


VERBS: dict[str, Verb] = {
    "demo": Verb(
        "the whole path on a corpus that every Python carries, and a report card",
        "config.demo:DemoOptions",
        "demo.run:demo",
        "report_card",
    ),
    "doctor": Verb(
        "device, threads, versions, offline state; for each problem the fix",
        "config.inference:DoctorOptions",
        "runtime:doctor",
        "doctor",
    ),
    "tokenizer": Verb(
        "train a WordPiece vocabulary",
        "config.tokenizer:TokenizerOptions",
        "tokenizer.train:train_tokenizer",
        "figures",
    ),
    "prepare": Verb("text to token shards", "config.prepare:PrepareOptions", "data.prepare:prepare", "figures"),
    "pretrain": Verb(
        "masked-LM pretraining, with or without next sentence; or a decoder that learns each next token",
        "config.pretrain:PretrainOptions",
        "train.pretrain:pretrain",
        "figures",
    ),
    "check": Verb(
        "look at labelled files before training; prints the command that trains",
        "config.check:CheckOptions",
        "check:check",
        "checked",
    ),
    "finetune classify": Verb(
        "labels for a text or a pair of texts, or a number",
        "config.finetune:ClassifyOptions",
        "train.finetune:finetune",
        "finetuned",
    ),
    "finetune tag": Verb(
        "a tag for each word: entities, parts of speech",
        "config.finetune:TagOptions",
        "train.finetune:finetune",
        "finetuned",
    ),
    "finetune qa": Verb(
        "answers to questions, taken from a text",
        "config.finetune:QaOptions",
        "train.finetune:finetune",
        "finetuned",
    ),
    "finetune choice": Verb(
        "which of several texts goes with the first",
        "config.finetune:ChoiceOptions",
        "train.finetune:finetune",
        "finetuned",
    ),
    "finetune embed": Verb(
        "vectors of texts, to compare by their cosine",
        "config.finetune:EmbedderOptions",
        "train.finetune:finetune",
        "finetuned",
    ),
    "finetune rerank": Verb(
        "how well a query and a text go together",
        "config.finetune:RerankerOptions",
        "train.finetune:finetune",
        "finetuned",
    ),
    "finetune seq2seq": Verb(
        "write a target from a source: translation, summaries, any rewriting",
        "config.finetune:Seq2SeqOptions",
        "train.seq2seq:finetune_seq2seq",
        "figures",
    ),
    "evaluate": Verb(
        "metrics; exit 3 if --fail-under is missed",
        "config.inference:EvaluateOptions",
        "evaluate:evaluate",
        "figures",
    ),
    "predict": Verb("one JSON line for each row", "config.inference:PredictOptions", "predict:predict", "json_lines"),
    "generate": Verb(
        "go on with a text, or write what a text becomes: one JSON line for each",
        "config.inference:GenerateOptions",
        "generate:generate_texts",
        "json_lines",
    ),
    "embed": Verb(
        "one vector for each text, to .npy or .parquet", "config.embed:EmbedOptions", "embed:embed", "figures"
    ),
    "search": Verb(
        "the passages of a folder that mean what a query says",
        "config.search:SearchOptions",
        "search.run:search",
        "hits",
        json_lines="hits",
    ),
    "convert": Verb(
        "checkpoints of other systems to a model directory, and back",
        "config.convert:ConvertOptions",
        "convert:convert",
        "figures",
    ),
    "export": Verb(
        "ONNX: encoder, head, pooling and normalisation in one file, checked against torch",
        "config.export:ExportOptions",
        "export.run:export",
        "figures",
    ),
    "show": Verb(
        "parameters, FLOPs and memory of each part; --svg draws the model",
        "config.show:ShowOptions",
        "show:show",
        "parts",
    ),
    "fill": Verb("the likeliest tokens for each [MASK]", "config.inference:FillOptions", "predict:fill", "guesses"),
}


def load(reference: str) -> Any:
    """The object that `"config.demo:DemoOptions"` names, below `bertsmith`."""
    module, _, name = reference.partition(":")
    return getattr(import_module(f"bertsmith.{module}"), name)
