"""The machine: device, threads, versions, and the speed of its matrix products.

Not here: any choice that depends on a model or a task.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from bertsmith.config.inference import DoctorOptions
from bertsmith.config.training import Precision
from bertsmith.errors import InputError

PEAK_SIZES = (1024, 2048, 4096)
"""Edges of the square products whose best rate counts as the machine's peak."""

PEAK_SECONDS = 0.5
"""How long each size runs; its fastest repetition counts."""

PROBE_SIZE, PROBE_ROUNDS, PROBE_SECONDS = 1024, 4, 0.08
"""Edge of the square products that compare two types, how often each type has its turn, and how long that is."""

FEW_TOKENS = 128
"""So few tokens are computed by one thread where waking others for each product takes longer than it saves."""

WORTH_ROUNDING = 1.5
"""How many times faster bfloat16 must multiply than float32 to be chosen."""

MINIMUM_FREE_BYTES = 5_000_000_000

_PACKAGES = ("torch", "tokenizers", "safetensors", "huggingface-hub", "numpy", "pyarrow", "pydantic", "tyro")


def usable_cores() -> int:
    """Number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_threads(threads: int | None) -> int:
    """Let torch use `threads` threads (default: what it chose itself); returns the number in force."""
    if threads is not None:
        torch.set_num_threads(threads)
    return torch.get_num_threads()


@contextmanager
def threads_for(tokens: int, device: torch.device) -> Iterator[None]:
    """Within it, torch has one thread if at most `FEW_TOKENS` tokens are computed at a time, on a CPU whose threads
    sleep between products (`OMP_WAIT_POLICY=PASSIVE`, as the command line sets it)."""
    threads = torch.get_num_threads()
    sleeps = os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE"
    if device.type != "cpu" or threads == 1 or tokens > FEW_TOKENS or not sleeps:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def choose_device(name: str = "auto") -> torch.device:
    """`auto` is CUDA if there is one, else the CPU. Raises `InputError` for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise InputError(f"{name!r} is none of auto, cpu, cuda, cuda:N", field="--device")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InputError("this torch finds no CUDA device; use cpu", field="--device")
    return torch.device(name)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given; nothing to wait for on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_peak(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """Floating-point operations per second of the best square matrix product, of sizes `PEAK_SIZES`.

    On a CPU by the faster of torch's two libraries. Measured once per process, device, type and number of threads.
    """
    return _measured_peak(str(device), dtype, torch.get_num_threads())


def keep_memory() -> None:
    """From now on, memory that torch frees stays with this process (glibc only; elsewhere nothing happens).

    A training step frees and asks for the same large blocks again and again. Left alone, glibc gives each back to the
    system, which hands out fresh pages, zeroed, at the next step: about a tenth of a small model's step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        trim_threshold, most_mapped_blocks = -1, -4  # glibc's malloc.h: M_TRIM_THRESHOLD, M_MMAP_MAX
        mallopt(most_mapped_blocks, 0)
        mallopt(trim_threshold, 2**31 - 1)


@contextmanager
def products_in(dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Within it, matrix products are computed in `dtype`: float32, or bfloat16 with float32 sums.

    On a CPU also those of float32 tensors are, which autocast leaves as they are; their results stay float32. This
    setting is the whole process's, as torch has it.
    """
    if dtype == torch.float32:
        yield
        return
    matmul: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]  # made when torch is loaded
    before = matmul.fp32_precision
    with torch.autocast(device.type, dtype):
        if device.type == "cpu":
            matmul.fp32_precision = "bf16"
        try:
            yield
        finally:
            matmul.fp32_precision = before


@functools.lru_cache
def _measured_peak(device: str, dtype: torch.dtype, _threads: int) -> float:
    return max(_best_rate(torch.device(device), dtype, size=size, seconds=PEAK_SECONDS) for size in PEAK_SIZES)


def _best_rate(place: torch.device, dtype: torch.dtype, *, size: int, seconds: float) -> float:
    """Operations per second of the fastest square product among those that `seconds` allow."""
    own = torch.Generator().manual_seed(0)  # the caller's random state stays as it is
    left, right = (torch.randn(size, size, generator=own).to(place, dtype) for _ in range(2))
    out, best = torch.empty_like(left), 0.0
    onednn = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if place.type == "cpu" else None
    products: list[Callable[[], torch.Tensor]] = [lambda: torch.mm(left, right, out=out)]
    if onednn is not None:
        products.append(lambda: onednn(left, right, None, "none", [], ""))
    for product in products:
        product()
        started = time.perf_counter()
        while time.perf_counter() - started < seconds / len(products):
            synchronize(place)
            before = time.perf_counter()
            product()
            synchronize(place)
            best = max(best, 2 * size**3 / (time.perf_counter() - before))
    return best


def fastest_precision(device: torch.device) -> Precision:
    """bfloat16 if the device multiplies it at least `WORTH_ROUNDING` times as fast as float32.

    Processors without units for it take several times longer than for float32, so it is measured, for half a second; in
    turns, because another process may take the cores for a moment.
    """
    rates = dict.fromkeys((torch.float32, torch.bfloat16), 0.0)
    for _ in range(PROBE_ROUNDS):
        for dtype, best in rates.items():
            rates[dtype] = max(best, _best_rate(device, dtype, size=PROBE_SIZE, seconds=PROBE_SECONDS))
    return "bfloat16" if rates[torch.bfloat16] >= WORTH_ROUNDING * rates[torch.float32] else "float32"


def machine() -> dict[str, Any]:
    """What ran the work: processor, cores, threads, device."""
    return {
        "system": platform.system(),
        "processor": _processor_name(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu",
    }


def versions() -> dict[str, str]:
    """Versions of Python, bertsmith and what it computes with."""
    found = {"python": platform.python_version()}
    for package in ("bertsmith", *_PACKAGES):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "missing"
    return found


def doctor(_options: DoctorOptions | None = None) -> dict[str, Any]:
    """What the machine offers, and `problems`: a list of sentences that each end in the fix."""
    threads = torch.get_num_threads()
    found: dict[str, Any] = {
        **machine(),
        "memory_gb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9,
        "matrix_peak_gflops": measure_peak(choose_device()) / 1e9,
        "offline": bool(os.environ.get("HF_HUB_OFFLINE")),
        "hf_home": os.environ.get("HF_HOME", "~/.cache/huggingface"),
        "versions": versions(),
    }
    problems = [
        f"{name} is not installed; pip install {name}"
        for name, version in found["versions"].items()
        if version == "missing"
    ]
    if threads > usable_cores():
        problems.append(f"torch uses {threads} threads on {usable_cores()} cores; give --threads {usable_cores()}")
    free = shutil.disk_usage(Path.cwd()).free
    if free < MINIMUM_FREE_BYTES:
        problems.append(f"only {free / 1e9:.1f} GB are free on this disk; a base-size run writes several")
    return found | {"free_disk_gb": free / 1e9, "problems": problems}


def _processor_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
