"""Attention of float32 vectors on a CPU, compiled for this processor by numba.

Both products are made of tiles: a few rows times a few registers of columns, whose sums stay in registers while they
grow (Goto and van de Geijn 2008, "Anatomy of High-Performance Matrix Multiplication", sections 3 and 4). For each head
the keys are turned once; then, `ROWS` queries at a time, which leaves all numbers in the cache of the core:

    S = Q (Kᵀ / √d)        [queries, keys]
    P = exp(S - max)       the sum of each row beside
    O = P V / sum          [queries, head_size]

softmax(Q Kᵀ / √d) V, Vaswani et al. 2017, equation 1. Loops over registers are written in LLVM's language, because no
compiler finds them in loops over numbers. Not here: which inputs come here (`engines.attention`).
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import extending, types

from bertsmith.engines.rows import Rows, compiled


def registers() -> tuple[int, int, int]:
    """What this processor has room for: numbers of a register, and rows and registers of a tile.

    A tile, one row of columns and one number for a whole register are held at a time: of 32 registers 28, of 16 15.
    """
    if platform.machine().lower() in ("aarch64", "arm64"):
        return 4, 8, 3
    return (16, 8, 3) if binding.get_host_cpu_features().get("avx512f") else (8, 6, 2)


LANES, ROWS, WIDTH = registers()

_f, _u = np.float32, np.uintp
_NUMBER, _INDEX, _PLACE = ir.FloatType(), ir.IntType(64), ir.IntType(32)
_REGISTER, _PLACES = ir.VectorType(_NUMBER, LANES), ir.VectorType(_PLACE, LANES)
_CONTRACT = ("contract",)
_intrinsic: Callable[[Callable[..., Any]], Any] = extending.intrinsic


class _Code:
    """LLVM's instructions that move numbers between memory and registers; addresses and sizes are in bytes."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.builder = builder

    def at(self, address: ir.Value, step: ir.Value | int, times: ir.Value | int = 1) -> ir.Value:
        """`address + step · times`."""
        step, times = (_INDEX(part) if isinstance(part, int) else part for part in (step, times))
        return self.builder.add(address, self.builder.mul(step, times))

    def read(self, address: ir.Value) -> ir.Value:
        """A register of numbers that follow one another."""
        return self.builder.load(self.builder.inttoptr(address, _REGISTER.as_pointer()), align=4)

    def write(self, register: ir.Value, address: ir.Value) -> None:
        """The counterpart of `read`."""
        self.builder.store(register, self.builder.inttoptr(address, _REGISTER.as_pointer()), align=4)

    def number(self, address: ir.Value) -> ir.Value:
        """One number."""
        return self.builder.load(self.builder.inttoptr(address, _NUMBER.as_pointer()), align=4)

    def everywhere(self, number: ir.Value) -> ir.Value:
        """A register that holds nothing else."""
        kind = ir.VectorType(number.type, LANES)
        first = self.builder.insert_element(kind(ir.Undefined), number, _PLACE(0))
        return self.mixed(first, first, [0] * LANES)

    def mixed(self, first: ir.Value, second: ir.Value, places: Sequence[int]) -> ir.Value:
        """A register of numbers of two, those of the second counted on from `LANES`."""
        return self.builder.shuffle_vector(first, second, _PLACES(list(places)))

    def larger(self, first: ir.Value, second: ir.Value) -> ir.Value:
        """The larger number at each place."""
        return self.builder.select(self.builder.fcmp_unordered(">", first, second), first, second)

    def repeat(
        self, count: ir.Value, start: Sequence[ir.Value], step: Callable[[ir.Value, list[ir.Value]], list[ir.Value]]
    ) -> list[ir.Value]:
        """`start` after `count` times `step(i, values)`; at least once."""
        before, loop, after = self.builder.block, *map(self.builder.append_basic_block, ("loop", "after"))
        self.builder.branch(loop)
        self.builder.position_at_end(loop)
        i, values = self.builder.phi(_INDEX), [self.builder.phi(first.type) for first in start]
        found = step(i, list(values))
        following = self.builder.add(i, _INDEX(1))
        for value, first, last in zip((i, *values), (_INDEX(0), *start), (following, *found), strict=True):
            value.add_incoming(first, before)
            value.add_incoming(last, loop)
        self.builder.cbranch(self.builder.icmp_signed("<", following, count), loop, after)
        self.builder.position_at_end(after)
        return found


def _tile(width: int) -> Any:
    """`found = rows @ columns`, `[ROWS, count]` by `[count, width · LANES]`; `down`, `step` and `below` are the bytes
    from one row of each to the next."""

    @_intrinsic
    def tile(_: Any, rows: Any, down: Any, columns: Any, step: Any, found: Any, below: Any, count: Any) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, __: Any, arguments: Sequence[ir.Value]) -> ir.Value:
            rows, down, columns, step, found, below, count = arguments
            code = _Code(builder)
            starts = [code.at(rows, down, r) for r in range(ROWS)]

            def add(t: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
                at, grown = code.at(columns, step, t), []
                given = [code.read(code.at(at, 4 * LANES, n)) for n in range(width)]
                for r, start in enumerate(starts):
                    factor = code.everywhere(code.number(code.at(start, 4, t)))
                    for n, numbers in enumerate(given):
                        product = builder.fmul(factor, numbers, flags=_CONTRACT)
                        grown.append(builder.fadd(product, sums[r * width + n], flags=_CONTRACT))
                return grown

            sums = code.repeat(count, [_REGISTER([0.0] * LANES)] * (ROWS * width), add)
            for i, numbers in enumerate(sums):
                code.write(numbers, code.at(code.at(found, below, i // width), 4 * LANES, i % width))
            return context.get_dummy_value()

        return types.void(*[types.intp] * 7), generate

    return tile


_tile_1, _tile_2, _tile_3 = map(_tile, (1, 2, 3))


@_intrinsic
def _turn(_: Any, rows: Any, down: Any, found: Any, below: Any, scale: Any) -> Any:
    """`found = scale · rowsᵀ`, both `[LANES, LANES]`: in each step, pairs of rows exchange every second half of their
    blocks of 2, 4, 8, … numbers."""

    def generate(context: Any, builder: ir.IRBuilder, __: Any, arguments: Sequence[ir.Value]) -> ir.Value:
        rows, down, found, below, scale = arguments
        code = _Code(builder)
        factor, places = code.everywhere(scale), range(LANES)
        held = [builder.fmul(code.read(code.at(rows, down, r)), factor) for r in places]
        half = 1
        while half < LANES:
            upper = [LANES + k - half if k & half else k for k in places]
            lower = [LANES + k if k & half else k + half for k in places]
            for r in (r for r in places if not r & half):
                pair = held[r], held[r + half]
                held[r], held[r + half] = code.mixed(*pair, upper), code.mixed(*pair, lower)
            half *= 2
        for r in places:
            code.write(held[r], code.at(found, below, r))
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4, types.float32), generate


@_intrinsic
def _keep(_: Any, numbers: Any, mask: Any) -> Any:
    """A register's numbers where the bits of `mask` are set, and -1e30 where they are not. (A comparison would become a
    masked store, for which the next load waits.)"""

    def generate(context: Any, builder: ir.IRBuilder, __: Any, arguments: Sequence[ir.Value]) -> ir.Value:
        code = _Code(builder)
        numbers, mask = (builder.bitcast(code.read(address), _PLACES) for address in arguments)
        unseen = builder.bitcast(_REGISTER([-1e30] * LANES), _PLACES)
        found = builder.or_(builder.and_(numbers, mask), builder.and_(unseen, builder.not_(mask)))
        code.write(builder.bitcast(found, _REGISTER), arguments[0])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), generate


@_intrinsic
def _top(_: Any, row: Any, count: Any) -> Any:
    """The largest number of `count` registers."""

    def generate(_: Any, builder: ir.IRBuilder, __: Any, arguments: Sequence[ir.Value]) -> ir.Value:
        row, count = arguments
        code = _Code(builder)

        def look(i: ir.Value, tops: list[ir.Value]) -> list[ir.Value]:
            return [code.larger(tops[0], code.read(code.at(row, 4 * LANES, i)))]

        (top,) = code.repeat(count, [code.read(row)], look)
        half = LANES // 2
        while half:
            top = code.larger(top, code.mixed(top, top, [min(k + half, LANES - 1) for k in range(LANES)]))
            half //= 2
        return builder.extract_element(top, _PLACE(0))

    return types.float32(types.intp, types.intp), generate


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


@compiled
def _product(rows: int, down: int, columns: int, step: int, found: int, below: int, count: int, width: int) -> None:
    """`_tile` for `width` registers of columns, in tiles that are as wide as they may be and nearly equal."""
    tiles = -(-width // WIDTH)
    for i in range(tiles):
        done = width * i // tiles
        size, more = width * (i + 1) // tiles - done, 4 * LANES * done
        if size == 1:
            _tile_1(rows, down, columns + more, step, found + more, below, count)
        elif size == 2:
            _tile_2(rows, down, columns + more, step, found + more, below, count)
        else:
            _tile_3(rows, down, columns + more, step, found + more, below, count)


@compiled
def _aligned(rows: int, size: int) -> Rows:
    """Zeros `[rows, size]` that start with a cache line: a register's load that crosses two takes twice as long."""
    memory = np.zeros(rows * size + 16, np.float32)
    start = -(memory.ctypes.data // 4) % 16
    return memory[start : start + rows * size].reshape(rows, size)


@compiled
def _copy(values: Rows, start: int, count: int, head: int, found: Rows) -> None:
    """`values[start : start + count, head]` into the first numbers of the first rows of `found`."""
    for r in range(count):
        for c in range(values.shape[2]):
            found[_u(r), _u(c)] = values[_u(start + r), _u(head), _u(c)]


@compiled
def _turn_keys(key: Rows, start: int, end: int, head: int, scale: Any, block: Rows, found: int, below: int) -> None:
    """The keys of a head, turned, behind the last one whatever stands there; `block` is `[LANES, size up to LANES]`."""
    size, down = key.shape[2], key.strides[0]
    for done in range(start, end, LANES):
        rows = key.ctypes.data + done * down + head * key.strides[1]
        if done + LANES > end or size % LANES:
            _copy(key, done, min(LANES, end - done), head, block)
            rows, down = block.ctypes.data, block.strides[0]
        for c in range(0, size, LANES):
            _turn(rows + 4 * c, down, found + below * c + 4 * (done - start), below, scale)


@compiled
def _hide(row: int, count: int, first: int, end: int, mask: int) -> None:
    """Of `count` registers, what stands not from place `first` up to `end` becomes -1e30; `mask` `[3 · LANES]` has its
    bits set in the middle third."""
    for i in range(count):
        before, after = first - i * LANES, end - i * LANES
        if before > 0:
            _keep(row + 4 * LANES * i, mask + 4 * max(0, LANES - before))
        if after < LANES:
            _keep(row + 4 * LANES * i, mask + 4 * min(2 * LANES, 2 * LANES - after))


@partial(compiled, sums_in_any_order=True)
def attend(query: Rows, key: Rows, value: Rows, bounds: Rows, scale: Any, window: int, found: Rows) -> None:
    """`query`, `key` `[total, heads, size]`, `value` and `found` `[total, heads, value_size]`, numbers of a head one
    after the other; `bounds` `[sequences + 1]`; `scale` is 1 / √size; a token sees `window` others to either side."""
    size, value_size = query.shape[2], value.shape[2]
    longest = 0
    for s in range(len(bounds) - 1):
        longest = max(longest, bounds[s + 1] - bounds[s])
    wide, out = -(-longest // LANES) * LANES, -(-value_size // LANES) * LANES
    block, keys = _aligned(LANES, -(-size // LANES) * LANES), _aligned(-(-size // LANES) * LANES, wide)
    values = _aligned(longest if out > value_size else 0, out)
    asked, scores, told = _aligned(ROWS, size), _aligned(ROWS, wide), _aligned(ROWS, out)
    shares = np.empty(ROWS, np.float32)
    mask = np.zeros(3 * LANES, np.int32)
    mask[LANES : 2 * LANES] = -1
    for s in range(len(bounds) - 1):
        start, end = bounds[s], bounds[s + 1]
        for head in range(query.shape[1]):
            _turn_keys(key, start, end, head, scale, block, keys.ctypes.data, keys.strides[0])
            given, step = value.ctypes.data + start * value.strides[0] + head * value.strides[1], value.strides[0]
            if out > value_size:
                _copy(value, start, end - start, head, values)
                given, step = values.ctypes.data, values.strides[0]
            for done in range(start, end, ROWS):
                rows, down = query.ctypes.data + done * query.strides[0] + head * query.strides[1], query.strides[0]
                held = min(ROWS, end - done)
                if held < ROWS:
                    _copy(query, done, held, head, asked)
                    rows, down = asked.ctypes.data, asked.strides[0]
                past = min(end, done + held + window) - start  # the tile sees keys from `left`, a register's first,
                left = max(0, done - window - start) // LANES * LANES  # up to `past`, counted from `start`
                seen, at, below = -(-(past - left) // LANES), scores.ctypes.data, scores.strides[0]
                _product(rows, down, keys.ctypes.data + 4 * left, keys.strides[0], at, below, size, seen)
                for r in range(held):
                    place = done + r - start - left
                    first, last = place - window, min(past - left, place + window + 1)
                    _hide(at + r * below, seen, first, last, mask.ctypes.data)
                    top = _top(at + r * below, seen)
                    total = _f(0)
                    for j in range(seen * LANES):
                        power = _exp(scores[_u(r), _u(j)] - top)
                        scores[_u(r), _u(j)] = power
                        total += power
                    shares[_u(r)] = _f(1) / total
                sums, width = told.ctypes.data, out // LANES
                _product(at, below, given + left * step, step, sums, told.strides[0], past - left, width)
                for r in range(held):
                    for c in range(value_size):
                        found[_u(done + r), _u(head), _u(c)] = told[_u(r), _u(c)] * shares[_u(r)]
