"""`prepare --engine ray`: reading and encoding as Ray Data tasks on many machines (the `[ray]` extra).

    files ─ read (a task per file, a stream of blocks) ─ encode (any task, anywhere) ─ in order to the driver

The functions are those of the local engine, so the shards are the same. Not here: what needs the blocks in order.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from functools import lru_cache
from typing import Any

from bertsmith.config.prepare import PrepareOptions
from bertsmith.data.blocks import file_blocks
from bertsmith.data.encode import BlockEncoder, Encoded, EncoderSettings
from bertsmith.errors import InputError, RunError, import_extra

RAY_BLOCK_BYTES = 8_000_000
"""Ray's own blocks, the unit of its tasks, are about so large."""


def encode_on_ray(options: PrepareOptions, settings: EncoderSettings, *, start: tuple[int, int]) -> Generator[Encoded]:
    """The encoded blocks of all files, from `start` = (file, piece) on, in order.

    Uses the running cluster (`RAY_ADDRESS`, or one on this machine), else one of `--threads` processes here.
    Raises `InputError` without the extra, and for bad text wherever it was read.
    """
    ray = import_extra("ray", extra="ray", field="--engine")
    import_extra("ray.data", extra="ray", field="--engine")
    ours = not ray.is_initialized()
    if ours:
        _connect(ray, options.threads)
    try:
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        context.target_max_block_size = RAY_BLOCK_BYTES
        config = settings.to_json()

        def read(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
            try:
                yield from ({"block": block, "error": ""} for block in file_blocks(options, row["file"], start))
            except InputError as error:  # as a row: Ray would wrap it, and try again
                yield {"block": b"", "error": str(error)}

        def encode(row: dict[str, Any]) -> dict[str, Any]:
            return row if row["error"] else {"block": _encoder(config)(row["block"]), "error": ""}

        numbers = range(start[0], len(options.files))
        rows = ray.data.from_items([{"file": number} for number in numbers], override_num_blocks=len(numbers))
        # No CPU for the readers: they are light, and otherwise one would be fused with the encoder of its file.
        encoded = rows.flat_map(read, num_cpus=0).map(encode, num_cpus=1)
        for row in encoded.iter_rows():
            if row["error"]:
                raise InputError(row["error"])
            yield Encoded.from_bytes(row["block"])
    except ray.exceptions.RayError as error:
        raise RunError(f"Ray: {str(error).strip().splitlines()[-1]}") from error
    finally:
        if ours:
            ray.shutdown()


def _connect(ray: Any, threads: int | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": "warning"}
    try:
        ray.init(address="auto", **quiet)
    except ConnectionError:
        ray.init(address="local", num_cpus=threads, include_dashboard=False, **quiet)


@lru_cache(maxsize=2)
def _encoder(config: str) -> BlockEncoder:
    return BlockEncoder(EncoderSettings(**json.loads(config)))
