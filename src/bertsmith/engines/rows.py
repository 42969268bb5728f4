"""What int8 does between two products, compiled for this processor by numba: one pass over each row, in the cache.

torch needs a pass over the memory for each of a dozen steps; beside products in int8 they were two thirds of the time.
Every function takes C-contiguous float32 arrays unless it says otherwise, and lets other threads run. The numbers are
those of real arithmetic within float32's rounding.

Not here: the products themselves, and when to use them (`engines.int8`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

import numba
import numpy as np

Rows = np.ndarray[Any, Any]
_Function = TypeVar("_Function", bound=Callable[..., Any])

TOGETHER = 3
"""Columns that stay float32 are added so many at a time; their number is a multiple of it."""

ACTIVATION_CODES = {
    "gelu": 1,
    "gelu_python": 1,
    "gelu_new": 2,
    "gelu_fast": 2,
    "gelu_pytorch_tanh": 2,
    "relu": 3,
    "silu": 4,
    "swish": 4,
    "quick_gelu": 5,
    "tanh": 6,
}
"""`hidden_act` -> the number by which `finish_activated` knows it."""

_f = np.float32
_HALF, _ONE, _TINY = _f(0.5), _f(1), _f(1e-30)
_STEPS = _f(255)
_FEW = 32


def compiled(function: _Function, *, sums_in_any_order: bool = False) -> _Function:
    """Vectorised; kept on disk, so that only the first process waits for it.

    A function that others call is compiled again with each of them, and which code runs differs between the process
    that compiled it and those after it. So nothing may depend on how LLVM arranges sums, unless `sums_in_any_order`.
    """
    loose = {"contract", "nsz", "nnan"} | ({"reassoc"} if sums_in_any_order else set())
    make = partial(numba.njit, nogil=True, fastmath=loose, error_model="numpy", boundscheck=False)
    try:
        return cast(_Function, make(cache=True)(function))
    except RuntimeError:  # no folder to keep it in: neither this one nor the user's can be written
        return cast(_Function, make()(function))


@compiled
def _quantise_row(values: Rows, outliers: Rows, scratch: Rows, apart: Rows, found: Rows) -> Any:
    for k in range(len(outliers)):
        apart[k] = values[outliers[k]]
        values[outliers[k]] = 0
    low, high = _range(values, scratch[0], scratch[1])
    spread = max(high - low, _TINY)
    apart[len(outliers)] = low
    steps = _STEPS / spread
    for j in range(len(values)):
        found[j] = np.uint8(np.int32((values[j] - low) * steps + _HALF))
    return spread / _STEPS


@compiled
def _range(values: Rows, lows: Rows, highs: Rows) -> Any:
    """Smallest and largest value: halves of the row play against each other, because LLVM vectorises that alone."""
    count = len(values)
    half = (count + 1) // 2
    first, second = values[: count - half], values[half:]
    lows[half - 1] = highs[half - 1] = values[half - 1]
    for j in range(count - half):
        lows[j], highs[j] = min(first[j], second[j]), max(first[j], second[j])
    while half > _FEW:
        count, half = half, (half + 1) // 2
        low, lower, high, higher = lows[: count - half], lows[half:count], highs[: count - half], highs[half:count]
        for j in range(count - half):
            low[j], high[j] = min(low[j], lower[j]), max(high[j], higher[j])
    smallest, largest = lows[0], highs[0]
    for j in range(half):
        smallest, largest = min(smallest, lows[j]), max(largest, highs[j])
    return smallest, largest


@compiled
def quantise(values: Rows, outliers: Rows, found: Rows, scales: Rows, apart: Rows) -> None:
    """`values` `[rows, size]` -> `found` uint8 `[rows, size]`, `scales` `[rows]` and `apart` `[rows, k]`.

    A value is `scales[i]` times its byte plus the row's lowest value. `apart` takes the columns `outliers` int64
    `[at most k - 1]`, which count as 0 in their row, and after them that lowest value.
    """
    row, scratch = np.empty(values.shape[1], np.float32), np.empty((2, values.shape[1]), np.float32)
    for i in range(len(values)):
        given = values[i]
        for j in range(len(given)):
            row[j] = given[j]
        scales[i] = _quantise_row(row, outliers, scratch, apart[i], found[i])


@compiled
def _finish_row(product: Rows, scale: Any, apart: Rows, columns: Rows, bias: Rows, found: Rows) -> None:
    for j in range(len(product)):
        found[j] = product[j] * scale + bias[j]
    for k in range(0, len(columns), 3):
        a, b, c = apart[k], apart[k + 1], apart[k + 2]
        first, second, third = columns[k], columns[k + 1], columns[k + 2]
        for j in range(len(product)):
            found[j] += a * first[j] + b * second[j] + c * third[j]


@compiled
def finish(product: Rows, scales: Rows, apart: Rows, columns: Rows, bias: Rows, found: Rows) -> None:
    """`found` `[rows, out]`: `product · scales + apart @ columns + bias`; `columns` is `[k, out]`."""
    for i in range(len(product)):
        _finish_row(product[i], scales[i], apart[i], columns, bias, found[i])


@compiled
def finish_added(
    product: Rows, scales: Rows, apart: Rows, columns: Rows, bias: Rows, residual: Rows, found: Rows
) -> None:
    """`finish`, and `residual` `[rows, out]` added."""
    for i in range(len(product)):
        _finish_row(product[i], scales[i], apart[i], columns, bias, found[i])
        for j in range(product.shape[1]):
            found[i, j] += residual[i, j]


@compiled
def finish_activated(
    product: Rows,
    scales: Rows,
    apart: Rows,
    columns: Rows,
    bias: Rows,
    code: int,
    gated: bool,
    outliers: Rows,
    found: Rows,
    found_scales: Rows,
    found_apart: Rows,
) -> None:
    """`finish`, the activation `code` (`ACTIVATION_CODES`), and `quantise` for the next product.

    Gated, a row's first half is activated and multiplied by its second half, and `found` is half as wide.
    """
    row, size = np.empty(product.shape[1], np.float32), found.shape[1]
    scratch = np.empty((2, size), np.float32)
    for i in range(len(product)):
        _finish_row(product[i], scales[i], apart[i], columns, bias, row)
        values = row[:size]
        _activate_row(values, code)
        if gated:
            gate = row[size:]
            for j in range(size):
                values[j] *= gate[j]
        found_scales[i] = _quantise_row(values, outliers, scratch, found_apart[i], found[i])


@compiled
def _activate_row(values: Rows, code: int) -> None:
    if code == 1:
        for j in range(len(values)):
            values[j] = _HALF * values[j] * (_ONE + _erf(values[j] * _f(0.7071067811865476)))
    elif code == 2:
        for j in range(len(values)):
            x = values[j]
            values[j] = _HALF * x * (_ONE + _tanh(_f(0.7978845608028654) * (x + _f(0.044715) * x * x * x)))
    elif code == 3:
        for j in range(len(values)):
            values[j] = max(values[j], _f(0))
    elif code == 4:
        for j in range(len(values)):
            values[j] = _HALF * values[j] * (_ONE + _tanh(_HALF * values[j]))
    elif code == 5:
        for j in range(len(values)):
            values[j] = _HALF * values[j] * (_ONE + _tanh(_f(0.851) * values[j]))
    elif code == 6:
        for j in range(len(values)):
            values[j] = _tanh(values[j])


@compiled
def _erf(x: Any) -> Any:
    """The rational function of Eigen 3.3, `perf`: |error| < 4e-7."""
    x = min(max(x, _f(-4)), _f(4))
    y = x * x
    above = _f(-2.72614225801306e-10) * y + _f(2.77068142495902e-08)
    above = above * y + _f(-2.10102402082508e-06)
    above = above * y + _f(-5.69250639462346e-05)
    above = above * y + _f(-7.34990630326855e-04)
    above = above * y + _f(-2.95459980854025e-03)
    above = above * y + _f(-1.60960333262415e-02)
    below = _f(-1.45660718464996e-05) * y + _f(-2.13374055278905e-04)
    below = below * y + _f(-1.68282697438203e-03)
    below = below * y + _f(-7.37332916720468e-03)
    below = below * y + _f(-1.42647390514189e-02)
    return x * above / below


@compiled
def _tanh(x: Any) -> Any:
    """The rational function of Eigen 3.3, `ptanh`: |error| < 4e-7."""
    x = min(max(x, _f(-7.9)), _f(7.9))
    y = x * x
    above = _f(-2.76076847742355e-16) * y + _f(2.00018790482477e-13)
    above = above * y + _f(-8.60467152213735e-11)
    above = above * y + _f(5.12229709037114e-08)
    above = above * y + _f(1.48572235717979e-05)
    above = above * y + _f(6.37261928875436e-04)
    above = above * y + _f(4.89352455891786e-03)
    below = _f(1.19825839466702e-06) * y + _f(1.18534705686654e-04)
    below = below * y + _f(2.26843463243900e-03)
    below = below * y + _f(4.89352518554385e-03)
    return x * above / below
