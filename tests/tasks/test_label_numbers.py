"""Numbers for labels, as `--class-weights` and `--thresholds` have them."""

from __future__ import annotations

import pytest

from bertsmith.errors import InputError
from bertsmith.tasks.label_numbers import label_numbers

LABELS = ("a", "b", "差=评,x", "c,d")


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0.3", (0.3, 0.3, 0.3, 0.3)),
        ("b=0.2", (1, 0.2, 1, 1)),
        ("a=0.1, b=0.2", (0.1, 0.2, 1, 1)),
        ("差=评,x=0.5,a=0.1", (0.1, 1, 0.5, 1)),
        ("a=0.1,c,d=0.4,b=0.2", (0.1, 0.2, 1, 0.4)),
    ],
)
def test_labels_may_hold_commas_and_equals_signs(text: str, numbers: tuple[float, ...]) -> None:
    assert label_numbers(text, LABELS, field="--thresholds", default=1.0, most=1.0) == numbers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", "'0': expected a finite number above 0 and at most 1"),
        ("a=1.5", "'a=1.5': expected a finite number above 0 and at most 1"),
        ("a=nan", "'a=nan': expected a finite number above 0 and at most 1"),
        ("a", "'a' is not LABEL=NUMBER, for example a=0.5"),
        ("a=x,b=0.5", "'a=x' is not LABEL=NUMBER"),
        ("0.3,0.4", "'0.3,0.4' is not LABEL=NUMBER"),
        ("a=0.1,", "'' is not LABEL=NUMBER"),
        ("c,e=0.5", "no label 'c,e'; did you mean \"c,d\"?; the labels are: a, b, 差=评,x, c,d"),
        ("a=0.1,a=0.2", "names 'a' twice"),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        label_numbers(text, LABELS, field="--thresholds", default=0.5, most=1.0)
    assert str(caught.value).startswith(f'field "--thresholds": {message}')


def test_weights_have_no_upper_end() -> None:
    assert label_numbers("a=7", ("a", "b"), field="--class-weights", default=1.0) == (7.0, 1.0)
    with pytest.raises(InputError, match=r"'a=inf': expected a finite number above 0$"):
        label_numbers("a=inf", ("a", "b"), field="--class-weights", default=1.0)
