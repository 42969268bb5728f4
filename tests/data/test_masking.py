from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.data.masking import Masking, replacement_ids
from bertsmith.data.sequences import generator

SPECIAL = {0, 1, 2, 3, 4}


def masking(**changes: float) -> Masking:
    return Masking(mask_id=4, replacements=replacement_ids(50, SPECIAL), **changes)


@given(length=st.integers(1, 200), seed=st.integers(0, 10**6), rate=st.floats(0.01, 0.9))
def test_masks_as_many_as_the_rate_says_and_only_where_allowed(length: int, seed: int, rate: float) -> None:
    ids = np.arange(5, 5 + length) % 45 + 5
    selectable = np.ones(length, np.bool_)
    selectable[:: max(2, length // 3)] = length == 1
    masked, positions = masking(rate=rate)(ids, selectable, generator(seed))
    assert len(positions) == min(selectable.sum(), max(1, round(selectable.sum() * rate)))
    assert selectable[positions].all()
    assert (np.diff(positions) > 0).all()
    rest = np.setdiff1d(np.arange(length), positions)
    assert np.array_equal(masked[rest], ids[rest])


def test_eighty_ten_ten_and_no_special_token_as_replacement() -> None:
    ids = np.full(200_000, 7)
    masked, positions = masking()(ids, np.ones(len(ids), np.bool_), generator(0))
    chosen = masked[positions]
    assert abs((chosen == 4).mean() - 0.8) < 0.01
    assert abs((chosen == 7).mean() - 0.1 - 0.1 / 45) < 0.01
    replaced = chosen[(chosen != 4) & (chosen != 7)]
    assert set(replaced) == set(range(5, 50)) - {7}


def test_the_mask_is_a_pure_function_of_seed_epoch_and_index() -> None:
    ids, free = np.arange(5, 45), np.ones(40, np.bool_)
    first, again, other = (masking()(ids, free, generator(1, 2, 3, index)) for index in (7, 7, 8))
    assert np.array_equal(first[0], again[0])
    assert not np.array_equal(first[1], other[1])
