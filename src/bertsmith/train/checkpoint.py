"""Checkpoints: everything that a run needs to go on as if it had never stopped.

    train/checkpoints/step-200/
        model.safetensors       weights, under our names
        optimizer.safetensors   moments, "parameter/key"
        random.safetensors      torch's random states (dropout); order and masks are functions of the seed
        bertsmith.json          step, position, best so far, sizes and SHA-256; written last

Safetensors has no checksum (515 of 664 flipped bits load without a word), so the manifest has one.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bertsmith.data.loader import Position
from bertsmith.errors import InputError
from bertsmith.files import new_directory, read_manifest, write_manifest

log = logging.getLogger("bertsmith")

Optimizers = tuple[torch.optim.Optimizer, ...]


@dataclass
class Progress:
    """What a run knows about itself, beside tensors. Saved with every checkpoint."""

    step: int = 0
    """Optimizer steps done."""
    position: Position = field(default_factory=Position)
    tokens: int = 0
    """Real tokens seen."""
    flops: int = 0
    """Floating-point operations of the forward passes so far (see `models.flops`)."""
    seconds: float = 0.0
    """Time spent in training steps."""
    best_value: float | None = None
    """Best value of the primary metric so far."""
    best_step: int | None = None
    evaluations_without_gain: int = 0


def save_checkpoint(
    directory: Path, model: nn.Module, optimizers: Optimizers, progress: Progress, *, keep: int
) -> Path:
    """Write `directory/step-N` and remove all but the newest `keep`; returns its path."""
    target = directory / f"step-{progress.step}"
    with new_directory(target, overwrite=True) as temporary:
        save_file(_cpu(model.state_dict()), temporary / "model.safetensors")
        moments = {
            f"{name}/{key}": value
            for name, parameter in model.named_parameters()
            for optimizer in optimizers
            for key, value in optimizer.state.get(parameter, {}).items()
        }
        save_file(_cpu(moments), temporary / "optimizer.safetensors")
        states = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            states["cuda"] = torch.cuda.get_rng_state()
        save_file(states, temporary / "random.safetensors")
        write_manifest(temporary, {"kind": "checkpoint", "version": 1, "progress": asdict(progress)})
    for old in _steps(directory)[keep:]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def newest_checkpoint(directory: Path) -> Path | None:
    """The newest checkpoint whose files are intact; a damaged one is passed over with a warning."""
    for path in _steps(directory):
        try:
            read_manifest(path, kind="checkpoint")
        except InputError as error:
            log.warning("passing over a damaged checkpoint: %s", error)
            continue
        return path
    return None


def load_checkpoint(path: Path, model: nn.Module, optimizers: Optimizers) -> Progress:
    """Put the state of `path` into `model`, `optimizers` and torch's random generators.

    Raises `InputError` when the checkpoint is damaged or is of another model.
    """
    manifest = read_manifest(path, kind="checkpoint")
    weights = load_file(path / "model.safetensors")
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"this checkpoint is of another model: {error}".replace("\n", " "), file=path) from None
    parameters = dict(model.named_parameters())
    owners = {p: optimizer for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    for key, value in load_file(path / "optimizer.safetensors").items():
        name, _, slot = key.rpartition("/")
        parameter = parameters[name]
        on_device = slot != "step" or parameter.is_cuda
        owners[parameter].state[parameter][slot] = value.to(parameter.device) if on_device else value
    states = load_file(path / "random.safetensors")
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
    values: dict[str, Any] = dict(manifest["progress"])
    values["position"] = Position(**values["position"])
    return Progress(**values)


def _steps(directory: Path) -> list[Path]:
    """The checkpoints of `directory`, newest first."""
    numbered = [
        (int(path.name.removeprefix("step-")), path)
        for path in directory.glob("step-*")
        if path.name.removeprefix("step-").isdigit()
    ]
    return [path for _, path in sorted(numbered, reverse=True)]


def _cpu(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu").contiguous() for name, tensor in state.items()}
