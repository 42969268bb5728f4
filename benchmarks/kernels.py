"""The places where a CPU does not take torch's own path, against that path, A B A B.

- float32 products of linear layers, by oneDNN rather than MKL (`nn.linear`), where the processor has AVX-512 and is
  not Intel's; elsewhere both sides are the same.
- attention of many short sequences in bfloat16 (`nn.half_attention`) against `scaled_dot_product_attention`.
- attention of a model that only answers (`engines.tiles`) against the same, in float32.

The first two are forward and backward, the last is forward alone.

    python benchmarks/kernels.py [--quick] [--threads 2]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bertsmith.batch import Batch
from bertsmith.engines.attention import fast_attention
from bertsmith.nn.half_attention import Bucket, half_attention
from bertsmith.nn.linear import linear, onednn_is_faster
from bertsmith.runtime import products_in
from report import finish, row

LAYERS = ((4096, 256, 1024), (4096, 1024, 256), (614, 256, 30522), (4096, 768, 3072), (64, 768, 768))
"""Tokens, inputs, outputs."""

ATTENTIONS = ((32, 4, 128), (64, 4, 64), (32, 12, 128), (8, 12, 256), (8, 12, 512))
"""Sequences, heads of 64, length."""

ANSWERS = ((64, 12, 32, 16), (41, 12, 32, 25), (16, 12, 32, 64), (8, 12, 32, 128), (4, 12, 32, 256), (8, 12, 64, 128))
"""Sequences, heads, their size, length."""


def main() -> None:
    """Measure, print a table and one JSON line."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--quick", action="store_true", help="fewer repetitions")
    arguments.add_argument("--threads", type=int, default=2)
    chosen = arguments.parse_args()
    torch.set_num_threads(chosen.threads)
    rounds = 5 if chosen.quick else 21
    rows = []
    for tokens, inputs, outputs in LAYERS:
        values, weight = torch.randn(tokens, inputs), torch.randn(outputs, inputs)
        case = f"linear, float32, {tokens} tokens, {inputs} to {outputs}"
        peer = "torch (MKL)" + ("" if onednn_is_faster() else ", which is what we use here")
        rows.append(compare(case, peer, linear, F.linear, (values, weight), rounds=rounds))
    for sequences, heads, length in ATTENTIONS:
        parts = tuple(torch.randn(sequences * length, heads, 64).bfloat16() for _ in range(3))
        case = f"attention, bfloat16, {sequences} x {length} tokens, {heads} heads"
        ours = partial(half_attention, bucket=Bucket((length,) * sequences, 0))
        with products_in(torch.bfloat16, torch.device("cpu")), torch.autocast("cpu", enabled=False):
            rows.append(compare(case, "torch SDPA", ours, partial(sdpa, count=sequences), parts, rounds=rounds))
    for sequences, heads, size, length in ANSWERS:
        parts = tuple(torch.randn(sequences * length, heads, size) for _ in range(3))
        batch = Batch.from_sequences([np.zeros(length, np.int64)] * sequences)
        case = f"attention, float32, {sequences} x {length} tokens, {heads} heads of {size}, no gradients"
        ours = partial(fast_attention, batch=batch, dropout=0.0)
        with torch.inference_mode():
            rows.append(compare(case, "torch SDPA", ours, partial(sdpa, count=sequences), parts, rounds=5 * rounds))
    finish("kernels", rows)


def sdpa(*packed: Tensor, count: int) -> Tensor:
    """torch's kernel on `count` sequences of `[tokens, heads, size]`."""
    query, key, value = (part.unflatten(0, (count, -1)).transpose(1, 2) for part in packed)
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(0, 1)


def compare(
    case: str, peer: str, ours: Callable[..., Tensor], theirs: Callable[..., Tensor], inputs: Any, *, rounds: int
) -> dict[str, Any]:
    """Medians of forward, and backward where gradients are on, in milliseconds."""
    learns = torch.is_grad_enabled()
    leaves = [part.requires_grad_(learns) for part in inputs]
    given = torch.randn_like(theirs(*leaves))
    times: dict[Any, list[float]] = {ours: [], theirs: []}
    for _ in range(rounds):
        for function, measured in times.items():
            started = time.perf_counter()
            found = function(*leaves)
            if learns:
                found.backward(given)
            measured.append(1000 * (time.perf_counter() - started))
            for leaf in leaves:
                leaf.grad = None
    mine, other = (statistics.median(measured[1:]) for measured in times.values())
    return row(case, peer, mine, other, "ms, forward and backward" if learns else "ms", lower_is_better=True)


if __name__ == "__main__":
    main()
