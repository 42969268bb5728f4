"""Options of `bertsmith demo`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from bertsmith.config.options import Options


class DemoOptions(Options):
    """Everything on a corpus that every Python carries: tokenizer, pretraining, fine-tuning, report card."""

    out: Path = Path("runs/demo")
    """Directory to write."""
    minutes: float = Field(default=3.3, gt=0)
    """Length of the pretraining; the other stages take about a minute."""
    finetune_steps: int = Field(default=300, ge=1)
    """Optimizer steps of each of the two classifiers (pretrained start and random start)."""
    vocab_size: int = Field(default=3000, gt=5)
    """Pieces of the tokenizer."""
    seed: int = Field(default=0, ge=0)
    """Seed of every stage."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of the CPU; by default what torch chooses."""
    overwrite: bool = False
    """Replace what an earlier demo wrote."""
