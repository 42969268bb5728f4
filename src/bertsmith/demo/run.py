"""`bertsmith demo`: every stage through the same library functions that the verbs call, and a report card."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bertsmith.config.demo import DemoOptions
from bertsmith.config.finetune import ClassifyOptions
from bertsmith.config.inference import EvaluateOptions
from bertsmith.config.prepare import PrepareOptions
from bertsmith.config.pretrain import PretrainOptions
from bertsmith.config.tokenizer import TokenizerOptions
from bertsmith.data.prepare import prepare
from bertsmith.data.selection import is_held_out
from bertsmith.data.sequences import generator
from bertsmith.data.text import read_documents
from bertsmith.demo.corpus import write_corpus
from bertsmith.demo.report import to_markdown
from bertsmith.errors import InputError
from bertsmith.evaluate import evaluate
from bertsmith.files import to_json, write_file
from bertsmith.model import Model, load
from bertsmith.runtime import machine, versions
from bertsmith.tokenizer.train import train_tokenizer
from bertsmith.train.finetune import finetune
from bertsmith.train.pretrain import pretrain

log = logging.getLogger("bertsmith")

FILL_EXAMPLES = 3

BASELINES = ("tfidf_accuracy", "tfidf_macro_f1", "majority_accuracy", "majority_macro_f1")
"""What the report card sets beside the classifier."""


class Stages:
    """Runs the stages one after the other, announces them and keeps their times."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Run one stage and return its result."""
        log.info("\n[%d/%d] %s", len(self.seconds) + 1, self.total, name)
        started = time.perf_counter()
        result = work()
        self.seconds[name] = time.perf_counter() - started
        return result


def pretrain_options(options: DemoOptions) -> PretrainOptions:
    """The demo's pretraining: the fast recipe, for a narrow model and little text (docs/performance.md)."""
    return PretrainOptions(
        data=options.out / "shards",
        out=options.out / "encoder",
        layers=2,
        hidden=128,
        positions=128,
        max_length=128,
        recipe="fast",
        initializer_range=0.06,
        batch_size=16,
        minutes=options.minutes,
        seed=options.seed,
        threads=options.threads,
        overwrite=options.overwrite,
    )


def classify_options(options: DemoOptions, out: Path, *, random_init: bool) -> ClassifyOptions:
    """The demo's fine-tuning: the same for the pretrained and for the random start."""
    data = options.out / "data"
    return ClassifyOptions(
        model=str(options.out / "encoder"),
        train=data / "train.tsv",
        dev=data / "dev.tsv",
        out=out,
        random_init=random_init,
        long_docs="truncate",
        steps=options.finetune_steps,
        batch_size=32,
        learning_rate=1e-3,
        seed=options.seed,
        threads=options.threads,
        overwrite=options.overwrite,
    )


def demo(options: DemoOptions) -> dict[str, Any]:
    """Run all stages; returns the report that also stands in `report.json` and `report.md`."""
    out = options.out
    if out.exists() and not options.overwrite:
        raise InputError("exists already; give --overwrite to replace it, or another --out", file=out)
    data = out / "data"
    data.mkdir(parents=True, exist_ok=True)
    stage = Stages(7)
    corpus = stage("data", lambda: write_corpus(data))
    tokenizer = stage(
        "tokenizer",
        lambda: train_tokenizer(
            TokenizerOptions(
                files=(data / "corpus.txt",),
                out=out / "tokenizer",
                vocab_size=options.vocab_size,
                max_length=128,
                overwrite=options.overwrite,
            )
        ),
    )
    shards = stage(
        "prepare",
        lambda: prepare(
            PrepareOptions(
                files=(data / "corpus.txt",),
                tokenizer=out / "tokenizer",
                out=out / "shards",
                seed=options.seed,
                overwrite=options.overwrite,
            )
        ),
    )
    encoder = stage("pretrain", lambda: pretrain(pretrain_options(options)))
    classifier, scratch = out / "classifier", out / "classifier-random"
    stage("finetune", lambda: finetune(classify_options(options, classifier, random_init=False)))
    stage(
        "finetune from random",
        lambda: finetune(classify_options(options, scratch, random_init=True)),
    )
    scores = stage("evaluate", lambda: compare(options, data, classifier, scratch))
    report = {
        "corpus": corpus,
        "tokenizer": {key: tokenizer[key] for key in ("vocab_size", "pieces_per_word")},
        "shards": shards["splits"],
        "pretrain": encoder | {"nsp_chance": 0.5},
        "classifier": scores,
        "fill": fill_examples(options, load(out / "encoder", device="cpu")),
        "seconds": stage.seconds | {"total": sum(stage.seconds.values())},
        "machine": machine(),
        "versions": versions(),
    }
    write_file(out / "report.json", to_json(report))
    write_file(out / "report.md", to_markdown(report, out) + "\n")
    return report


def compare(options: DemoOptions, data: Path, classifier: Path, scratch: Path) -> dict[str, Any]:
    """Test figures of the pretrained start, the random start, and the baselines without a network."""
    test = data / "test.tsv"
    own, random = (
        evaluate(EvaluateOptions(model=str(model), data=test, threads=options.threads, baseline=data / "train.tsv"))
        for model in (classifier, scratch)
    )
    return {
        "accuracy": own["accuracy"],
        "macro_f1": own["macro_f1"],
        "random_init_accuracy": random["accuracy"],
        "random_init_macro_f1": random["macro_f1"],
        **{name: own[name] for name in BASELINES},
        "test_rows": own["rows"],
    }


def fill_examples(options: DemoOptions, model: Model) -> list[dict[str, Any]]:
    """Guesses for one word each of three held-out sentences, drawn by the seed and not by their looks.

    A sentence has 8 to 24 words, and the hidden word is a piece of the vocabulary with at least four letters.
    """
    rng = generator(options.seed, 0, 0)
    candidates = list(heldout_sentences(options))
    examples: list[dict[str, Any]] = []
    for i in rng.permutation(len(candidates)).tolist():
        words = candidates[i].split()
        places = [j for j, word in enumerate(words) if j and len(word) >= 4 and _is_piece(word, model)]
        if not places:
            continue
        place = places[int(rng.integers(len(places)))]
        text = " ".join([*words[:place], "[MASK]", *words[place + 1 :]])
        guesses = model.fill(text, top_k=3)[0]
        answers = [{"token": guess["token"], "score": guess["score"]} for guess in guesses]
        examples.append({"text": text, "hidden": words[place], "guesses": answers})
        if len(examples) == FILL_EXAMPLES:
            break
    return examples


def heldout_sentences(options: DemoOptions) -> Iterator[str]:
    """Sentences of 8 to 24 words from the documents that pretraining never saw."""
    share = PrepareOptions.model_fields["heldout"].default
    for document in read_documents([options.out / "data" / "corpus.txt"]):
        if is_held_out("\n".join(document.sentences), seed=options.seed, share=share):
            yield from (text for text in document.sentences if 8 <= len(text.split()) <= 24)


def _is_piece(word: str, model: Model) -> bool:
    return word.isalpha() and word.islower() and len(model.bundle.tokenizer.encode_ids([word])[0]) == 1
