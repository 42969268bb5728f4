"""Checkpoints: everything that a run needs to go on as if it had never stopped.

    train/checkpoints/step-200/
        model.safetensors       weights, under our names
        optimizer.safetensors   moments, "parameter/key"
        random.safetensors      torch's random states (dropout), of each rank; order and masks are functions of the seed
        bertsmith.json          step, position, best so far, world size, sizes and SHA-256; written last

With --fsdp a folder `sharded` stands in place of the first two (`train.sharded`). Either is read by any number of
processes, with or without --fsdp. Safetensors has no checksum (515 of 664 flipped bits load without a word), so the
manifest has one.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bertsmith.data.loader import Position
from bertsmith.errors import InputError
from bertsmith.files import new_directory, read_manifest, write_manifest
from bertsmith.train.distributed import Ranks
from bertsmith.train.replica import is_sharded
from bertsmith.train.sharded import SHARDED, copy_into, load_shards, save_shards, shard_like

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
    rectangle: int = 0
    """Positions that the same micro-batches would have had, each padded to its longest sequence."""
    flops: int = 0
    """Floating-point operations of the forward passes so far (see `models.flops`)."""
    seconds: float = 0.0
    """Time spent in training steps."""
    best_value: float | None = None
    """Best value of the primary metric so far."""
    best_step: int | None = None
    evaluations_without_gain: int = 0
    ended: bool = False
    """Whether training is over (all steps done, or stopped early), so that resuming only writes the model."""


def save_checkpoint(
    directory: Path,
    model: nn.Module,
    optimizers: Optimizers,
    progress: Progress,
    *,
    keep: int,
    ranks: Ranks | None = None,
) -> Path:
    """Write `directory/step-N` and remove all but the newest `keep`; returns its path. Every rank must call it."""
    ranks = ranks or Ranks()
    target = directory / f"step-{progress.step}"
    states = random_states(ranks)
    if ranks.is_first:
        with new_directory(target, overwrite=True) as temporary:
            if is_sharded(model):
                save_shards(Path(ranks.broadcast(str(temporary))), _tensors(model, optimizers), ranks=ranks)
            else:
                _save(model.state_dict(), temporary / "model.safetensors")
                _save(_moments(model, optimizers), temporary / "optimizer.safetensors")
            _save(states, temporary / "random.safetensors")
            content = {"world_size": ranks.world_size, "progress": asdict(progress)}
            write_manifest(temporary, content, kind="checkpoint")
        for old in _steps(directory)[keep:]:
            shutil.rmtree(old, ignore_errors=True)
    elif is_sharded(model):
        save_shards(Path(ranks.broadcast(None)), _tensors(model, optimizers), ranks=ranks)
    ranks.barrier()
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


def load_checkpoint(path: Path, model: nn.Module, optimizers: Optimizers, *, ranks: Ranks | None = None) -> Progress:
    """Put the state of `path` into `model`, `optimizers` and torch's random generators.

    Raises `InputError` when the checkpoint is damaged or is of another model.
    """
    ranks = ranks or Ranks()
    manifest = read_manifest(path, kind="checkpoint")
    if (path / SHARDED).is_dir():
        weights, moments = load_shards(path, dict(model.named_parameters()))
    else:
        weights, moments = load_file(path / "model.safetensors"), load_file(path / "optimizer.safetensors")
    try:
        copy_into(model, weights)
    except RuntimeError as error:
        raise InputError(f"this checkpoint is of another model: {error}".replace("\n", " "), file=path) from None
    parameters = dict(model.named_parameters())
    owners = {p: optimizer for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    for key, value in moments.items():
        name, _, slot = key.rpartition("/")
        parameter = parameters[name]
        on_device = slot != "step" or parameter.is_cuda
        place = value.to(parameter.device) if on_device else value
        owners[parameter].state[parameter][slot] = place if slot == "step" else shard_like(parameter, place)
    set_random_states(load_file(path / "random.safetensors"), ranks)
    values: dict[str, Any] = dict(manifest["progress"])
    values["position"] = Position(**values["position"])
    return Progress(**values)


def random_states(ranks: Ranks) -> dict[str, Tensor]:
    """The random states of all ranks: `cpu` and `cuda` are rank 0's, `cpu.1` is rank 1's. Every rank must call it."""
    own = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        own["cuda"] = torch.cuda.get_rng_state()
    return {_of_rank(kind, rank): state for kind, mine in own.items() for rank, state in enumerate(ranks.gather(mine))}


def set_random_states(states: dict[str, Tensor], ranks: Ranks) -> None:
    """Put back what `random_states` returned. A rank that was not there then starts a stream of its own."""
    own = _of_rank("cpu", ranks.rank)
    torch.set_rng_state(states.get(own, states["cpu"]))
    if own not in states:
        torch.manual_seed(int(torch.randint(2**62, ())) + ranks.rank)
    elif _of_rank("cuda", ranks.rank) in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states[_of_rank("cuda", ranks.rank)])


def _of_rank(kind: str, rank: int) -> str:
    return f"{kind}.{rank}" if rank else kind


def _moments(model: nn.Module, optimizers: Optimizers) -> dict[str, Tensor]:
    """What the optimizers remember, as `parameter/key`."""
    return {
        f"{name}/{key}": value
        for name, parameter in model.named_parameters()
        for optimizer in optimizers
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _tensors(model: nn.Module, optimizers: Optimizers) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights and moments, as `save_shards` takes them."""
    return model.state_dict(), _moments(model, optimizers)


def _steps(directory: Path) -> list[Path]:
    """The checkpoints of `directory`, newest first."""
    numbered = [
        (int(path.name.removeprefix("step-")), path)
        for path in directory.glob("step-*")
        if path.name.removeprefix("step-").isdigit()
    ]
    return [path for _, path in sorted(numbered, reverse=True)]


def _save(state: dict[str, Tensor], path: Path) -> None:
    """Write tensors; a full disk, which safetensors gives an error of its own, is an `OSError` that names the file."""
    try:
        save_file({name: tensor.detach().to("cpu").contiguous() for name, tensor in state.items()}, path)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
