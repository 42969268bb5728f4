"""What pretraining and fine-tuning do before the first step: the plan, the optimizer, the state to go on from."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch

from bertsmith.config.training import Precision, TrainingOptions
from bertsmith.data.loader import Loader, Position
from bertsmith.errors import InputError, import_extra
from bertsmith.models.decoder import Decoder
from bertsmith.models.encoder import Encoder
from bertsmith.models.network import Network
from bertsmith.runtime import fastest_precision, keep_memory, machine, measure_peak, set_threads, versions
from bertsmith.tasks.base import Trainable
from bertsmith.train.checkpoint import load_checkpoint
from bertsmith.train.directory import TrainingDirectory, clear
from bertsmith.train.distributed import Ranks
from bertsmith.train.loop import Plan, Run, measure_step_seconds
from bertsmith.train.optim import make_optimizers
from bertsmith.train.replica import make_replica
from bertsmith.train.schedule import sketch
from bertsmith.train.tracking import duration

log = logging.getLogger("bertsmith")

MEASURED_SECONDS = 8.0
"""How long `--minutes` measures, at most a tenth of the minutes."""

THREADS_SECONDS = 1.5
"""How long each number of threads is measured when `--threads` is not given."""

PREVIEW_SECONDS, PREVIEWED_STEPS = 3.0, 4
"""How long, and from how many steps, `--plan` takes its figures."""

EVALUATIONS = 10
"""Evaluations and checkpoints of a run, unless told otherwise."""


def set_up(
    options: TrainingOptions,
    model: Network,
    task: Trainable,
    loader: Loader,
    directory: TrainingDirectory,
    *,
    default_epochs: float,
    eval_each_epoch: bool,
    learning_rate: float,
    layer_decay: float = 1.0,
    ranks: Ranks | None = None,
) -> Run:
    """A run ready to go on: from its checkpoint, from its saved plan at step 0, or planned anew and saved."""
    ranks = ranks or Ranks()
    keep_memory()
    if options.fsdp and ranks.world_size == 1:
        raise InputError(
            "there is one process, so nothing to cut; leave it out, or start several: "
            "torchrun --nproc-per-node 8 -m bertsmith …",
            field="--fsdp",
        )
    if options.tensorboard:
        import_extra("tensorboard", extra="track", field="--tensorboard")  # fails here, before anything is written
    for part in model.modules():
        if isinstance(part, Encoder | Decoder):
            part.gradient_checkpointing = options.gradient_checkpointing
    ranks.barrier()  # from here on rank 0 writes: every rank has looked at the directory as it was
    replica = make_replica(model, task, ranks, fsdp=options.fsdp)
    plan = directory.saved_plan() if options.resume or options.resume_from else None
    threads = set_threads(plan.threads if plan else options.threads)
    known = plan or Plan(
        steps=1,
        warmup_steps=0,
        checkpoint_every=1,
        eval_every=1,
        learning_rate=learning_rate,
        schedule=options.schedule,
        clip=options.clip,
        threads=threads,
        peak_flops=math.inf,
        precision=choose_precision(options, model.device, ranks),
    )
    optimizers = make_optimizers(
        model,
        name=options.optimizer,
        learning_rate=known.learning_rate,
        weight_decay=options.weight_decay,
        precision=known.dtype,
        layer_decay=layer_decay,
    )
    # Dropout depends on seed and rank alone, not on what was drawn before step 1.
    torch.manual_seed(options.seed + ranks.rank)
    run = Run(
        model,
        task,
        optimizers,
        loader,
        known,
        directory.train,
        keep_checkpoints=options.keep_checkpoints,
        tensorboard=options.tensorboard,
        ranks=ranks,
        replica=replica,
    )
    if plan is None:
        run.plan = make_plan(options, run, default_epochs=default_epochs, eval_each_epoch=eval_each_epoch)
        if ranks.is_first and not options.plan:
            clear(directory)
            directory.save_plan(options, run.plan)
    elif (checkpoint := directory.checkpoint(options)) is not None:
        run.progress = load_checkpoint(checkpoint, model, optimizers, ranks=ranks)
        log.info("going on from %s (step %d of %d)", checkpoint, run.progress.step, plan.steps)
    else:
        log.info("no checkpoint yet: starting the saved plan of %d steps anew", plan.steps)
    ranks.barrier()  # nobody reads any more what the run is going to replace
    return run


def choose_precision(options: TrainingOptions, device: torch.device, ranks: Ranks) -> Precision:
    """What the options say; `auto` is what rank 0 measures to be worth it."""
    if options.precision is None:
        return "bfloat16" if device.type == "cuda" else "float32"
    if options.precision != "auto":
        return options.precision
    chosen: Precision = ranks.broadcast(fastest_precision(device) if ranks.is_first else "")
    return chosen


def make_plan(options: TrainingOptions, run: Run, *, default_epochs: float, eval_each_epoch: bool) -> Plan:
    """Fix the number of steps, and with it the schedule; prints it in one line. What is measured, rank 0 decides."""
    per_epoch = run.loader.steps_per_epoch()
    threads = options.threads or fastest_threads(run)
    if options.minutes is not None:
        window = min(MEASURED_SECONDS, options.minutes * 6)
        seconds = measure_step_seconds(run, seconds=window)
        steps = max(1, round(options.minutes * 60 / seconds))
        log.info("%.0f ms a step: %d steps in %s", 1000 * seconds, steps, duration(options.minutes * 60))
    else:
        steps = options.steps or max(1, round(per_epoch * (options.epochs or default_epochs)))
    precision, dtype = run.plan.precision, run.plan.dtype
    peak = float(run.ranks.broadcast(measure_peak(run.model.device, dtype) if run.ranks.is_first else 0.0))
    plan = Plan(
        steps=steps,
        warmup_steps=round(options.warmup * steps),
        checkpoint_every=options.checkpoint_every or max(1, steps // EVALUATIONS),
        eval_every=options.eval_every or (per_epoch if eval_each_epoch else max(1, steps // EVALUATIONS)),
        learning_rate=run.plan.learning_rate,
        schedule=options.schedule,
        clip=options.clip,
        threads=threads,
        peak_flops=peak,
        precision=precision,
    )
    log.info(
        "plan: %d steps of %.0f sequences = %.2f epochs; learning rate %g, %d steps of warm-up, then %s; "
        "%d threads, %s, matrix peak %.0f GFLOP/s%s",
        steps,
        run.loader.examples_per_step,
        steps / per_epoch,
        plan.learning_rate,
        plan.warmup_steps,
        options.schedule,
        threads,
        precision,
        peak / 1e9,
        f", in each of {run.ranks.world_size} processes" if run.ranks.world_size > 1 else "",
    )
    log.info("learning rate %s", _course(plan))
    return plan


def _course(plan: Plan) -> str:
    return sketch(steps=plan.steps, warmup_steps=plan.warmup_steps, schedule=plan.schedule)


def preview(run: Run, options: TrainingOptions) -> dict[str, Any]:
    """What the planned run would take, from some measured steps; `--plan` shows it and trains nothing."""
    plan, seconds = run.plan, measure_step_seconds(run, seconds=PREVIEW_SECONDS)
    waiting = run.loader.steps(Position())
    batches = [batch for _ in range(PREVIEWED_STEPS) for batch in next(waiting).batches]
    tokens = sum(batch.total for batch in batches) * run.ranks.world_size / PREVIEWED_STEPS
    flops = 3 * sum(run.task.flops(run.model, batch) for batch in batches) * run.ranks.world_size / PREVIEWED_STEPS
    return {
        "parameters": run.model.num_parameters,
        "steps": plan.steps,
        "epochs": plan.steps / run.loader.steps_per_epoch(),
        "sequences": round(plan.steps * run.loader.examples_per_step),
        "tokens": round(plan.steps * tokens),
        "flops": plan.steps * flops,
        "milliseconds_per_step": 1000 * seconds,
        "tokens_per_second": tokens / seconds,
        "percent_of_peak": 100 * flops / seconds / plan.peak_flops,
        "threads": plan.threads,
        "precision": plan.precision,
        "processes": run.ranks.world_size,
        "seconds": plan.steps * seconds,
        "time": duration(plan.steps * seconds),
        "learning_rate": plan.learning_rate,
        "schedule": f"{options.schedule} {_course(plan)}",
    }


def fastest_threads(run: Run) -> int:
    """All of torch's threads or a single one, whichever takes a step of this model faster now; and uses it.

    A small model on a machine that does something else too is often faster with one: its hundreds of short products
    a step then wait for no second thread.
    """
    every = int(run.ranks.broadcast(torch.get_num_threads()))
    if every == 1 or run.model.device.type != "cpu":
        return every
    seconds = {}
    for threads in (every, 1):
        set_threads(threads)
        seconds[threads] = measure_step_seconds(run, seconds=THREADS_SECONDS)
    fastest = min(seconds, key=lambda threads: seconds[threads])
    log.info("%s: using %d", ", ".join(f"{n} threads {1000 * t:.0f} ms a step" for n, t in seconds.items()), fastest)
    return set_threads(fastest)


def speed_report(run: Run, options: TrainingOptions) -> dict[str, Any]:
    """What a finished run reports about its length and speed. Forward and backward count 3 x forward.

    `padding_avoided`: the share of padding that the same batches would have held, padded to their longest sequence.
    """
    progress = run.progress
    seconds = max(progress.seconds, 1e-9)
    position = progress.position
    return {
        "steps": progress.step,
        "epochs": position.epoch + position.example / run.loader.dataset.size(position.epoch),
        "tokens": progress.tokens,
        "padding_avoided": 1 - progress.tokens / max(progress.rectangle, 1),
        "training_seconds": progress.seconds,
        "planned_seconds": None if options.minutes is None else 60 * options.minutes,
        "tokens_per_second": progress.tokens / seconds,
        "percent_of_peak": 100 * 3 * progress.flops / seconds / (run.plan.peak_flops * run.ranks.world_size),
        "precision": run.plan.precision,
        "peak_gflops": run.plan.peak_flops / 1e9,
        "processes": run.ranks.world_size,
        "parameters": run.model.num_parameters,
    }


def provenance(report: dict[str, Any], **sources: str | None) -> dict[str, Any]:
    """What a manifest says of how a model came about: `sources`, versions, machine, and the run's report."""
    return {**sources, "versions": versions(), "machine": machine(), "report": report}
