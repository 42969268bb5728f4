"""Which engine answers: what the user named, or what a short measurement of this model on this machine prefers.

The measurement is remembered in `engines.json` of the cache directory (`$XDG_CACHE_HOME/bertsmith`).
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from bertsmith.engines.attention import has_numba
from bertsmith.engines.swap import probe_batch, to_int8, to_packed
from bertsmith.errors import InputError
from bertsmith.files import to_json, write_file
from bertsmith.models.encoder import Encoder
from bertsmith.nn.linear import onednn_is_faster
from bertsmith.runtime import machine, versions

log = logging.getLogger("bertsmith")

ENGINES = ("torch", "int8", "auto")
"""What `--engine` may be; "onnx" too, which needs what stands above (`export.encoder`)."""

WORTH_ROUNDING = 1.2
"""How many times faster int8 must be to be chosen."""

MAX_LOSS = 0.005
"""Largest mean of 1 - cosine, of the probe's vectors in int8 against float32, with which int8 is chosen."""

ROUNDS = 3
"""How often each engine has its turn; its fastest round counts."""


@dataclass(frozen=True)
class Measured:
    """int8 beside float32 on the probe."""

    speed_up: float
    """Tokens per second of int8 divided by those of float32."""
    loss: float
    """Mean of 1 - cosine over the tokens' last vectors."""
    largest_difference: float
    """Of any number of a vector."""

    @property
    def choice(self) -> str:
        """The engine to use."""
        return "int8" if self.speed_up >= WORTH_ROUNDING and self.loss <= MAX_LOSS else "torch"

    def __str__(self) -> str:
        quality = f"largest difference {self.largest_difference:.2g}, mean 1 - cosine {self.loss:.2g}"
        if self.choice == "int8":
            return f"int8 is {self.speed_up:.1f}x faster here, {quality}: using int8"
        if self.loss > MAX_LOSS:
            return f"int8 changes too much ({quality}; limit {MAX_LOSS}): keeping float32"
        return f"int8 is {'no' if self.speed_up < 1 else 'hardly'} faster here ({self.speed_up:.1f}x): keeping float32"


def use(encoder: Encoder, engine: str, *, weights: Path | None = None) -> str:
    """Make `encoder` ready to answer by `engine` of `ENGINES`; returns the one in use, `torch` or `int8`.

    `weights`: the file that it was read from, by which a measurement is remembered. On a GPU there is only `torch`.
    Raises `InputError` for an engine that is not there.
    """
    if engine not in ENGINES:
        raise InputError(f"{engine!r} is none of {', '.join(ENGINES)}, onnx", field="--engine")
    is_cpu = encoder.embeddings.tokens.weight.device.type == "cpu"
    lack = lack_of_int8() if is_cpu else "it is for processors; the model is on a GPU; use torch"
    if engine == "int8" and lack:
        raise InputError(f"int8 is not there: {lack}", field="--engine")
    if engine == "auto":
        measured = None if lack else remembered(encoder, weights)
        engine = measured.choice if measured else "torch"
        log.info("%s", measured or f"keeping float32: int8 is not there ({lack})")
    if engine == "int8":
        to_int8(encoder)
    elif is_cpu and onednn_is_faster():
        to_packed(encoder)
    return engine


def lack_of_int8() -> str | None:
    """What int8 lacks on this processor, and what to do: a processor that multiplies bytes and sums them exactly
    (VNNI), torch's product, the extra `int8`. None: nothing."""
    if not (hasattr(torch.ops.onednn, "qlinear_pointwise") and torch.cpu._is_vnni_supported()):
        return "it needs 8-bit products, and this processor has none; use torch"
    return None if has_numba() else 'it needs numba: pip install "bertsmith[int8]"'


def remembered(encoder: Encoder, weights: Path | None) -> Measured:
    """The measurement of this model with these threads on this machine, made now if there is none."""
    if weights is None:
        return measure(encoder)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bertsmith" / "engines.json"
    status = weights.stat()
    about = [str(weights.resolve()), status.st_size, status.st_mtime_ns, machine(), versions()]
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    try:
        known = json.loads(cache.read_text(encoding="utf-8"))
        return Measured(**known[key])
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or a file that is not ours to understand
        measured = measure(encoder)
    try:
        known = json.loads(cache.read_text(encoding="utf-8")) if cache.is_file() else {}
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_file(cache, to_json({**known, key: asdict(measured)}))
    except (OSError, ValueError, TypeError) as error:
        log.warning("%s: the measurement of engines could not be kept: %s", cache, error)
    return measured


@torch.inference_mode()
def measure(encoder: Encoder) -> Measured:
    """Run the probe by each engine in turn."""
    batch = probe_batch(encoder.config.vocab_size, longest=encoder.config.max_position_embeddings)
    exact, rounded = copy.deepcopy(encoder), copy.deepcopy(encoder)
    if onednn_is_faster():
        to_packed(exact)
    to_int8(rounded)
    best = [float("inf")] * 2
    for _ in range(ROUNDS):
        for i, candidate in enumerate((exact, rounded)):
            start = time.perf_counter()
            candidate(batch)
            best[i] = min(best[i], time.perf_counter() - start)
    expected, found = exact(batch), rounded(batch)
    return Measured(
        speed_up=best[0] / best[1],
        loss=float((1 - F.cosine_similarity(expected, found, dim=1)).mean()),
        largest_difference=float((expected - found).abs().max()),
    )
