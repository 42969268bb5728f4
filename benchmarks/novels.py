"""What the learning benchmarks share: the novels of $BERTSMITH_DATA, the shape of the model, and our run on them.

`--quick` takes Python's own documentation and seconds instead of minutes.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from bertsmith.config.prepare import PrepareOptions
from bertsmith.config.pretrain import PretrainOptions
from bertsmith.config.tokenizer import TokenizerOptions
from bertsmith.data.prepare import prepare
from bertsmith.demo.corpus import write_corpus
from bertsmith.tokenizer.train import train_tokenizer

LENGTH, BATCH, LAYERS, HIDDEN = 128, 32, 4, 256
QUICK_MINUTES = 0.1


def begin(name: str, *, minutes: float, prepares: bool = True, **choices: Sequence[str]) -> argparse.Namespace:
    """The command line's `quick`, `minutes`, `threads` and `work`; `data`, and `text` made from it (`prepare_text`),
    unless the caller needs none.

    Each of `choices` is a flag of its own, which takes some of these words; by default all.
    """
    arguments = argparse.ArgumentParser()
    for flag, words in choices.items():
        arguments.add_argument(f"--{flag}", nargs="+", choices=words, default=words)
    arguments.add_argument("--quick", action="store_true", help="seconds instead of minutes, on Python's documentation")
    arguments.add_argument("--minutes", type=float, default=minutes)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--work", type=Path, default=Path("runs") / name)
    chosen = arguments.parse_args()
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(chosen.threads)
    if chosen.quick:
        chosen.minutes = QUICK_MINUTES
    chosen.work /= "quick" if chosen.quick else f"minutes-{chosen.minutes:g}"
    chosen.work.mkdir(parents=True, exist_ok=True)
    chosen.data = Path(os.environ.get("BERTSMITH_DATA", "../shared/data"))
    if prepares:
        chosen.text = prepare_text(chosen.work, chosen.data, quick=chosen.quick)
    return chosen


def done(path: Path, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result in `path`, computed if it is not there yet."""
    if not path.is_file():
        path.write_text(json.dumps(compute()))
    result: dict[str, Any] = json.loads(path.read_text())
    return result


def source_text(work: Path, data: Path, *, quick: bool) -> Path:
    """The novels, or Python's documentation."""
    if not quick:
        return data / "corpora" / "novels_en_12mb.txt.gz"
    (work / "data").mkdir(exist_ok=True)
    write_corpus(work / "data")
    return work / "data" / "corpus.txt"


def prepare_text(work: Path, data: Path, *, quick: bool) -> dict[str, Path]:
    """Tokenizer and shards; the held-out documents are in neither training."""
    source, vocabulary = source_text(work, data, quick=quick), 3000 if quick else 8000
    paths = {"source": source, "tokenizer": work / "tokenizer", "shards": work / "shards"}
    if not paths["tokenizer"].is_dir():
        train_tokenizer(
            TokenizerOptions(files=(source,), out=paths["tokenizer"], vocab_size=vocabulary, max_length=LENGTH)
        )
    if not paths["shards"].is_dir():
        prepare(PrepareOptions(files=(source,), tokenizer=paths["tokenizer"], out=paths["shards"]))
    return paths


def our_options(text: dict[str, Path], out: Path, *, minutes: float, threads: int, **changes: Any) -> PretrainOptions:
    """The fast recipe on the text, without evaluations on the way; `changes` are other options of the verb."""
    options: dict[str, Any] = {
        "data": text["shards"],
        "out": out,
        "recipe": "fast",
        "objective": "none",
        "layers": LAYERS,
        "hidden": HIDDEN,
        "positions": LENGTH,
        "max_length": LENGTH,
        "batch_size": BATCH,
        "minutes": minutes,
        "threads": threads,
        "eval_every": 10**6,
        "overwrite": True,
    }
    return PretrainOptions(**options | changes)
