"""Several fine-tunings of which the best is kept: with several seeds, or several settings.

.OUT.runs/seed-0/ …    complete training directories, which --resume goes on with; beside them `config.yaml`
OUT/                   the best of them, with `train/several.json`: what each run was and scored; the options in its
                       `train/config.yaml` are those of all runs together
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertsmith.config.finetune import FinetuneOptions
from bertsmith.errors import InputError, import_extra
from bertsmith.files import check_output, read_json, to_json, write_file
from bertsmith.train.directory import (
    CONFIG,
    TrainingDirectory,
    check_same,
    check_sources,
    open_training_directory,
    runs_for,
    write_config,
)
from bertsmith.train.distributed import Ranks
from bertsmith.train.finetune import finetune
from bertsmith.train.finetune_start import starting_bundle, suitable_rate

log = logging.getLogger("bertsmith")

BATCH_SIZES, EPOCHS = (16, 32, 64), (2, 3, 4, 6)
"""What `--search` chooses from, beside learning rates from a fifth to five times the suitable one."""


BEST = "best"
"""File in the folder of the runs that names the best, once all have ended."""


@dataclass(frozen=True)
class Done:
    """One run."""

    name: str
    directory: Path
    settings: dict[str, Any]
    report: dict[str, Any]
    value: float
    """The primary metric on dev rows."""


def finetune_several(options: FinetuneOptions) -> dict[str, Any]:
    """Run them one after the other; returns the report of the best, with what all of them scored."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        field = "--search" if options.search else "--seeds"
        raise InputError("trains one model after the other; start it without torchrun", field=field)
    out = options.out
    runs = runs_for(out)
    if options.resume and runs.exists():
        check_same(runs, options)
        if (runs / BEST).is_file():  # killed while the best was put in its place
            return _put_best_in_place(options, runs)
    elif options.resume and out.exists() and (directory := open_training_directory(options)).finished:
        return directory.ended(Ranks())
    check_output(out, overwrite=options.overwrite or options.resume)
    if not options.resume:
        check_sources(options)
    if runs.exists() and not options.resume:
        if not options.overwrite:
            raise InputError("holds unfinished runs; --resume goes on with them, --overwrite starts anew", file=runs)
        shutil.rmtree(runs)
    done = searched(options, runs) if options.search else with_seeds(options, runs)
    best = max(done, key=lambda run: run.value)
    report = {**best.report, "best_run": best.name, "runs": len(done)} | spread(done)
    listed = [{"name": run.name, **run.settings, "value": run.value} for run in done]
    write_file(best.directory / "train" / "report.json", to_json(report))
    write_file(best.directory / "train" / "several.json", to_json({"best": best.name, "runs": listed}))
    write_file(runs / BEST, best.name)
    return _put_best_in_place(options, runs)


def _put_best_in_place(options: FinetuneOptions, runs: Path) -> dict[str, Any]:
    best = TrainingDirectory(options.out, runs / (runs / BEST).read_text(encoding="utf-8"))
    plan = best.saved_plan()
    if plan is not None:  # else the two have changed places already
        best.save_plan(options, plan)
        best.finish()
    shutil.rmtree(runs, ignore_errors=True)
    report: dict[str, Any] = read_json(options.out / "train" / "report.json")
    return report


def with_seeds(options: FinetuneOptions, runs: Path) -> list[Done]:
    """The same settings with several seeds."""
    seeds = range(options.seed, options.seed + options.seeds)
    return [_run(options, runs, f"seed-{seed}", {"seed": seed}) for seed in seeds]


def searched(options: FinetuneOptions, runs: Path) -> list[Done]:
    """Settings that optuna's TPE sampler proposes (Bergstra et al. 2011), for the options that were not given.

    The proposals are a function of `--seed` and of the results so far, so that a search can be resumed.
    """
    optuna = import_extra("optuna", extra="tune", field="--search")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=options.seed))
    rate = suitable_rate(starting_bundle(options).model)
    spaces: dict[str, Callable[[Any], Any]] = {
        "learning_rate": lambda trial: float(
            f"{trial.suggest_float('learning_rate', rate / 5, rate * 5, log=True):.3g}"
        ),
        "batch_size": lambda trial: trial.suggest_categorical("batch_size", BATCH_SIZES),
        "epochs": lambda trial: float(trial.suggest_categorical("epochs", EPOCHS)),
    }
    given = options.model_fields_set | ({"epochs"} if options.steps or options.minutes else set())
    free = {name: space for name, space in spaces.items() if name not in given}
    if not free:
        raise InputError(f"nothing is left to search: {', '.join(spaces)} are all given", field="--search")
    done = []
    for number in range(options.search):
        trial = study.ask()
        settings = {name: space(trial) for name, space in free.items()}
        done.append(_run(options, runs, f"trial-{number}", settings))
        study.tell(trial, done[-1].value)
    return done


def _run(options: FinetuneOptions, runs: Path, name: str, settings: dict[str, Any]) -> Done:
    """One run, or what it found if it ended already."""
    directory = runs / name
    log.info("\n%s: %s", name, ", ".join(f"{key} {value:g}" for key, value in settings.items()))
    changes = {"seeds": 1, "search": 0, "out": directory, "overwrite": False, "resume": directory.exists()} | settings
    report = finetune(options.model_copy(update=changes), title=options.out.name)
    if not (runs / CONFIG.name).is_file():  # now that the options have proved good
        write_config(runs, options)
    return Done(name, directory, settings, report, float(report["best_value"]))


def spread(done: list[Done]) -> dict[str, float]:
    """Mean and standard deviation (of a sample) over the runs of each dev metric: `dev_f1_mean`, `dev_f1_deviation`."""
    found: dict[str, float] = {}
    names = [name for name in done[0].report if name.startswith("dev_")]
    for name in names:
        values = np.array([run.report[name] for run in done])
        found[f"{name}_mean"] = float(values.mean())
        found[f"{name}_deviation"] = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return found
