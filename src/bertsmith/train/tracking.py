"""What a run says while it goes on: `metrics.jsonl`, and a bar on a terminal or plain lines elsewhere."""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger("bertsmith")

LINE_SECONDS = 10.0
"""Seconds between two plain progress lines."""


SPIKE_DEVIATIONS, SPIKE_NATS, SPIKE_MEMORY, SPIKE_LINES = 5.0, 0.3, 0.9, 10
"""A loss so many deviations, and nats, above its running mean is a spike; what a line keeps of that mean; and how
many lines come first."""


class SpikeWatch:
    """Notices a training loss that jumps far above where it was: the learning rate is too high, or data is broken."""

    def __init__(self) -> None:
        self.lines = 0
        self.mean = self.variance = 0.0

    def is_spike(self, loss: float) -> bool:
        """Whether `loss` stands out from the ones before it, which it then joins unless it does."""
        away = loss - self.mean
        spike = self.lines >= SPIKE_LINES and away > max(SPIKE_DEVIATIONS * self.variance**0.5, SPIKE_NATS)
        if not spike:
            keep = SPIKE_MEMORY if self.lines else 0.0
            self.mean += (1 - keep) * away
            self.variance = keep * (self.variance + (1 - keep) * away**2)
            self.lines += 1
        return spike


class Events:
    """TensorBoard's copy of `metrics.jsonl`: `train/mlm_loss`, `eval/heldout_mlm_loss`, …

    Resuming from step N makes TensorBoard drop what an earlier process wrote past N.
    """

    def __init__(self, directory: Path, *, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(directory, purge_step=start + 1 if start else None)

    def add(self, row: dict[str, Any]) -> None:
        """Add a line of `metrics.jsonl`."""
        group, figures = ("eval", row["eval"]) if "eval" in row else ("train", row)
        for name, value in figures.items():
            if name != "step" and isinstance(value, int | float):
                self._writer.add_scalar(f"{group}/{name}", value, row["step"])

    def close(self) -> None:
        """Write what is waiting."""
        self._writer.close()


class Tracker:
    """Receives each step's figures; use as a context manager.

    `metrics.jsonl` gets one JSON object a line: training figures averaged since the line before, or an
    evaluation under `"eval"`. Resuming from step N first drops the lines past N.
    """

    def __init__(self, path: Path, *, steps: int, start: int, tensorboard: bool = False) -> None:
        self.path, self.steps, self.start = path, steps, start
        self._drop_lines_after(start)
        self._watch = SpikeWatch()
        self._stream = path.open("a", encoding="utf-8")
        self._events = Events(path.with_name("tensorboard"), start=start) if tensorboard else None
        self._last_line = self._began = time.perf_counter()
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[figures]}"),
                console=Console(stderr=True),
            )

    def __enter__(self) -> Tracker:
        if self._bar is not None:
            self._bar.start()
            self._bar.add_task("training", total=self.steps, completed=self.start, figures="")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._stream.close()
        if self._events is not None:
            self._events.close()

    def step(self, step: int, figures: dict[str, Any]) -> None:
        """Record the figures of the steps up to `step`."""
        self._write({"step": step, **figures})
        loss = sum(value for name, value in figures.items() if name.endswith("_loss"))
        if self._watch.is_spike(loss):
            log.warning(
                "the loss jumped to %.3g at step %d, from %.3g; a lower --learning-rate or longer --warmup avoids that",
                loss,
                step,
                self._watch.mean,
            )
        text = describe(figures)
        now = time.perf_counter()
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=step, figures=text)
        elif now - self._last_line >= LINE_SECONDS or step == self.steps:
            self._last_line = now
            left = (now - self._began) / max(step - self.start, 1) * (self.steps - step)
            log.info("step %d/%d  %s  %s left", step, self.steps, text, duration(left))

    def evaluation(self, step: int, metrics: dict[str, float]) -> None:
        """Record an evaluation after `step`."""
        self._write({"step": step, "eval": metrics})
        log.info("step %d/%d  evaluation: %s", step, self.steps, describe(metrics))

    def _write(self, row: dict[str, Any]) -> None:
        self._stream.write(json.dumps(row) + "\n")
        self._stream.flush()
        if self._events is not None:
            self._events.add(row)

    def _drop_lines_after(self, step: int) -> None:
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue  # a line that a crash cut off
            if row["step"] <= step:
                kept.append(line + "\n")
        self.path.write_text("".join(kept), encoding="utf-8")


def describe(figures: dict[str, Any]) -> str:
    """Figures on one line: `{"loss": 5.1234, "step": 3}` -> `"loss 5.123  step 3"`."""
    parts = []
    for name, value in figures.items():
        if isinstance(value, float):
            text = (
                f"{value:.2e}" if 0 < abs(value) < 1e-3 else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
            )
        else:
            text = str(value)
        parts.append(f"{name} {text}")
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """`75 -> "1m15s"`, `9.6 -> "10s"`, `4000 -> "1h07m"`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
