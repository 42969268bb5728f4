"""`bertsmith finetune TASK`: from an encoder and labelled rows to a model for a task."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save

from bertsmith.batch import Batch
from bertsmith.bundle import Bundle, load_bundle, resolve, write_bundle
from bertsmith.card import Card
from bertsmith.config.finetune import EmbedderOptions, FinetuneOptions, RerankerOptions, SimilarityOptions
from bertsmith.data.loader import Loader
from bertsmith.errors import InputError
from bertsmith.files import to_json, write_file
from bertsmith.models.bert import Bert
from bertsmith.models.network import Network
from bertsmith.runtime import set_threads
from bertsmith.tasks.base import Collating, Encoded, Task
from bertsmith.tasks.distill import DistilledTask
from bertsmith.tasks.embed import EmbedTask
from bertsmith.tasks.embedding import sentence_limit
from bertsmith.tasks.inference import results
from bertsmith.tasks.known import check_segments, read_training, task_from_rows
from bertsmith.tasks.mining import mined_relevance, mined_similar
from bertsmith.tasks.rerank import RerankTask
from bertsmith.tasks.teacher import Teacher, open_teacher, taught, with_targets
from bertsmith.train.directory import TrainingDirectory, open_training_directory
from bertsmith.train.distill import ANSWERS, ask, comparison, known_answers, store_answers, to_markdown
from bertsmith.train.distributed import Ranks, join_ranks
from bertsmith.train.finetune_start import starting_bundle, starting_model, suitable_rate
from bertsmith.train.loop import Run, train
from bertsmith.train.replica import whole_model
from bertsmith.train.setup import preview, provenance, set_up, speed_report

log = logging.getLogger("bertsmith")

DEFAULT_EPOCHS = 3.0
LEAST_STEPS, MOST_EPOCHS = 200, 20.0
"""A small file is gone through until there are so many steps, but no more often: a few dozen steps leave a model where
it was (Mosbach et al. 2021, "On the Stability of Fine-tuning BERT", section 6, who take 20 epochs)."""


class EncodedData:
    """A `Dataset` of encoded rows; each batch is in order of length."""

    def __init__(self, task: Collating, inputs: Sequence[Encoded]) -> None:
        self.task, self.inputs = task, inputs

    def size(self, epoch: int) -> int:  # noqa: ARG002 - the same in every epoch
        """Number of inputs."""
        return len(self.inputs)

    def batch(self, epoch: int, indices: np.ndarray) -> Batch:  # noqa: ARG002
        """See `Dataset.batch`."""
        chosen = [self.inputs[i] for i in indices.tolist()]
        return self.task.collate(sorted(chosen, key=lambda encoded: encoded.tokens))


@dataclass(frozen=True)
class Rows:
    """The rows of a file, and the inputs that they become."""

    rows: Sequence[Any]
    inputs: Sequence[Encoded]


def finetune(options: FinetuneOptions, *, title: str | None = None) -> dict[str, Any]:
    """Train a model for a task; returns the report that also stands in `train/report.json`.

    `title`: what the model's card is headed; by default the name of `out`.

    With `dev` the evaluation after each epoch decides which weights are kept. `seeds` and `search` train several models
    and keep the best (`train.several`).
    """
    if options.seeds > 1 or options.search:
        from bertsmith.train.several import finetune_several

        return finetune_several(options)
    with join_ranks(options.device) as ranks:
        return finetune_as(ranks, options, title=title or options.out.name)


def finetune_as(ranks: Ranks, options: FinetuneOptions, *, title: str) -> dict[str, Any]:
    """What one process of the run does; rank 0 alone writes, and all return its report."""
    set_threads(options.threads)
    directory = open_training_directory(options)
    if directory.finished:
        return directory.ended(ranks)
    bundle = starting_bundle(options)
    task, teacher, training, dev = load_rows(options, bundle, device=ranks.device)
    if options.fsdp and isinstance(task, EmbedTask) and task.couples:
        raise InputError("in-batch negatives need whole weights in each process; leave it out", field="--fsdp")
    torch.manual_seed(options.seed)
    model, fresh = starting_model(options, bundle, task, training.rows)
    rate = options.learning_rate or suitable_rate(model)
    log.info(
        "%d rows in %d inputs%s; starting fresh: %s; learning rate %.2g",
        len(training.rows),
        len(training.inputs),
        f", labels {', '.join(task.labels[:20])}" if hasattr(task, "labels") else "",
        ", ".join(fresh) or "nothing",
        rate,
    )
    learnt: Task | DistilledTask = task
    inputs, answers = training.inputs, None
    if teacher is not None:
        goes_on = options.resume or options.resume_from is not None
        known = known_answers(directory.train, rows=len(training.rows)) if goes_on else None
        answers = known or ask(teacher, task, training.rows, inputs, student=bundle, ranks=ranks)
        learnt = DistilledTask(task, options.alpha, options.teacher_temperature)
        inputs = with_targets(task, inputs, answers)
    loader = Loader(
        EncodedData(learnt, inputs),
        batch_size=options.batch_size,
        micro_batch=options.micro_batch,
        seed=options.seed,
        rank=ranks.rank,
        world_size=ranks.world_size,
    )
    run = set_up(
        options,
        model.to(ranks.device),
        learnt,
        loader,
        directory,
        default_epochs=min(MOST_EPOCHS, max(DEFAULT_EPOCHS, LEAST_STEPS / loader.steps_per_epoch())),
        eval_each_epoch=True,
        learning_rate=rate,
        layer_decay=options.layer_decay,
        ranks=ranks,
    )
    if options.plan:
        return preview(run, options)
    if answers is not None and ranks.is_first:
        store_answers(directory.train, answers)
    if dev.rows:
        run.evaluate = lambda whole: task.judge(dev.rows, results(whole, task, dev.rows, dev.inputs)).metrics
        run.after_evaluation = keep_best(run, task.primary_metric, patience=options.patience)
    train(run)
    model = whole_model(model)
    if not ranks.is_first:
        return dict(ranks.broadcast(None))
    report = speed_report(run, options) | {"rows": len(training.rows), "learning_rate": run.plan.learning_rate}
    if dev.rows:
        model.load_state_dict(load_file(directory.train / "best.safetensors"))
        found = results(model, task, dev.rows, dev.inputs)
        task = task.fitted(options, dev.rows, found)
        report |= {f"dev_{name}": value for name, value in task.judge(dev.rows, found).metrics.items()}
        report |= {"best_step": run.progress.best_step, "best_value": run.progress.best_value}
    if teacher is not None:
        quality = report.get(f"dev_{task.primary_metric}")
        rows = dev.rows or training.rows
        report["distillation"] = comparison(teacher, model, task, bundle.tokenizer, rows=rows, quality=quality)
    finish(options, directory, model, task, bundle, report, title=title)
    return dict(ranks.broadcast(report))


def load_rows(
    options: FinetuneOptions, bundle: Bundle, *, device: torch.device
) -> tuple[Task, Teacher | None, Rows, Rows]:
    """The task, its teacher, training rows and dev rows. Raises `InputError`s for rows that cannot be trained on; rows
    of `--dev` that `--train` has too are counted in the log, because they make the model look better than it is."""
    rows = read_training(options)
    task, teacher = task_from_rows(options, rows, max_length=longest_sequence(options, bundle), start=bundle), None
    if options.teacher is not None:
        teacher = open_teacher(options.teacher, task=task.name)
        task = taught(task, teacher, bundle.tokenizer, options)
    dev_rows = task.read(options.dev, columns=options.columns) if options.dev is not None else []
    if isinstance(task, EmbedTask | RerankTask) and dev_rows:
        task = task.judged_by(dev_rows)
    seen = {row.content for row in rows}
    if leaked := sum(row.content in seen for row in dev_rows):
        log.warning("%d of %d rows of %s are also in %s", leaked, len(dev_rows), options.dev, options.train)
    if isinstance(options, SimilarityOptions) and options.mine:
        rows = with_negatives(options, task, rows, bundle, device=device)
    training, dev = (Rows(part, task.prepare(part, bundle.tokenizer)) for part in (rows, dev_rows))
    if options.unlabelled is not None:
        training = joined(training, unlabelled_rows(options.unlabelled, options, task, bundle))
    for part in (training, dev):
        check_segments(part.rows, part.inputs, bundle.model.config)
    return task, teacher, training, dev


def unlabelled_rows(path: Path, options: FinetuneOptions, task: Task, bundle: Bundle) -> Rows:
    """The rows of `--unlabelled`. Raises `InputError`s for rows that the task cannot take."""
    if isinstance(task, EmbedTask):
        raise InputError("an embedder's rows have no labels; put them into --train", field="--unlabelled")
    rows = task.read(path, columns=options.columns, labelled=False)
    return Rows(rows, task.prepare(rows, bundle.tokenizer, labelled=False))


def joined(first: Rows, then: Rows) -> Rows:
    """The rows of both."""
    moved = [replace(encoded, row=encoded.row + len(first.rows)) for encoded in then.inputs]
    return Rows([*first.rows, *then.rows], [*first.inputs, *moved])


def with_negatives(
    options: SimilarityOptions, task: Task, rows: list[Any], bundle: Bundle, *, device: torch.device
) -> list[Any]:
    """The rows with `--mine` hard negatives, found by the start model itself or, for a reranker, by `--mine-with`."""
    if isinstance(options, RerankerOptions):
        miner = load_bundle(resolve(options.mine_with or ""))
        miner.model.to(device)
        return mined_relevance(rows, options, miner)
    bundle.model.to(device)
    modules = task.modules if isinstance(task, EmbedTask) else None
    return mined_similar(rows, options, replace(bundle, sentence=modules))


def longest_sequence(options: FinetuneOptions, bundle: Bundle) -> int:
    """`--max-length`, or what model and tokenizer can read; of an embedder no more than its start model read."""
    positions = bundle.model.config.max_position_embeddings
    if options.max_length is not None and options.max_length > positions:
        raise InputError(f"{options.max_length} is more than the model's {positions} positions", field="--max-length")
    if isinstance(options, EmbedderOptions):
        return options.max_length or sentence_limit(bundle)
    return options.max_length or min(positions, bundle.tokenizer.model_max_length)


def keep_best(run: Run, metric: str, *, patience: int | None) -> Any:
    """A callback that saves the weights whenever the metric is better than ever before."""

    def after_evaluation(model: Network, metrics: dict[str, float]) -> bool:
        progress, value = run.progress, metrics[metric]
        if progress.best_value is None or value > progress.best_value:
            progress.best_value, progress.best_step = value, progress.step
            progress.evaluations_without_gain = 0
            state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
            write_file(run.directory / "best.safetensors", save(state))
        else:
            progress.evaluations_without_gain += 1
        return patience is not None and progress.evaluations_without_gain >= patience

    return after_evaluation


def finish(
    options: FinetuneOptions,
    directory: TrainingDirectory,
    model: Bert,
    task: Task,
    bundle: Bundle,
    report: dict[str, Any],
    *,
    title: str,
) -> None:
    """Write report and model, and put them in place."""
    write_file(directory.train / "report.json", to_json(report))
    model_name = options.model or options.teacher
    sources = {"model": model_name, "train": str(options.train), "dev": str(options.dev) if options.dev else None}
    origin = f"`{model_name}`"
    if options.student_layers is not None:
        origin = f"{options.student_layers} blocks of {origin}"
    if options.random_init:
        origin = f"random weights of the shape of {origin}"
    if options.teacher is not None:
        sources["teacher"] = options.teacher
        origin += f", with `{options.teacher}` as its teacher"
        table = to_markdown(report["distillation"])
        write_file(directory.train / "report.md", f"# {title} and its teacher\n\n{table}\n")
        shutil.rmtree(directory.train / ANSWERS)
    card = Card(
        title=title,
        origin=f"Fine-tuned by `bertsmith finetune {task.name}` from {origin}.",
        data=f"`{Path(options.train).name}`, {report['rows']:,} rows.",
        figures={name: value for name, value in report.items() if name != "distillation"},
    )
    write_bundle(
        directory.work,
        model.cpu(),
        bundle.tokenizer,
        task=task.manifest(),
        provenance=provenance(report, **sources),
        card=card,
        sentence=task.modules if isinstance(task, EmbedTask) else None,
    )
    directory.finish()
