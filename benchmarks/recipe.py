"""What the fast recipe is made of: the same few minutes of pretraining with one setting changed at a time.

Each run is `bertsmith pretrain --recipe fast --objective none` on the novels of $BERTSMITH_DATA, 4 layers of width 256,
vocabulary 8,000, sequences of 128; nothing else should run beside it. "Ours" is the recipe as it is, the mean of a run
at the start and one at the end; a ratio above 1 says that the recipe's loss is lower than the changed one's.

    python benchmarks/recipe.py [--quick] [--minutes 3] [--threads 2] [--work DIR]
"""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path
from typing import Any

import torch

from bertsmith.config.pretrain import PretrainOptions
from bertsmith.train.pretrain import pretrain
from learn import BATCH, HIDDEN, LAYERS, LENGTH, done, prepare_text
from report import finish, row

CHANGES: dict[str, dict[str, Any]] = {
    "float32": {"precision": "float32"},
    "AdamW, 1e-3": {"optimizer": "adamw", "learning_rate": 1e-3},
    "learning rate 1e-3": {"learning_rate": 1e-3},
    "learning rate 4e-3": {"learning_rate": 4e-3},
    "linear schedule": {"schedule": "linear"},
    "wsd schedule": {"schedule": "wsd"},
    "15 % masked": {"mask_rate": 0.15},
    "40 % masked": {"mask_rate": 0.4},
    "initial deviation 0.02": {"initializer_range": 0.02},
    "positions start at random": {"position_init": "normal"},
    "dropout 0.1": {"dropout": 0.1},
    "batch 16": {"batch_size": 16},
    "batch 64": {"batch_size": 64},
    "sequences of 64": {"max_length": 64, "batch_size": 64},
}
"""Name -> the options that differ from the recipe."""


def main() -> None:
    """Run what is not done yet, print a table and one JSON line."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--quick", action="store_true", help="seconds, two changes, on Python's documentation")
    arguments.add_argument("--minutes", type=float, default=3.0)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--work", type=Path, default=Path("runs/recipe"))
    chosen = arguments.parse_args()
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(chosen.threads)
    minutes = 0.1 if chosen.quick else chosen.minutes
    work = chosen.work / ("quick" if chosen.quick else f"minutes-{minutes:g}")
    work.mkdir(parents=True, exist_ok=True)
    data = Path(os.environ.get("BERTSMITH_DATA", "../shared/data"))
    shards = prepare_text(work, data, quick=chosen.quick)["shards"]
    changes = dict(list(CHANGES.items())[:2]) if chosen.quick else CHANGES

    def loss(name: str, change: dict[str, Any]) -> float:
        result = done(work / f"{name}.json", lambda: trained(shards, work / "model", minutes, chosen.threads, change))
        return float(result["heldout_mlm_loss"])

    first = loss("the recipe", {})
    changed = {name: loss(name, change) for name, change in changes.items()}
    again = loss("the recipe again", {})
    recipe = (first + again) / 2
    rows = [row("seed noise and machine", "the recipe once more", first, again, "nats", lower_is_better=True)]
    case = f"held-out MLM loss after {minutes:g} minutes"
    rows += [row(case, name, recipe, theirs, "nats", lower_is_better=True) for name, theirs in changed.items()]
    finish("recipe", rows)


def trained(shards: Path, out: Path, minutes: float, threads: int, change: dict[str, Any]) -> dict[str, Any]:
    """The report of one run."""
    options: dict[str, Any] = {
        "data": shards,
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
    return pretrain(PretrainOptions(**options | change))


if __name__ == "__main__":
    main()
