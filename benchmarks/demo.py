"""The demo's question with three seeds: what is pretraining worth on the labelled task?

For each seed an encoder is pretrained as the demo does it; then each start (pretrained, random) is fine-tuned with
each of three learning rates, the best by dev accuracy is chosen, and its test figures count. The same steps and
settings for both starts. Beside them: TF-IDF + logistic regression and the majority class.

    python benchmarks/demo.py [--quick] [--work DIR]
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
from pathlib import Path
from typing import Any

from bertsmith.config.demo import DemoOptions
from bertsmith.config.inference import EvaluateOptions
from bertsmith.config.prepare import PrepareOptions
from bertsmith.config.tokenizer import TokenizerOptions
from bertsmith.data.prepare import prepare
from bertsmith.demo.corpus import write_corpus
from bertsmith.demo.run import classify_options, pretrain_options
from bertsmith.evaluate import evaluate
from bertsmith.tokenizer.train import train_tokenizer
from bertsmith.train.finetune import finetune
from bertsmith.train.pretrain import pretrain
from report import finish, row

LEARNING_RATES = (3e-4, 1e-3, 2e-3)
SEEDS = (0, 1, 2)


def main() -> None:
    """Run, print a table and one JSON line."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--quick", action="store_true", help="a few steps of everything, one seed")
    arguments.add_argument("--work", type=Path, help="keep the models here")
    arguments.add_argument("--threads", type=int, default=2)
    chosen = arguments.parse_args()
    logging.basicConfig(level=logging.WARNING)
    work = chosen.work or Path(tempfile.mkdtemp())
    data = work / "data"
    data.mkdir(parents=True, exist_ok=True)
    write_corpus(data)
    options = DemoOptions(out=work, threads=chosen.threads, overwrite=True)
    if chosen.quick:
        options = options.model_copy(update={"minutes": 0.05, "finetune_steps": 10})
    corpus, tokenizer = (data / "corpus.txt",), work / "tokenizer"
    train_tokenizer(
        TokenizerOptions(files=corpus, out=tokenizer, vocab_size=options.vocab_size, max_length=128, overwrite=True)
    )
    prepare(PrepareOptions(files=corpus, tokenizer=tokenizer, out=work / "shards", overwrite=True))
    seeds = SEEDS[:1] if chosen.quick else SEEDS
    rates = LEARNING_RATES[:1] if chosen.quick else LEARNING_RATES
    results = [compare(options.model_copy(update={"seed": seed}), rates) for seed in seeds]
    some = str(work / f"pretrained-{rates[0]:g}")
    figures = evaluate(EvaluateOptions(model=some, data=data / "test.tsv", baseline=data / "train.tsv"))
    rows = []
    for metric in ("accuracy", "macro_f1"):
        own, random = ([result[start][metric] for result in results] for start in ("pretrained", "random"))
        rows.append(
            row(f"{metric}, {len(own)} seeds", "random start", statistics.mean(own), statistics.mean(random), "share")
            | {"ours_std": spread(own), "peer_std": spread(random)}
        )
        for name in ("tfidf", "majority"):
            peer = figures[f"{name}_{metric}"]
            rows.append(
                row(f"{metric}, {len(own)} seeds", name, statistics.mean(own), peer, "share")
                | {"ours_std": spread(own), "peer_std": 0.0}
            )
    losses = [result["encoder"]["heldout_mlm_loss"] for result in results]
    unigram = results[0]["encoder"]["unigram_loss"]
    rows.append(
        row("held-out MLM loss", "unigram", statistics.mean(losses), unigram, "nats", lower_is_better=True)
        | {"ours_std": spread(losses), "peer_std": 0.0}
    )
    for result in results:
        print({"nsp_accuracy": result["encoder"]["nsp_accuracy"]} | {k: v for k, v in result.items() if k != "encoder"})
    finish("demo", rows)


def compare(options: DemoOptions, rates: tuple[float, ...]) -> dict[str, Any]:
    """One seed: the encoder's report, and for each start the test figures of its best learning rate by dev."""
    result: dict[str, Any] = {"encoder": pretrain(pretrain_options(options))}
    for start in ("pretrained", "random"):
        tried = []
        for rate in rates:
            out = options.out / f"{start}-{rate:g}"
            plain = classify_options(options, out, random_init=start == "random")
            report = finetune(plain.model_copy(update={"learning_rate": rate}))
            test = evaluate(EvaluateOptions(model=str(out), data=options.out / "data" / "test.tsv"))
            tried.append({"dev_accuracy": report["dev_accuracy"], "learning_rate": rate} | test)
        result[start] = max(tried, key=lambda figures: figures["dev_accuracy"])
    return result


def spread(values: list[float]) -> float:
    """Sample standard deviation; 0 for a single value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


if __name__ == "__main__":
    main()
