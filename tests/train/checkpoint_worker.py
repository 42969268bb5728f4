"""Writes two checkpoints of a tiny run, one after the other, and keeps one: what `test_crashes` kills at every call.

python -m tests.train.checkpoint_worker DIRECTORY
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from bertsmith.config.encoder import EncoderConfig
from bertsmith.models.bert import Bert
from bertsmith.train.checkpoint import Optimizers, Progress, save_checkpoint
from bertsmith.train.optim import make_optimizers

STEPS = (1, 2)


def state(step: int) -> tuple[Bert, Optimizers]:
    """A model and its optimizers after `step` updates with made-up gradients."""
    torch.manual_seed(0)
    config = EncoderConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    model = Bert(config, heads=("masked_lm",))
    optimizers = make_optimizers(model, name="muon", learning_rate=0.1, weight_decay=0.0)
    for _ in range(step):
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        for optimizer in optimizers:
            optimizer.step()
    return model, optimizers


def main() -> None:
    """Say "ready", wait for a line, and write the checkpoints."""
    torch.set_num_threads(1)
    state(0)  # whatever is loaded late is loaded now
    print("ready", flush=True)
    sys.stdin.readline()
    for step in STEPS:
        model, optimizers = state(step)
        save_checkpoint(Path(sys.argv[1]), model, optimizers, Progress(step=step), keep=1)


if __name__ == "__main__":
    main()
