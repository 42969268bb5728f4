"""Options that pretraining and fine-tuning share."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from bertsmith.config.options import Options

OptimizerName = Literal["adamw", "muon"]
Precision = Literal["float32", "bfloat16"]
ScheduleName = Literal["linear", "cosine", "wsd", "inverse-sqrt", "constant"]

NOT_PART_OF_A_RUN = frozenset({"plan", "overwrite", "resume", "resume_from", "keep_checkpoints", "fsdp", "tensorboard"})
"""Options that may differ when a run is resumed: they do not change what it computes."""


class TrainingOptions(Options):
    """How long, how fast, and how safely to train."""

    out: Path
    """Directory to write: a model directory with `train/` inside."""
    epochs: float | None = Field(default=None, gt=0)
    """Length of the run in passes over the data; give one of epochs, steps and minutes."""
    steps: int | None = Field(default=None, ge=1)
    """Length of the run in optimizer steps."""
    minutes: float | None = Field(default=None, gt=0)
    """Length of the run in minutes: a few seconds are measured, then steps and schedule are fixed."""
    batch_size: int = Field(default=32, ge=1)
    """Sequences of one optimizer step, over all processes."""
    micro_batch: int | None = Field(default=None, ge=1)
    """Sequences that a process computes at a time; gradients of a step are added up. Default: all of them."""
    fsdp: bool = False
    """Under torchrun, keep only a part of weights and optimizer in each process (FSDP2); without it each has all."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, about a third more work."""
    learning_rate: float | None = Field(default=None, gt=0)
    """Highest learning rate."""
    optimizer: OptimizerName = "adamw"
    """adamw, or muon: Muon for the matrices of blocks and heads, AdamW for embeddings, norms and biases."""
    schedule: ScheduleName = "linear"
    """Course of the learning rate after the warm-up."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from zero."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled weight decay (AdamW) of matrices; norms and biases have none."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient; beyond it the gradient is scaled down."""
    seed: int = Field(default=0, ge=0, lt=2**62)
    """Decides initial weights, order, masks and dropout."""
    device: str = "auto"
    """auto, cpu or cuda."""
    precision: Precision | Literal["auto"] | None = None
    """Type of the matrix products in training (weights and optimizer stay float32): float32, bfloat16, or auto =
    bfloat16 where it is measured to be much faster. By default bfloat16 on CUDA, float32 on a CPU."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of the CPU; by default all or one, whichever is measured to be faster."""
    checkpoint_every: int | None = Field(default=None, ge=1)
    """Steps between checkpoints; by default a tenth of the run."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """How many of the newest checkpoints are kept."""
    eval_every: int | None = Field(default=None, ge=1)
    """Steps between evaluations; by default a tenth of the run (pretraining) or an epoch (fine-tuning)."""
    tensorboard: bool = False
    """Write the figures of `metrics.jsonl` to `train/tensorboard` too (extra track)."""
    plan: bool = False
    """Measure for some seconds, print what the run would take, and train nothing."""
    overwrite: bool = False
    """Replace an existing output once the new one is complete."""
    resume: bool = False
    """Continue from the newest intact checkpoint of `--out`."""
    resume_from: Path | None = None
    """Continue from exactly this checkpoint."""

    @model_validator(mode="after")
    def _options_that_fit(self) -> TrainingOptions:
        given = [name for name in ("epochs", "steps", "minutes") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"--{given[0]} and --{given[1]} both say how long to train; give one of them")
        if self.fsdp and self.optimizer == "muon":
            raise ValueError("--fsdp cuts matrices into parts, and muon needs whole ones; use --optimizer adamw")
        return self
