"""A training directory: where a run works, how it is resumed, when it replaces what stood there.

    OUT/train/config.yaml      every option, the plan, and the SHA-256 of what is read; written before step 1
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
from bertsmith.files import MANIFEST, check_output, check_source, put_in_place, read_json, sha256, write_file
from bertsmith.train.checkpoint import newest_checkpoint
from bertsmith.train.distributed import Ranks
from bertsmith.train.loop import Plan

log = logging.getLogger("bertsmith")

READ = ("train", "train_target", "dev", "dev_target", "unlabelled", "data", "model", "teacher", "mine_with")
"""Options that name what a run reads: files of rows, shards, models."""

CONFIG = Path("train", "config.yaml")


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
        stored = stored_config(self.train)
        return Plan(**stored["plan"]) if stored else None

    def save_plan(self, options: TrainingOptions, plan: Plan) -> None:
        """Write `config.yaml`: all options, resolved, what they name, and the plan."""
        write_config(self.train, options, plan=asdict(plan))

    def finish(self) -> None:
        """Put the complete model in its place, unless a run that was killed since has done so."""
        if self.work != self.out:
            # What stood there is no run any more: after a kill the names alone do not say which of the two is new.
            (self.out / CONFIG).unlink(missing_ok=True)
            put_in_place(self.work, self.out)
        shutil.rmtree(beside(self.out), ignore_errors=True)

    def ended(self, ranks: Ranks) -> dict[str, Any]:
        """The report of a run that has ended already, whose model is put in its place if a kill came before that.
        Every rank must call it."""
        report: dict[str, Any] = read_json(self.train / "report.json")
        ranks.barrier()  # every rank has read it where it was
        if ranks.is_first:
            self.finish()
        log.info("%s has ended already", self.out)
        return report


def beside(out: Path) -> Path:
    """Where a run works that replaces `out`."""
    return out.with_name(f".{out.name}.new")


def runs_for(out: Path) -> Path:
    """Where several runs work, the best of which becomes `out`."""
    return out.with_name(f".{out.name}.runs")


def write_config(folder: Path, options: TrainingOptions, **more: Any) -> None:
    """Write `folder/config.yaml`: all options, fingerprints of what they name, and `more`."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"options": options.model_dump(mode="json"), "read": fingerprints(options), **more}
    write_file(folder / CONFIG.name, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def stored_config(folder: Path) -> dict[str, Any] | None:
    """What `write_config` wrote; None if there is no such file."""
    path = folder / CONFIG.name
    if not path.is_file():
        return None
    try:
        stored = yaml.safe_load(path.read_text(encoding="utf-8"))
        return {
            "options": dict(stored["options"]),
            **{name: dict(stored[name]) for name in stored if name != "options"},
        }
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"not a configuration that bertsmith wrote ({error})", file=path) from None


def fingerprints(options: TrainingOptions) -> dict[str, str]:
    """SHA-256 of the files that the options name, and of the manifests of directories, which hold those of all files.

    Not of a hub's model, and not of one that the run itself replaces.
    """
    found = {}
    for name in READ:
        value = getattr(options, name, None)
        if value is None or Path(value).absolute() == options.out.absolute():
            continue
        path = Path(value, MANIFEST) if Path(value).is_dir() else Path(value)
        if path.is_file():
            found[name] = sha256(path)
    return found


def check_same(folder: Path, options: TrainingOptions) -> None:
    """Raise `InputError` naming the first option that differs from the run of `folder/config.yaml`, or that names
    what was changed since."""
    stored = stored_config(folder)
    if not stored:
        return
    given, before = options.model_dump(mode="json"), stored["options"]
    for name in sorted(given.keys() | before.keys()):
        if name not in NOT_PART_OF_A_RUN and given.get(name) != before.get(name):
            raise InputError(
                f"the run to resume has {before.get(name)!r}, not {given.get(name)!r}; "
                "give the same options, or another --out",
                file=folder / CONFIG.name,
                field=name,
            )
    now = fingerprints(options)
    for name, then in stored.get("read", {}).items():
        if now.get(name, then) != then:
            raise InputError(
                "changed since the run to resume read it; restore it, or start anew with --overwrite or another --out",
                file=getattr(options, name),
                field=name,
            )


def check_sources(options: TrainingOptions) -> None:
    """Raise `InputError` for an output, or a place where one is made, that would replace what the run reads."""
    for name in READ:
        value = getattr(options, name, None)
        if value is not None and not str(value).startswith("hf:"):
            for place in (options.out, beside(options.out), runs_for(options.out)):
                check_source(place, value, named=None if name == "data" else f"--{name.replace('_', '-')}")


def open_training_directory(options: TrainingOptions) -> TrainingDirectory:
    """Decide where to work, before anything is computed; creates nothing.

    Raises `InputError` for an existing output without --resume or --overwrite, for one that would replace what the run
    reads, and for options that differ from those of the run to be resumed.
    """
    out = options.out
    if options.resume or options.resume_from is not None:
        work = beside(out) if (beside(out) / CONFIG).is_file() else out
        directory = TrainingDirectory(out, work, finished=(work / MANIFEST).is_file())
        needed = work / CONFIG if options.resume_from is not None else work / "train"
        if not needed.exists() and (out.exists() or options.resume_from is not None):
            raise InputError(f"there is no run in it to resume (no {CONFIG})", file=out)
        check_same(directory.train, options)
        if options.resume_from is not None and directory.finished:
            raise InputError(
                f"{out} has ended already; give --resume alone for its report, or --overwrite to train anew",
                field="--resume-from",
            )
        if options.resume_from is not None and not options.resume_from.is_dir():
            raise InputError("no such checkpoint directory", file=options.resume_from, field="--resume-from")
        return directory
    if out.exists() and not options.overwrite and not (out / MANIFEST).is_file() and (out / "train").is_dir():
        raise InputError("holds an unfinished run; --resume continues it, --overwrite starts anew", file=out)
    check_output(out, overwrite=options.overwrite)
    check_sources(options)
    if not out.exists():
        return TrainingDirectory(out, out)
    return TrainingDirectory(out, beside(out))


def clear(directory: TrainingDirectory) -> None:
    """Remove what an abandoned run left beside a fresh one, or in its working place."""
    abandoned = beside(directory.out)
    if abandoned.exists():
        log.warning("removing an abandoned run: %s", abandoned)
        shutil.rmtree(abandoned)
