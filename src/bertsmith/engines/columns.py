"""Attention of float32 vectors on a CPU, compiled for this processor by numba.

torch's kernel loses time on lengths that are no multiple of 16 and on small heads: it takes 1.3 to 1.5 times as long as
this one from length 25 on, three quarters of it at 16 (benchmarks/kernels.py). Here the numbers of a vector register
belong to as many queries, so that maxima and sums of a softmax need no step across a register:

    Sᵀ = K Qᵀ / √d        [keys, queries]      four keys and four numbers of a head at a time
    Pᵀ = exp(Sᵀ - max)    the maximum and the sum of each column
    Oᵀ = Vᵀ Pᵀ / sum      [head_size, queries]

softmax(Q Kᵀ / √d) V, Vaswani et al. 2017, equation 1. Not here: which inputs come here (`engines.attention`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bertsmith.engines.rows import Rows, compiled

_f, _u = np.float32, np.uintp
STRIP, FAR = 16, 64
"""Rows that are turned together where their numbers come to stand further apart than this: in the cache they would
throw each other out."""

_LN2_HIGH, _LN2_LOW = _f(0.693359375), _f(-2.12194440e-4)


@compiled
def _exp(x: Any) -> Any:
    """e to the power of x <= 0: 2^n e^r with |r| < 0.35, e^r by the polynomial of Cephes' `expf`."""
    x = max(x, _f(-87))
    n = np.floor(x * _f(1.44269504) + _f(0.5))
    r = x - n * _LN2_HIGH - n * _LN2_LOW
    y = _f(1.9875691500e-4) * r + _f(1.3981999507e-3)
    y = y * r + _f(8.3334519073e-3)
    y = y * r + _f(4.1665795894e-2)
    y = y * r + _f(1.6666665459e-1)
    y = y * r + _f(5.0000001201e-1)
    y = y * r * r + r + _f(1)
    power = np.int32((np.int32(n) + np.int32(127)) << np.int32(23))
    return y * power.view(np.float32)


def _for_width(width: int) -> Callable[..., None]:
    """Attention of at most `width` queries of one head over all keys of their sequence.

    The width is a constant of the compiled code: with a variable one LLVM cannot tell that the rows of a scratch array
    do not overlap. Indices are unsigned, because numba looks at signed ones for negative numbers.
    """
    one, two, three = _u(width), _u(2 * width), _u(3 * width)

    @compiled
    def add_product(found: Rows, at: int, rows: Rows, start: int, down: int, right: int, values: Rows, of: int) -> None:
        """`found[at + r·width + i] += Σ rows[start + r · down + t · right] · values[of + t · width + i]`; r, t < 4"""
        s, d, e = _u(start), _u(down), _u(right)
        d2, d3, e2, e3 = d + d, d + d + d, e + e, e + e + e
        a00, a01, a02, a03 = rows[s], rows[s + e], rows[s + e2], rows[s + e3]
        a10, a11, a12, a13 = rows[s + d], rows[s + d + e], rows[s + d + e2], rows[s + d + e3]
        a20, a21, a22, a23 = rows[s + d2], rows[s + d2 + e], rows[s + d2 + e2], rows[s + d2 + e3]
        a30, a31, a32, a33 = rows[s + d3], rows[s + d3 + e], rows[s + d3 + e2], rows[s + d3 + e3]
        f, v = _u(at), _u(of)
        for number in range(width):
            i = _u(number)
            w, x, y, z = values[v + i], values[v + one + i], values[v + two + i], values[v + three + i]
            found[f + i] += a00 * w + a01 * x + a02 * y + a03 * z
            found[f + one + i] += a10 * w + a11 * x + a12 * y + a13 * z
            found[f + two + i] += a20 * w + a21 * x + a22 * y + a23 * z
            found[f + three + i] += a30 * w + a31 * x + a32 * y + a33 * z

    @compiled
    def turn(rows: Rows, found: Rows, scale: Any) -> None:
        """`rows` `[count, size]` -> `found` `[size · width]`, times `scale`."""
        for first in range(0, len(rows), STRIP):
            last = min(first + STRIP, len(rows))
            if width > FAR:
                for c in range(rows.shape[1]):
                    for i in range(first, last):
                        found[_u(c) * one + _u(i)] = rows[_u(i), _u(c)] * scale
            else:
                for i in range(first, last):
                    row = rows[i]
                    for c in range(len(row)):
                        found[_u(c) * one + _u(i)] = row[c] * scale

    @compiled
    def turn_back(columns: Rows, total: Rows, found: Rows) -> None:
        """`columns` `[size · width]` -> `found` `[count, size]`, divided by `total` `[width]`."""
        for i in range(width):
            total[i] = _f(1) / total[i]
        for first in range(0, len(found), STRIP):
            last = min(first + STRIP, len(found))
            if width > FAR:
                for c in range(found.shape[1]):
                    for i in range(first, last):
                        found[_u(i), _u(c)] = columns[_u(c) * one + _u(i)] * total[_u(i)]
            else:
                for i in range(first, last):
                    row, share = found[i], total[i]
                    for c in range(len(row)):
                        row[c] = columns[_u(c) * one + _u(i)] * share

    @compiled
    def attend_head(query: Rows, keys: Rows, values: Rows, length: int, scale: Any, scratch: Rows, found: Rows) -> None:
        """`query` `[at most width, size]`, `keys` and `values` `[length up to a multiple of four · size]`, zeros after
        the last one, `found` `[queries, value_size]`; `scratch` holds `(2 · sizes + keys + 2) · width` numbers."""
        count, size, value_size, rounded = len(query), query.shape[1], found.shape[1], -(-length // 4) * 4
        turned, scratch = scratch[: size * width], scratch[size * width :]
        scores, scratch = scratch[: rounded * width], scratch[rounded * width :]
        output, scratch = scratch[: value_size * width], scratch[value_size * width :]
        top, total = scratch[:width], scratch[width : 2 * width]
        for i in range(size * width if count < width else 0):
            turned[i] = 0
        turn(query, turned, scale)
        for i in range(rounded * width):
            scores[i] = 0
        for j in range(0, rounded, 4):
            for c in range(0, size, 4):
                add_product(scores, j * width, keys, j * size + c, size, 1, turned, c * width)
        for i in range(width):
            top[i], total[i] = scores[i], 0
        for j in range(1, length):
            row = scores[j * width : j * width + width]
            for i in range(width):
                top[i] = max(top[i], row[i])
        for j in range(length):
            row = scores[j * width : j * width + width]
            for i in range(width):
                row[i] = _exp(row[i] - top[i])
                total[i] += row[i]
        for i in range(length * width, rounded * width):
            scores[i] = 0
        for i in range(value_size * width):
            output[i] = 0
        for c in range(0, value_size, 4):
            for j in range(0, rounded, 4):
                add_product(output, c * width, values, j * value_size + c, 1, value_size, scores, j * width)
        turn_back(output, total, found)

    return attend_head


_attend_16, _attend_32, _attend_64, _attend_128 = (_for_width(width) for width in (16, 32, 64, 128))


@compiled
def attend(query: Rows, key: Rows, value: Rows, bounds: Rows, scale: Any, found: Rows) -> None:
    """`query`, `key` `[total, heads, size]`, `value` and `found` `[total, heads, value_size]`, sizes multiples of four;
    `bounds` `[sequences + 1]`; `scale` is 1 / √size."""
    size, value_size = query.shape[2], value.shape[2]
    longest = 0
    for s in range(len(bounds) - 1):
        longest = max(longest, bounds[s + 1] - bounds[s])
    keys = np.empty((longest + 3) * size, np.float32)
    values = np.empty((longest + 3) * value_size, np.float32)
    memory = np.empty((size + value_size + longest + 6) * 128, np.float32)
    scratch = memory[
        -(memory.ctypes.data // 4) % 16 :
    ]  # a register's load that crosses cache lines takes twice as long
    for s in range(len(bounds) - 1):
        start, end = bounds[s], bounds[s + 1]
        length = end - start
        for head in range(query.shape[1]):
            _copy(key[start:end, head], keys)
            _copy(value[start:end, head], values)
            done = start
            while done < end:
                left = end - done
                width = 16 if left <= 16 else 32 if left <= 32 else 64 if left <= 64 else 128
                until = min(done + width, end)
                asked, told = query[done:until, head], found[done:until, head]
                if width == 16:
                    _attend_16(asked, keys, values, length, scale, scratch, told)
                elif width == 32:
                    _attend_32(asked, keys, values, length, scale, scratch, told)
                elif width == 64:
                    _attend_64(asked, keys, values, length, scale, scratch, told)
                else:
                    _attend_128(asked, keys, values, length, scale, scratch, told)
                done = until


@compiled
def _copy(rows: Rows, found: Rows) -> None:
    """Rows one after the other, and zeros up to a multiple of four rows."""
    size = rows.shape[1]
    for j in range(len(rows)):
        row, target = rows[j], found[j * size : j * size + size]
        for c in range(size):
            target[c] = row[c]
    for i in range(len(rows) * size, -(-len(rows) // 4) * 4 * size):
        found[i] = 0
