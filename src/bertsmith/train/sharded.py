"""Checkpoints of a model in shards: each rank writes and reads its own parts.

    step-200/sharded/shard-00001-….safetensors   rank 0's parts of "model/NAME" and "optimizer/NAME/KEY", with offsets
                     shard-00002-….safetensors   rank 1's

The format is the Hugging Face storage of `torch.distributed.checkpoint`; its default storage is not used, because it
reads a pickle. Reading asks no other process, so that any number of them, also one without --fsdp, reads any shards.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bertsmith.errors import RunError
from bertsmith.train.distributed import Ranks
from bertsmith.train.replica import is_shard

SHARDED = "sharded"
"""Folder of a checkpoint's shards."""


def save_shards(directory: Path, tensors: tuple[Mapping[str, Tensor], Mapping[str, Tensor]], *, ranks: Ranks) -> None:
    """Write this rank's parts of `tensors` (weights, moments) below `directory`; returns when all ranks have.

    Raises `RunError` if one of them cannot.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    weights, moments = tensors
    state = {f"model/{name}": value for name, value in weights.items()}
    state |= {f"optimizer/{name}": value for name, value in moments.items()}
    folder = directory / SHARDED
    folder.mkdir(exist_ok=True)
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    try:
        save(state, storage_writer=writer, process_group=ranks.host)
    except CheckpointException as error:  # not an `Exception`, and it prints every rank's traceback
        first, _ = next(iter(error.failures.values()))
        raise RunError(f"{folder}: {first}") from error


def load_shards(path: Path, parameters: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(weights, moments) of a checkpoint; those of a sharded parameter are shards like it, all others whole."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    stored: Mapping[str, Any] = HuggingFaceStorageReader(str(path / SHARDED)).read_metadata().state_dict_metadata
    state: dict[str, Tensor] = {}
    for key, entry in stored.items():
        kind, _, rest = key.partition("/")
        parameter = parameters.get(rest if kind == "model" else rest.rpartition("/")[0])
        empty = torch.empty(tuple(entry.size), dtype=entry.properties.dtype)
        if parameter is not None and parameter.shape == empty.shape and is_shard(parameter):
            empty = torch.empty_like(parameter, dtype=empty.dtype)
        state[key] = empty
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # each rank reads for itself
        load(state, storage_reader=HuggingFaceStorageReader(str(path / SHARDED)), no_dist=True)
    weights = {key.removeprefix("model/"): value for key, value in state.items() if key.startswith("model/")}
    moments = {key.removeprefix("optimizer/"): value for key, value in state.items() if key.startswith("optimizer/")}
    return weights, moments


def shard_like(parameter: Tensor, value: Tensor) -> Tensor:
    """`value`, whole or already a shard, as `parameter` is: this rank's part of it, or itself."""
    if not is_shard(parameter) or is_shard(value):
        return value
    from torch.distributed.tensor import distribute_tensor

    # src_data_rank None: every rank has the whole value and cuts its own part; nothing is sent.
    return distribute_tensor(
        value.to(parameter.device), parameter.device_mesh, parameter.placements, src_data_rank=None
    )


def copy_into(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """`load_state_dict` for a model in shards or whole, from weights in shards or whole."""
    present = model.state_dict()
    model.load_state_dict(
        {name: shard_like(present[name], value) if name in present else value for name, value in weights.items()}
    )
