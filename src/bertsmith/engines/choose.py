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
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError

from bertsmith.engines.attention import has_numba
from bertsmith.engines.swap import MAX_LOSS, loss_of, probe_batch, to_bfloat16, to_int8, to_packed, to_packed_writer
from bertsmith.errors import InputError
from bertsmith.files import to_json, write_file
from bertsmith.models.encoder import Encoder
from bertsmith.models.seq2seq import CausalLM, Seq2Seq
from bertsmith.nn.linear import onednn_is_faster
from bertsmith.runtime import machine, versions

log = logging.getLogger("bertsmith")

ENGINES = ("torch", "bf16", "int8", "auto")
"""What `--engine` may be; "onnx" too, which needs what stands above (`export.encoder`)."""

WORTH_ROUNDING = 1.2
"""How many times faster than float32 an engine must be to be chosen."""

ROUNDS = 3
"""How often each engine has its turn; its fastest round counts."""


@dataclass(frozen=True)
class Measured:
    """An engine beside float32 on the probe."""

    engine: str
    speed_up: float
    """Its tokens per second divided by those of float32."""
    loss: float
    """Mean of 1 - cosine over the tokens' last vectors."""
    largest_difference: float
    """Of any number of a vector."""

    @property
    def pays_off(self) -> bool:
        """Whether it is worth its rounding."""
        return self.speed_up >= WORTH_ROUNDING and self.loss <= MAX_LOSS

    def __str__(self) -> str:
        quality = f"largest difference {self.largest_difference:.2g}, mean 1 - cosine {self.loss:.2g}"
        if self.loss > MAX_LOSS:
            return f"{self.engine} changes too much ({quality}; limit {MAX_LOSS})"
        if self.pays_off:
            return f"{self.engine} is {self.speed_up:.1f}x faster here, {quality}"
        return f"{self.engine} is {'no' if self.speed_up < 1 else 'hardly'} faster here ({self.speed_up:.1f}x)"


FLOAT32 = Measured("torch", 1.0, 0.0, 0.0)


def chosen(measured: Sequence[Measured]) -> str:
    """The fastest engine that pays off, else torch."""
    return max((m for m in measured if m.pays_off), key=lambda m: m.speed_up, default=FLOAT32).engine


def use(encoder: Encoder, engine: str, *, weights: Path | None = None) -> str:
    """Make `encoder` ready to answer by `engine` of `ENGINES`; returns the one in use: `torch`, `bf16` or `int8`.

    `weights`: the file that it was read from, by which a measurement is remembered. Raises `InputError` for an engine
    that is not there.
    """
    if engine not in ENGINES:
        raise InputError(f"{engine!r} is none of {', '.join(ENGINES)}, onnx", field="--engine")
    device = encoder.embeddings.tokens.weight.device
    lack_of = {"bf16": lack_of_bfloat16, "int8": lack_of_int8}
    if engine in lack_of and (lack := lack_of[engine](device)):
        raise InputError(f"{engine} is not there: {lack}", field="--engine")
    if engine == "auto":
        lacks = {name: look(device) for name, look in lack_of.items()}
        there = tuple(name for name, lack in lacks.items() if lack is None)
        measured = remembered(encoder, there, weights)
        engine = chosen(measured)
        log.info("%s: using %s", "; ".join([*map(str, measured), *filter(None, lacks.values())]), engine)
    make_ready(encoder, engine)
    return engine


def make_ready(encoder: Encoder, engine: str) -> None:
    """Give `encoder` the layers of `torch`, `bf16` or `int8`."""
    if engine == "int8":
        to_int8(encoder)
    elif engine == "bf16":
        to_bfloat16(encoder)
    elif encoder.embeddings.tokens.weight.device.type == "cpu" and onednn_is_faster():
        to_packed(encoder)


def make_writer_ready(model: CausalLM | Seq2Seq, engine: str = "torch") -> None:
    """The same for a model that writes. Raises `InputError` for an engine that it does not have."""
    if engine not in ("torch", "auto"):
        raise InputError(f"a model that writes has torch alone, not {engine}", field="--engine")
    if model.device.type == "cpu" and onednn_is_faster():
        to_packed_writer(model)


def lack_of_int8(device: torch.device) -> str | None:
    """What int8 lacks, and what to do: a processor that multiplies bytes and sums them exactly (VNNI), torch's product,
    the extra `int8`. None: nothing."""
    if device.type != "cpu":
        return "int8 is for processors, and the model is on a GPU; use bf16"
    if not (hasattr(torch.ops.onednn, "qlinear_pointwise") and torch.cpu._is_vnni_supported()):
        return "int8 needs 8-bit products, and this processor has none; use torch"
    return None if has_numba() else 'int8 needs a numba that works here: pip install "bertsmith[int8]"'


def lack_of_bfloat16(device: torch.device) -> str | None:
    """The same for products of bfloat16, which are slower than float32's where they are not built in."""
    has = torch.cpu._is_avx512_bf16_supported() if device.type == "cpu" else torch.cuda.is_bf16_supported()
    return None if has else "bf16 needs products of bfloat16, and this device has none; use torch"


def _measurements(cache: Path) -> dict[str, list[Measured]]:
    """What `cache` holds, by its keys; nothing where it is damaged, which the next measurement mends."""
    try:
        return TypeAdapter(dict[str, list[Measured]]).validate_json(cache.read_bytes(), strict=True)
    except ValidationError:
        return {}


def remembered(encoder: Encoder, engines: Sequence[str], weights: Path | None) -> list[Measured]:
    """The measurement of this model with these threads on this machine, made now if there is none."""
    if weights is None:
        return measure(encoder, engines)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bertsmith" / "engines.json"
    status = weights.stat()
    about = [str(weights.resolve()), status.st_size, status.st_mtime_ns, machine(), versions(), list(engines)]
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    try:
        kept = _measurements(cache)
    except OSError:
        kept = {}
    if key in kept and [each.engine for each in kept[key]] == list(engines):
        return kept[key]
    measured = measure(encoder, engines)
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        known = {name: [asdict(each) for each in found] for name, found in {**kept, key: measured}.items()}
        write_file(cache, to_json(known))
    except (OSError, ValueError) as error:  # no room, or NaN, which JSON has not
        log.warning("%s: the measurement of engines could not be kept: %s", cache, error)
    return measured


@torch.inference_mode()
def measure(encoder: Encoder, engines: Sequence[str]) -> list[Measured]:
    """Run the probe by float32 and each of `engines` in turn."""
    device = encoder.embeddings.tokens.weight.device
    batch = probe_batch(encoder.config.vocab_size, longest=encoder.config.max_position_embeddings).to(device)
    sides = {name: copy.deepcopy(encoder) for name in (FLOAT32.engine, *engines)}
    best = dict.fromkeys(sides, float("inf"))
    for name, side in sides.items():
        make_ready(side, name)
    for _ in range(ROUNDS):
        for name, side in sides.items():
            start = time.perf_counter()
            side(batch).sum().item()  # a GPU's answer is waited for
            best[name] = min(best[name], time.perf_counter() - start)
    answers = {name: side(batch) for name, side in sides.items()}
    expected = answers[FLOAT32.engine]
    return [
        Measured(
            engine=name,
            speed_up=best[FLOAT32.engine] / best[name],
            loss=loss_of(expected, answers[name]),
            largest_difference=float((expected - answers[name]).abs().max()),
        )
        for name in engines
    ]
