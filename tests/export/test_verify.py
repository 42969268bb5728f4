"""The comparison of a graph with torch: what is drawn, what counts as equal, what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bertsmith.errors import RunError
from bertsmith.export import verify as module
from bertsmith.export.verify import SHAPES, Sample, summary, verify

SIZES: dict[str, Any] = {"positions": 20, "tokens": 50, "segments": 2, "width": 10}


def off_by(values: Tensor, difference: float) -> Any:
    """A comparison of `values` with a graph whose first number is off."""

    def compare(_: object, __: object) -> list[tuple[np.ndarray, Tensor]]:
        theirs = values.clone()
        theirs[0] += difference
        return [(theirs.numpy(), values)]

    return compare


def test_rows_are_ragged_and_one_is_whole() -> None:
    for rows, length in SHAPES:
        sample = Sample.draw(rows, length, tokens=50, segments=2)
        lengths = sample.mask.sum(1)
        assert sample.input_ids.shape == sample.mask.shape == (rows, length)
        assert lengths.max() == length
        assert lengths.min() >= 1
        assert rows == 1 or length == 2 or lengths.unique().numel() > 1
        assert (sample.mask.diff(dim=1) <= 0).all()
        assert (Sample.draw(rows, length, tokens=50, segments=1, left=True).mask.diff(dim=1) >= 0).all()


def test_nine_shapes_end_where_the_positions_do() -> None:
    differences = verify(off_by(torch.ones(4), 0.0), {}, **SIZES)
    assert [(found.rows, found.length) for found in differences] == [(r, n) for r in (1, 3, 32) for n in (2, 17, 20)]


@pytest.mark.parametrize(("size", "difference", "fits"), [(1, 9e-5, True), (1, 2e-4, False), (100, 2e-3, True)])
def test_a_difference_counts_by_the_size_of_the_number(size: float, difference: float, fits: bool) -> None:
    compare = off_by(torch.full((4,), float(size)), difference)
    if fits:
        assert summary(verify(compare, {}, **SIZES))["largest_difference"] == pytest.approx(difference, rel=0.05)
    else:
        with pytest.raises(RunError, match=r"1 x 2 tokens differ by 0\.0002 from torch .*nothing was written"):
            verify(compare, {}, **SIZES)


def test_what_is_no_number_is_never_equal() -> None:
    for bad in (float("nan"), float("inf")):
        with pytest.raises(RunError, match="differ by inf"):
            verify(off_by(torch.ones(4), bad), {}, **SIZES)
        with pytest.raises(RunError, match="differ by inf"):
            verify(off_by(torch.full((4,), bad), 0.0), {}, **SIZES)


def test_a_large_vocabulary_is_tried_in_fewer_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_NUMBERS", 20 * 10 * 5)
    differences = verify(off_by(torch.ones(4), 0.0), {}, **SIZES)
    assert differences[-1].rows == 5
