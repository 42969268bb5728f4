"""The one training loop. It knows `Batch` and the task protocol, and nothing about any task.

for each step: micro-batches -> loss terms / counts of the whole step -> gradients
               -> clip -> AdamW -> figures; now and then evaluate, checkpoint

With several ranks each runs this loop over its part of every step. They tell each other, before each step and in one
message, how many items they have and whether a signal came; what needs a clock or a file is decided on rank 0.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import nn

from bertsmith.config.training import Precision, ScheduleName
from bertsmith.data.loader import Loader, Step
from bertsmith.errors import Interrupted, RunError
from bertsmith.models.network import Network
from bertsmith.runtime import synchronize
from bertsmith.tasks.base import Trainable
from bertsmith.train.accumulate import accumulate
from bertsmith.train.checkpoint import Progress, random_states, save_checkpoint, set_random_states
from bertsmith.train.distributed import Ranks
from bertsmith.train.optim import set_learning_rate
from bertsmith.train.replica import StepLoss, clip_gradients, whole_model
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
    """Measured matrix peak of rank 0 in `precision`, floating-point operations per second."""
    precision: Precision = "float32"
    """Type of the matrix products."""

    @property
    def dtype(self) -> torch.dtype:
        """`precision` as torch's type."""
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32


@dataclass
class Run:
    """A training run: what it trains, and how far it is."""

    model: Network
    task: Trainable
    optimizers: tuple[torch.optim.Optimizer, ...]
    loader: Loader
    plan: Plan
    directory: Path
    """`…/train`."""
    keep_checkpoints: int = 2
    tensorboard: bool = False
    """Whether figures go to `…/train/tensorboard` too."""
    progress: Progress = field(default_factory=Progress)
    evaluate: Callable[[Any], dict[str, float]] | None = None
    """Called on rank 0 with the whole model, while the others wait: the figures of any world size are comparable."""
    after_evaluation: Callable[[Any, dict[str, float]], bool] | None = None
    """Called on rank 0 with the whole model and the metrics; True ends the run (early stopping)."""
    ranks: Ranks = field(default_factory=Ranks)
    replica: nn.Module | None = None
    """What computes a micro-batch (`train.replica`); by default the model alone."""

    def __post_init__(self) -> None:
        if self.replica is None:
            self.replica = StepLoss(self.model, self.task)


@dataclass(frozen=True)
class Flags:
    """What ranks have to agree on before a step."""

    stop: int | None = None
    """A signal that one of them received."""
    line_due: bool = False
    """Whether figures are to be written after the step; rank 0's clock decides."""


STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

REPEAT_SECONDS = 2.0
"""With several ranks, a second signal within this time is the same one: Slurm sends it, and torchrun passes it on."""


class StopSignal:
    """Turns SIGINT and SIGTERM into a flag that is read between two steps; a second signal ends at once."""

    def __init__(self, *, repeat_seconds: float = 0.0) -> None:
        self.received: int | None = None
        self.repeat_seconds = repeat_seconds
        self._received_at = 0.0
        self._previous: dict[int, Any] = {}

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.received is None:
            self.received, self._received_at = number, now
            log.warning("%s: saving a checkpoint after this step", signal.Signals(number).name)
        elif now - self._received_at >= self.repeat_seconds:
            os._exit(128 + number)

    def heard(self, number: int) -> None:
        """Another rank received it: all stop, and what torchrun sends to a slower one is no second signal."""
        if self.received is None:
            self.received, self._received_at = number, time.monotonic()

    def __enter__(self) -> StopSignal:
        for number in STOP_SIGNALS:
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.repeat_seconds and isinstance(error, Interrupted):
            return  # the process is about to end, and torchrun may still pass the signal on
        for number, handler in self._previous.items():
            signal.signal(number, handler)


class Figures:
    """Sums over the steps since the last line of `metrics.jsonl`."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.flops = self.tokens = 0
        self.norms: list[float] = []
        """Norm of each step's gradient, before it was clipped."""
        self.started = time.perf_counter()

    def add(self, name: str, count: int, total: float, correct: float) -> None:
        """Add one loss term: the count of all ranks, and what this rank found."""
        self.counts[name] = self.counts.get(name, 0) + count
        for key, value in ((f"{name}_loss", total), (f"{name}_accuracy", correct)):
            self.sums[key] = self.sums.get(key, 0.0) + value

    def gather(self, ranks: Ranks) -> None:
        """Make `sums` those of all ranks."""
        self.sums = dict(zip(self.sums, ranks.sums(list(self.sums.values())), strict=True))

    def summary(self, peak_flops: float) -> dict[str, float]:
        """Means per item, and speed. `percent_of_peak` counts forward + backward = 3 x forward."""
        seconds = max(time.perf_counter() - self.started, 1e-9)
        means = {key: value / self.counts[key.rpartition("_")[0]] for key, value in self.sums.items()}
        return {
            **means,
            "gradient_norm": sum(self.norms) / max(len(self.norms), 1),
            "tokens_per_second": self.tokens / seconds,
            "percent_of_peak": 100 * 3 * self.flops / seconds / peak_flops,
        }


def train(run: Run) -> None:
    """Run until `plan.steps` steps are done, early stopping, or a signal.

    Raises `RunError` when loss or gradient is not finite (the weights stay as they were, and nothing is saved) and
    `Interrupted` after a signal, with a checkpoint written.
    """
    plan, progress, ranks = run.plan, run.progress, run.ranks
    run.model.train()
    steps = run.loader.steps(progress.position)
    figures = Figures()
    alone = ranks.world_size == 1
    with (
        StopSignal(repeat_seconds=0.0 if alone else REPEAT_SECONDS) as stop,
        open_tracker(run) as tracker,
    ):
        while progress.step < plan.steps and not progress.ended:
            before = time.perf_counter()
            flags = Flags(stop.received, line_due=before - figures.started >= 1.0)
            flags = optimizer_step(run, next(steps), figures, flags=flags)
            if alone:  # nobody to agree with: what came during the step counts at once
                flags = Flags(stop.received, line_due=time.perf_counter() - figures.started >= 1.0)
            progress.seconds += time.perf_counter() - before
            progress.ended = progress.step == plan.steps
            if flags.line_due or progress.ended or flags.stop:
                figures.gather(ranks)
                if tracker is not None:
                    tracker.step(progress.step, figures.summary(plan.peak_flops * ranks.world_size))
                figures = Figures()
            if run.evaluate is not None and (progress.step % plan.eval_every == 0 or progress.ended):
                progress.ended |= evaluate(run, tracker)
                figures = Figures()
            if progress.step % plan.checkpoint_every == 0 or progress.ended or flags.stop:
                save(run)
            if flags.stop and not progress.ended:
                stop.heard(flags.stop)
                raise Interrupted(
                    f"stopped by {signal.Signals(flags.stop).name} after step {progress.step}; --resume goes on",
                    signal_number=flags.stop,
                )


def open_tracker(run: Run) -> AbstractContextManager[Tracker | None]:
    """What rank 0 says about the run; None on the others."""
    if not run.ranks.is_first:
        return nullcontext()
    path, steps = run.directory / "metrics.jsonl", run.plan.steps
    return Tracker(path, steps=steps, start=run.progress.step, tensorboard=run.tensorboard)


def evaluate(run: Run, tracker: Tracker | None) -> bool:
    """Evaluate on rank 0 and record it; returns whether to stop early. Every rank must call it."""
    model, ended = whole_model(run.model), False
    if tracker is not None and run.evaluate is not None:
        metrics = run.evaluate(model)
        tracker.evaluation(run.progress.step, metrics)
        ended = run.after_evaluation is not None and run.after_evaluation(model, metrics)
    return bool(run.ranks.broadcast(ended))


def save(run: Run) -> None:
    """Write a checkpoint of the run as it is."""
    directory = run.directory / "checkpoints"
    save_checkpoint(directory, run.model, run.optimizers, run.progress, keep=run.keep_checkpoints, ranks=run.ranks)


@dataclass(frozen=True)
class Share:
    """What a step holds: on this rank, and after `agree` on all."""

    counts: dict[str, int]
    """Items of each loss term."""
    tokens: int
    rectangle: int
    """Positions of the micro-batches, were each padded to its longest sequence."""
    flops: int


def agree(run: Run, step: Step, flags: Flags) -> tuple[Share, Flags]:
    """Counts of the whole step and flags of all ranks, in one message."""
    counts: dict[str, int] = {}
    for i, batch in enumerate(step.batches):
        for name, count in run.task.counts(batch).items():
            counts[name] = counts.get(name, 0) + (count if i < len(step.own) else 0)
    tokens = sum(batch.total for batch in step.own)
    rectangle = sum(len(batch.lengths) * batch.max_seqlen for batch in step.own)
    flops = sum(run.task.flops(run.model, batch) for batch in step.own)
    if run.ranks.world_size == 1:
        return Share(counts, tokens, rectangle, flops), flags
    line_due = flags.line_due and run.ranks.is_first
    stops = [int(flags.stop == number) for number in STOP_SIGNALS]
    *items, tokens, rectangle, flops, due, interrupts, terms = run.ranks.totals(
        [*counts.values(), tokens, rectangle, flops, line_due, *stops]
    )
    agreed = signal.SIGTERM if terms else signal.SIGINT if interrupts else None
    share = Share(dict(zip(counts, items, strict=True)), tokens, rectangle, flops)
    return share, Flags(agreed, line_due=bool(due))


def optimizer_step(run: Run, step: Step, figures: Figures, *, flags: Flags | None = None) -> Flags:
    """One update of the weights from all micro-batches of `step`; returns `flags` as all ranks have agreed on them."""
    plan, progress, replica = run.plan, run.progress, run.replica
    assert replica is not None
    share, agreed = agree(run, step, flags or Flags())
    run.model.zero_grad(set_to_none=True)
    found = accumulate(replica, run.model, run.task, step, counts=share.counts, dtype=plan.dtype, ranks=run.ranks)
    norm = clip_gradients(run.model, plan.clip)
    # The one wait for the device: the guard needs the norm before the update, and the figures come along.
    sums = [torch.stack([terms[name] for terms in found]).sum(0) for name in share.counts] if found else []
    norm_value, *values = torch.cat([norm.double().reshape(1), *sums]).tolist()
    if not math.isfinite(norm_value):
        run.model.zero_grad(set_to_none=True)
        raise RunError(
            f"loss or gradient is not finite in step {progress.step + 1} (epoch {progress.position.epoch}, examples "
            f"from {progress.position.example}); the weights are those of step {progress.step}. "
            "Start anew with a lower --learning-rate (--overwrite)"
        )
    values = values or [0.0] * (2 * len(share.counts))
    for i, (name, count) in enumerate(share.counts.items()):
        figures.add(name, count, values[2 * i], values[2 * i + 1])
    figures.norms.append(norm_value)
    figures.tokens += share.tokens
    figures.flops += share.flops
    progress.tokens += share.tokens
    progress.rectangle += share.rectangle
    progress.flops += share.flops
    factor = learning_rate_factor(
        progress.step, steps=plan.steps, warmup_steps=plan.warmup_steps, schedule=plan.schedule
    )
    set_learning_rate(run.optimizers, plan.learning_rate * factor)
    for optimizer in run.optimizers:
        optimizer.step()
    progress.step += 1
    progress.position = step.after
    return agreed


def measure_step_seconds(run: Run, *, seconds: float) -> float:
    """Mean time of a step, from real steps that are undone afterwards (weights, optimizer, random state).

    The first half of the steps is not counted: memory is not laid out and kernels are not chosen yet.
    """
    weights = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    random_state = random_states(run.ranks)
    progress, run.progress = run.progress, Progress()
    run.model.train()
    steps = run.loader.steps(run.progress.position)
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < 4 or run.ranks.broadcast(time.perf_counter() - started < seconds):
        before = time.perf_counter()
        optimizer_step(run, next(steps), Figures())
        synchronize(run.model.device)
        times.append(time.perf_counter() - before)
    run.model.load_state_dict(weights)
    for optimizer in run.optimizers:
        optimizer.state.clear()
    run.model.zero_grad(set_to_none=True)
    set_random_states(random_state, run.ranks)
    run.progress = progress
    counted = times[len(times) // 2 :]
    return float(run.ranks.broadcast(sum(counted) / len(counted)))
