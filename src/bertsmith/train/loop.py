"""The one training loop. It knows `Batch` and the task protocol, and nothing about any task.

for each step: micro-batches -> loss terms / counts of the whole step -> gradients
               -> clip -> AdamW -> figures; now and then evaluate, checkpoint
"""

from __future__ import annotations

import logging
import math
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch

from bertsmith.config.training import ScheduleName
from bertsmith.data.loader import Loader, Step
from bertsmith.errors import Interrupted, RunError
from bertsmith.models.bert import Bert
from bertsmith.runtime import synchronize
from bertsmith.tasks.base import Trainable, mean_losses
from bertsmith.train.checkpoint import Progress, save_checkpoint
from bertsmith.train.optim import set_learning_rate
from bertsmith.train.schedule import learning_rate_factor
from bertsmith.train.tracking import Tracker

log = logging.getLogger("bertsmith")


@dataclass(frozen=True)
class Plan:
    """What is fixed before the first step and never measured again; stored in `config.yaml`."""

    steps: int
    warmup_steps: int
    checkpoint_every: int
    eval_every: int
    learning_rate: float
    schedule: ScheduleName
    clip: float
    threads: int
    """Threads of the CPU; resuming uses as many, for bitwise equal weights."""
    peak_flops: float
    """Measured matrix peak of this machine, floating-point operations per second."""


@dataclass
class Run:
    """A training run: what it trains, and how far it is."""

    model: Bert
    task: Trainable
    optimizers: tuple[torch.optim.Optimizer, ...]
    loader: Loader
    plan: Plan
    directory: Path
    """`…/train`."""
    keep_checkpoints: int = 2
    progress: Progress = field(default_factory=Progress)
    evaluate: Callable[[], dict[str, float]] | None = None
    after_evaluation: Callable[[dict[str, float]], bool] | None = None
    """Called with the metrics; True ends the run (early stopping)."""


class StopSignal:
    """Turns SIGINT and SIGTERM into a flag that is read between two steps; a second signal ends at once."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(128 + number)
        self.received = number
        log.warning("%s: saving a checkpoint after this step", signal.Signals(number).name)

    def __enter__(self) -> StopSignal:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


class Figures:
    """Sums over the steps since the last line of `metrics.jsonl`."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.flops = self.tokens = 0
        self.started = time.perf_counter()

    def add(self, name: str, count: int, total: float, correct: float) -> None:
        """Add one loss term of one micro-batch."""
        self.counts[name] = self.counts.get(name, 0) + count
        for key, value in ((f"{name}_loss", total), (f"{name}_accuracy", correct)):
            self.sums[key] = self.sums.get(key, 0.0) + value

    def summary(self, peak_flops: float) -> dict[str, float]:
        """Means per item, and speed. `percent_of_peak` counts forward + backward = 3 x forward."""
        seconds = max(time.perf_counter() - self.started, 1e-9)
        means = {key: value / self.counts[key.rpartition("_")[0]] for key, value in self.sums.items()}
        return {
            **means,
            "tokens_per_second": self.tokens / seconds,
            "percent_of_peak": 100 * 3 * self.flops / seconds / peak_flops,
        }


def train(run: Run) -> None:
    """Run until `plan.steps` steps are done, early stopping, or a signal.

    Raises `RunError` when loss or gradient is not finite (the weights stay as they were, and nothing is saved) and
    `Interrupted` after a signal, with a checkpoint written.
    """
    plan, progress = run.plan, run.progress
    run.model.train()
    steps = run.loader.steps(progress.position)
    figures = Figures()
    tracker = Tracker(run.directory / "metrics.jsonl", steps=plan.steps, start=progress.step)
    with StopSignal() as stop, tracker:
        while progress.step < plan.steps:
            before = time.perf_counter()
            optimizer_step(run, next(steps), figures)
            progress.seconds += time.perf_counter() - before
            last = progress.step == plan.steps
            if time.perf_counter() - figures.started >= 1.0 or last or stop.received:
                tracker.step(progress.step, figures.summary(plan.peak_flops))
                figures = Figures()
            finished = last
            if run.evaluate is not None and (progress.step % plan.eval_every == 0 or last):
                metrics = run.evaluate()
                tracker.evaluation(progress.step, metrics)
                if run.after_evaluation is not None:
                    finished |= run.after_evaluation(metrics)
                figures = Figures()
            if progress.step % plan.checkpoint_every == 0 or finished or stop.received:
                save(run)
            if finished:
                return
            if stop.received:
                raise Interrupted(
                    f"stopped by {signal.Signals(stop.received).name} after step {progress.step}; --resume goes on",
                    signal_number=stop.received,
                )


def save(run: Run) -> None:
    """Write a checkpoint of the run as it is."""
    save_checkpoint(run.directory / "checkpoints", run.model, run.optimizers, run.progress, keep=run.keep_checkpoints)


def optimizer_step(run: Run, step: Step, figures: Figures) -> None:
    """One update of the weights from all micro-batches of `step`."""
    plan, progress = run.plan, run.progress
    counts: dict[str, int] = {}
    for batch in step.batches:
        for name, count in run.task.counts(batch).items():
            counts[name] = counts.get(name, 0) + count
    run.model.zero_grad(set_to_none=True)
    for host_batch in step.batches:
        batch = host_batch.to(run.model.device)
        with torch.autocast("cuda", torch.bfloat16, enabled=run.model.device.type == "cuda"):
            terms = run.task.loss(run.model, batch)
        loss = mean_losses(terms, counts)
        loss.backward()  # type: ignore[no-untyped-call]
        for name, count in run.task.counts(batch).items():
            figures.add(name, count, terms[name].total.item(), terms[name].correct.item())
        figures.tokens += batch.total
        flops = run.task.flops(run.model, batch)
        figures.flops += flops
        progress.flops += flops
        progress.tokens += batch.total
    norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), plan.clip).item()
    if not math.isfinite(norm):
        run.model.zero_grad(set_to_none=True)
        raise RunError(
            f"loss or gradient is not finite in step {progress.step + 1} (epoch {progress.position.epoch}, examples "
            f"from {progress.position.example}); the weights are those of step {progress.step}. "
            "Start anew with a lower --learning-rate (--overwrite)"
        )
    factor = learning_rate_factor(
        progress.step, steps=plan.steps, warmup_steps=plan.warmup_steps, schedule=plan.schedule
    )
    set_learning_rate(run.optimizers, plan.learning_rate * factor)
    for optimizer in run.optimizers:
        optimizer.step()
    progress.step += 1
    progress.position = step.after


def measure_step_seconds(run: Run, *, seconds: float) -> float:
    """Mean time of a step, from real steps that are undone afterwards (weights, optimizer, random state).

    The first two steps are not counted: caches and memory are not warm yet.
    """
    weights = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    random_state = torch.get_rng_state()
    progress, run.progress = run.progress, Progress()
    run.model.train()
    steps = run.loader.steps(run.progress.position)
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < 3 or time.perf_counter() - started < seconds:
        before = time.perf_counter()
        optimizer_step(run, next(steps), Figures())
        synchronize(run.model.device)
        times.append(time.perf_counter() - before)
    run.model.load_state_dict(weights)
    for optimizer in run.optimizers:
        optimizer.state.clear()
    run.model.zero_grad(set_to_none=True)
    torch.set_rng_state(random_state)
    run.progress = progress
    counted = times[2:]
    return sum(counted) / len(counted)
