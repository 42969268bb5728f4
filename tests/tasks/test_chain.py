"""Legal sequences of tags."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertsmith.tasks.chain import allowed, best_sequence, scheme_of, transitions
from bertsmith.tasks.tag import completed, windows

SCHEMES = {
    "BIO": ("O", "B-X", "I-X", "B-Y", "I-Y"),
    "IOB1": ("O", "B-X", "I-X", "I-Y"),
    "BILOU": ("O", "B-X", "I-X", "L-X", "U-X", "U-Y"),
}


def is_legal(tags: tuple[str, ...], scheme: str) -> bool:
    return all(allowed(before, tag, scheme) for before, tag in pairwise(("", *tags, "")))


@pytest.mark.parametrize(
    ("tags", "scheme", "legal"),
    [
        (("O", "B-X", "I-X", "B-X"), "BIO", True),
        (("I-X",), "BIO", False),
        (("B-X", "I-Y"), "BIO", False),
        (("I-X", "B-X", "I-X"), "IOB1", True),
        (("B-X",), "IOB1", False),
        (("B-X", "I-X", "L-X", "U-Y"), "BILOU", True),
        (("B-X",), "BILOU", False),
        (("B-X", "O"), "BILOU", False),
        (("L-X",), "BILOU", False),
        (("B-X", "L-Y"), "BILOU", False),
    ],
)
def test_what_may_follow_what(tags: tuple[str, ...], scheme: str, legal: bool) -> None:
    assert is_legal(tags, scheme) == legal


@settings(max_examples=40)
@given(st.sampled_from(sorted(SCHEMES)), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_the_best_legal_sequence_is_found(scheme: str, words: int, seed: int) -> None:
    labels = SCHEMES[scheme]
    scores = np.random.default_rng(seed).normal(size=(words, len(labels)))
    found = best_sequence(scores, transitions(labels, scheme))
    legal = [s for s in product(range(len(labels)), repeat=words) if is_legal(tuple(labels[i] for i in s), scheme)]
    best = max(legal, key=lambda sequence: scores[np.arange(words), list(sequence)].sum())
    assert found.tolist() == list(best)


def test_without_any_legal_sequence_each_word_keeps_its_best() -> None:
    labels = ("I-X", "L-X")
    scores = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert best_sequence(scores, transitions(labels, "BILOU")).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("sentences", "scheme"),
    [
        ([["O", "B-X", "I-X"]], "BIO"),
        ([["O", "I-X", "I-X"]], "IOB1"),
        ([["B-X", "L-X"]], "BILOU"),
        ([["S-X"]], "BILOU"),
        ([["NOUN", "VERB"]], "none"),
        ([["B", "I"]], "none"),
        ([["B-X", "B-X", "O"]] * 5 + [["O", "I-X"]], "BIO"),
    ],
)
def test_the_scheme_is_found(sentences: list[list[str]], scheme: str) -> None:
    assert scheme_of(sentences) == scheme


def test_a_class_that_was_seen_in_part_can_be_answered_whole() -> None:
    assert completed(("O", "I-X"), "BIO") == ("O", "I-X", "B-X")
    assert completed(("U-X",), "BILOU") == ("U-X", "O", "B-X", "I-X", "L-X")
    assert set(completed(("O", "S-X"), "BILOU")) == {"O", "B-X", "I-X", "E-X", "S-X"}


@given(st.lists(st.integers(1, 4), min_size=1, max_size=40), st.integers(8, 20), st.integers(0, 6))
def test_windows_hold_every_piece_and_cut_no_word(sizes: list[int], room: int, stride: int) -> None:
    origin = [word for word, size in enumerate(sizes) for _ in range(size)]
    found = windows(origin, room=room, stride=stride)
    assert {i for start, end in found for i in range(start, end)} == set(range(len(origin)))
    for start, end in found:
        assert 0 < end - start <= room
        assert start == 0 or origin[start] != origin[start - 1]
        assert end == len(origin) or origin[end] != origin[end - 1]
    assert all(a < b for (a, _), (b, _) in pairwise(found))
