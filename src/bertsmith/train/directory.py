"""A training directory: where a run works, how it is resumed, when it replaces what stood there.

    OUT/train/config.yaml      every option and the plan, written before step 1
    OUT/train/metrics.jsonl    a line per second or so
    OUT/train/checkpoints/     step-N/
    OUT/train/report.json      the run's figures, at its end
    OUT/…  bertsmith.json      the model; the manifest's presence means that the run has ended

With --overwrite the run works in `.OUT.new`, which replaces OUT when it is complete.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from bertsmith.config.training import NOT_PART_OF_A_RUN, TrainingOptions
from bertsmith.errors import InputError
from bertsmith.files import MANIFEST, check_output, put_in_place, write_file
from bertsmith.train.checkpoint import newest_checkpoint
from bertsmith.train.loop import Plan

log = logging.getLogger("bertsmith")


@dataclass(frozen=True)
class TrainingDirectory:
    """Where a run works (`work`), and where its result belongs (`out`)."""

    out: Path
    work: Path
    finished: bool = False
    """The run to be resumed has ended already."""

    @property
    def train(self) -> Path:
        """The part that belongs to the run, not to the model."""
        return self.work / "train"

    def checkpoint(self, options: TrainingOptions) -> Path | None:
        """The checkpoint to go on from; None to start at step 0."""
        if options.resume_from is not None:
            return options.resume_from
        return newest_checkpoint(self.train / "checkpoints") if options.resume else None

    def saved_plan(self) -> Plan | None:
        """The plan that a run wrote here before its first step."""
        stored = self._stored()
        return Plan(**stored["plan"]) if stored else None

    def save_plan(self, options: TrainingOptions, plan: Plan) -> None:
        """Write `config.yaml`: all options, resolved, and the plan."""
        self.train.mkdir(parents=True, exist_ok=True)
        content = {"options": options.model_dump(mode="json"), "plan": asdict(plan)}
        write_file(self.train / "config.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))

    def check_same(self, options: TrainingOptions) -> None:
        """Raise `InputError` naming the first option that differs from the run to be resumed."""
        stored = self._stored()
        if not stored:
            return
        given, before = options.model_dump(mode="json"), stored["options"]
        for name in sorted(given.keys() | before.keys()):
            if name not in NOT_PART_OF_A_RUN and given.get(name) != before.get(name):
                raise InputError(
                    f"the run to resume has {before.get(name)!r}, not {given.get(name)!r}; "
                    "give the same options, or another --out",
                    file=self.train / "config.yaml",
                    field=name,
                )

    def finish(self) -> None:
        """Put the complete model in its place."""
        if self.work != self.out:
            put_in_place(self.work, self.out)

    def _stored(self) -> dict[str, Any] | None:
        path = self.train / "config.yaml"
        if not path.is_file():
            return None
        try:
            stored = yaml.safe_load(path.read_text(encoding="utf-8"))
            return {"options": dict(stored["options"]), "plan": dict(stored["plan"])}
        except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"not a configuration that bertsmith wrote ({error})", file=path) from None


def open_training_directory(options: TrainingOptions) -> TrainingDirectory:
    """Decide where to work, before anything is computed; creates nothing.

    Raises `InputError` for an existing output without --resume or --overwrite, and for options that differ from those
    of the run to be resumed.
    """
    out = options.out
    beside = out.with_name(f".{out.name}.new")
    if options.resume or options.resume_from is not None:
        unfinished = out if not (out / MANIFEST).is_file() else beside
        work = unfinished if (unfinished / "train" / "config.yaml").is_file() else out
        directory = TrainingDirectory(out, work, finished=(work / MANIFEST).is_file())
        if out.exists() and not (work / "train").is_dir():
            raise InputError("there is no run in it to resume (no train/config.yaml)", file=out)
        if options.resume_from is not None and not options.resume_from.is_dir():
            raise InputError("no such checkpoint directory", file=options.resume_from, field="--resume-from")
        directory.check_same(options)
        return directory
    if out.exists() and not options.overwrite and not (out / MANIFEST).is_file() and (out / "train").is_dir():
        raise InputError("holds an unfinished run; --resume continues it, --overwrite starts anew", file=out)
    check_output(out, overwrite=options.overwrite)
    if not out.exists():
        return TrainingDirectory(out, out)
    return TrainingDirectory(out, beside)


def clear(directory: TrainingDirectory) -> None:
    """Remove what an abandoned run left in the working place of a fresh one."""
    if directory.work != directory.out and directory.work.exists():
        log.warning("removing an abandoned run: %s", directory.work)
        shutil.rmtree(directory.work)
