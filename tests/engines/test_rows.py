"""The compiled passes over rows against torch, number by number."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import torch

from bertsmith.engines import rows
from bertsmith.nn.feedforward import ACTIVATION_FUNCTIONS

DRAW = np.random.default_rng(0)
SIZES = [1, 2, 7, 31, 32, 33, 100, 384]


def drawn(*shape: int) -> np.ndarray:
    return DRAW.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("size", SIZES)
def test_bytes_are_the_nearest_of_256_steps(size: int) -> None:
    values, outliers = drawn(5, size), np.arange(size // 8, dtype=np.int64) * 3 % size
    values[1] = 3.5  # a constant row
    found, scales, apart = np.empty((5, size), np.uint8), np.empty(5, np.float32), np.zeros((5, 51), np.float32)
    rows.quantise(values, outliers, found, scales, apart)
    rest = values.copy()
    rest[:, outliers] = 0
    lows = apart[:, len(outliers)]
    np.testing.assert_array_equal(apart[:, : len(outliers)], values[:, outliers])
    np.testing.assert_array_equal(lows, rest.min(1))
    np.testing.assert_allclose(scales, (rest.max(1) - rest.min(1)) / 255, rtol=1e-6, atol=1e-30)
    np.testing.assert_allclose(found * scales[:, None] + lows[:, None], rest, rtol=0, atol=scales.max() * 0.501)
    assert size < 2 or found[0].max() == 255
    assert found[0].min() == 0


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("together", [3, 9])
def test_products_are_finished_with_what_was_apart(size: int, together: int) -> None:
    product, scales, apart, columns = drawn(4, size), drawn(4), drawn(4, together), drawn(together, size)
    bias, residual, found = drawn(size), drawn(4, size), np.empty((4, size), np.float32)
    expected = product * scales[:, None] + apart @ columns + bias
    rows.finish(product, scales, apart, columns, bias, found)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    rows.finish_added(product, scales, apart, columns, bias, residual, found)
    np.testing.assert_allclose(found, expected + residual, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("name", rows.ACTIVATION_CODES)
def test_activations_are_those_of_their_names(name: str, gated: bool) -> None:
    size = 2000
    product = np.linspace(-30, 30, size, dtype=np.float32)[None]
    if gated:
        product = np.concatenate([product, drawn(1, size)], axis=1)
    ones, nothing = np.ones(1, np.float32), np.zeros((1, 3), np.float32)
    columns, bias = np.zeros((3, product.shape[1]), np.float32), np.zeros(product.shape[1], np.float32)
    found, scales, apart = np.empty((1, size), np.uint8), np.empty(1, np.float32), np.zeros((1, size), np.float32)
    everything = np.arange(size - 1, dtype=np.int64)  # outliers stay float32: what was activated can be read
    code = rows.ACTIVATION_CODES[name]
    rows.finish_activated(product, ones, nothing, columns, bias, code, gated, everything, found, scales, apart)
    expected = ACTIVATION_FUNCTIONS[name](torch.from_numpy(product[:, :size]).double()).numpy()
    if gated:
        expected = expected * product[:, size:]
    allowed = 1e-6 * (1 + np.abs(product[0, :size] * (product[0, size:] if gated else 1)))
    assert (np.abs(apart[0] - expected[0]) <= allowed)[: size - 1].all()


def test_without_a_folder_for_it_code_is_compiled_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    real = numba.njit

    def nowhere(*arguments: Any, cache: bool = False, **options: Any) -> Any:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return real(*arguments, **options)

    monkeypatch.setattr(numba, "njit", nowhere)

    def doubled(values: np.ndarray) -> None:
        for i in range(len(values)):
            values[i] *= 2

    values = drawn(5)
    expected = values * 2
    rows.compiled(doubled)(values)
    np.testing.assert_array_equal(values, expected)


def test_the_least_and_the_largest_are_found_wherever_they_stand() -> None:
    for size in (5, 64, 65, 130):
        for place in range(size):
            values = drawn(1, size)
            values[0, place], values[0, (place + size // 2) % size] = 9.0, -9.0
            found, scales, apart = np.empty((1, size), np.uint8), np.empty(1, np.float32), np.zeros((1, 3), np.float32)
            rows.quantise(values, np.empty(0, np.int64), found, scales, apart)
            assert (apart[0, 0], found[0, place]) == (-9.0, 255)


def test_the_process_that_compiles_answers_like_those_after_it(tmp_path: Path) -> None:
    script = """
import hashlib
import numpy as np
from bertsmith.engines import rows, tiles
draw = np.random.default_rng(0)
values, product = draw.normal(size=(5000, 128)).astype("f4"), draw.normal(size=(5000, 256)).astype("f4")
outliers, columns, bias = np.array([3, 77]), draw.normal(size=(3, 256)).astype("f4"), draw.normal(size=256).astype("f4")
of = [np.zeros((5000, size), kind) for size, kind in ((128, "u1"), (256, "u1"), (256, "f4"))]
scales, apart, next_scales, next_apart = (np.zeros(shape, "f4") for shape in (5000, (5000, 3), 5000, (5000, 3)))
rows.quantise(values, outliers, of[0], scales, apart)
rows.finish(product, scales, apart, columns, bias, of[2])
rows.finish_activated(product, scales, apart, columns, bias, 1, False, outliers, of[1], next_scales, next_apart)
parts, told = draw.normal(size=(3, 1000, 4, 32)).astype("f4"), np.zeros((1000, 4, 32), "f4")
tiles.attend(*parts, np.array([0, 20, 333, 1000]), np.float32(0.2), 1000, told)
print([hashlib.sha256(found.tobytes()).hexdigest() for found in (*of, scales, apart, next_scales, next_apart, told)])
"""
    environment = {
        **os.environ,
        "NUMBA_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    command = [sys.executable, "-c", script]
    first, second = (subprocess.run(command, env=environment, check=True, capture_output=True).stdout for _ in range(2))
    assert first
    assert first == second
