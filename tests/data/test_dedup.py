"""The table of hashes against a Python set, and its place on the disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertsmith.data.dedup import Budget, HashLog, HashTable
from bertsmith.errors import RunError

numbers = st.lists(st.one_of(st.integers(0, 12), st.integers(0, 2**64 - 1), st.integers(0, 9).map(lambda n: n << 40)))


@settings(max_examples=200)
@given(st.lists(numbers, max_size=8))
def test_the_table_says_what_a_set_says(blocks: list[list[int]]) -> None:
    table, seen = HashTable(Budget(10)), set()
    for block in blocks:
        hashes = np.array(block, np.uint64)
        expected = []
        for number in (number or 1 for number in block):  # 0 stands for 1: the same chance as of any two hashes
            expected.append(number not in seen)
            seen.add(number)
        assert table.add(hashes).tolist() == expected
        assert table.has(hashes).all()
        assert table.count == len(seen)
    probe = np.array([3, 7, 1 << 63], np.uint64)
    assert table.has(probe).tolist() == [number in seen for number in probe.tolist()]


def test_a_million_hashes_take_12_to_24_bytes_each_and_too_many_are_refused() -> None:
    budget = Budget(30)
    table = HashTable(budget)
    rng = np.random.default_rng(0)
    for _ in range(100):
        table.add(rng.integers(0, 2**64, 10_000, np.uint64))
    assert table.count == 1_000_000
    assert 12 <= budget.used / table.count <= 24
    with pytest.raises(RunError, match="--dedup-memory 30 MB; go on with --resume"):
        table.add(rng.integers(0, 2**64, 1_000_000, np.uint64))


def test_a_log_gives_back_what_was_saved_and_no_more(tmp_path: Path) -> None:
    table = HashTable(Budget(10))
    log = HashLog(table, tmp_path, "lines")
    for number in range(3):
        new = np.arange(100 * number + 1, 100 * number + 101, dtype=np.uint64)
        table.add(new)
        log.note(new)
        log.save(number)
    again = HashTable(Budget(10))
    HashLog(again, tmp_path, "lines").load(2)
    assert again.count == 200
    assert again.has(np.array([1, 200, 201], np.uint64)).tolist() == [True, True, False]
