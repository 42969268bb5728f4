"""What the fast recipe is made of: the same few minutes of pretraining with one setting changed at a time.

Each run is `bertsmith pretrain --recipe fast --objective none` on the novels of $BERTSMITH_DATA, 4 layers of width 256,
vocabulary 8,000, sequences of 128; nothing else should run beside it. "Ours" is the recipe as it is, the mean of a run
at the start and one at the end (which is left out if some changes are chosen); a ratio above 1 says that the recipe's
loss is lower than the changed one's.

    python benchmarks/recipe.py [--quick] [--minutes 3] [--changes NAME …] [--threads 2] [--work DIR]
"""

from __future__ import annotations

from typing import Any

from bertsmith.train.pretrain import pretrain
from novels import begin, done, our_options
from report import finish, row

CHANGES: dict[str, dict[str, Any]] = {
    "float32": {"precision": "float32"},
    "AdamW, 1e-3": {"optimizer": "adamw", "learning_rate": 1e-3},
    "learning rate 1e-3": {"learning_rate": 1e-3},
    "learning rate 4e-3": {"learning_rate": 4e-3},
    "linear schedule": {"schedule": "linear"},
    "cosine schedule": {"schedule": "cosine"},
    "15 % masked": {"mask_rate": 0.15},
    "25 % masked": {"mask_rate": 0.25},
    "initial deviation 0.02": {"initializer_range": 0.02},
    "attention starts at random": {"attention_init": "normal"},
    "attention and positions start at random": {"attention_init": "normal", "position_init": "normal"},
    "dropout 0.1": {"dropout": 0.1},
    "batch 16": {"batch_size": 16},
    "batch 64": {"batch_size": 64},
    "sequences of 64": {"max_length": 64, "batch_size": 64},
}
"""Name -> the options that differ from the recipe."""


def main() -> None:
    """Run what is not done yet, print a table and one JSON line."""
    chosen = begin("recipe", minutes=3.0, changes=tuple(CHANGES))
    names = chosen.changes[:2] if chosen.quick else chosen.changes

    def loss(name: str, change: dict[str, Any]) -> float:
        options = our_options(
            chosen.text, chosen.work / "model", minutes=chosen.minutes, threads=chosen.threads, **change
        )
        result = done(chosen.work / f"{name}.json", lambda: pretrain(options))
        return float(result["heldout_mlm_loss"])

    first = loss("the recipe", {})
    changed = {name: loss(name, CHANGES[name]) for name in names}
    rows, recipe = [], first
    if len(names) == len(CHANGES):
        again = loss("the recipe again", {})
        recipe = (first + again) / 2
        rows.append(row("noise of the machine", "the recipe once more", first, again, "nats", lower_is_better=True))
    case = f"held-out MLM loss after {chosen.minutes:g} minutes"
    rows += [row(case, name, recipe, theirs, "nats", lower_is_better=True) for name, theirs in changed.items()]
    finish("recipe", rows)


if __name__ == "__main__":
    main()
