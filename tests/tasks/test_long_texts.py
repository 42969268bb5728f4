"""Texts that are longer than the model reads."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.data.examples import Example
from bertsmith.errors import InputError
from bertsmith.tasks.classify import ClassifyTask
from bertsmith.tasks.long_texts import joined_windows, shorten
from bertsmith.tokenizer.directory import load_tokenizer


@given(st.integers(2, 60), st.integers(4, 30), st.floats(0.1, 0.9))
def test_head_and_tail_keep_both_ends(words: int, limit: int, share: float) -> None:
    ids = [-1, *range(words), -2]
    parts = [None, *[0] * words, None]
    encoding: Any = SimpleNamespace(ids=ids, type_ids=[0] * len(ids), sequence_ids=parts)
    cut, _ = shorten(encoding, limit, head_share=share)
    kept = cut[1:-1].tolist()
    assert (cut[0], cut[-1]) == (-1, -2)
    assert len(cut) == min(limit, len(ids))
    assert kept == sorted(set(kept))
    if len(ids) > limit:
        assert kept[0] == 0
        head = next((i for i, word in enumerate(kept) if word != i), len(kept))
        assert head == min(limit - 2, max(1, round((limit - 2) * share)))
        assert kept[head:] == list(range(words - (len(kept) - head), words))


@given(first=st.integers(0, 20), second=st.integers(0, 20), limit=st.integers(5, 30))
def test_a_pair_loses_what_transformers_takes(tokenizer_dir: Path, first: int, second: int, limit: int) -> None:
    tokenizer = load_tokenizer(tokenizer_dir)
    text, pair = "the " * first, "dog " * second
    whole = tokenizer.windows(text, pair, max_length=limit, truncation="longest_first")[0]
    cut, types = shorten(tokenizer.encode(text, pair), limit)
    assert (cut.tolist(), types.tolist()) == (whole.ids, whole.type_ids)


@pytest.mark.parametrize("pair", [None, "a dog eats bread " * 6])
def test_windows_hold_the_whole_text(tokenizer_dir: Path, pair: str | None) -> None:
    tokenizer = load_tokenizer(tokenizer_dir)
    text = "the cat sees the bird " * 10
    task = ClassifyTask(("a", "b"), 32, "window", stride=4)
    inputs = task.prepare([Example(Path("x"), 1, text, pair, "a")], tokenizer)
    assert len(inputs) > 1
    assert {encoded.row for encoded in inputs} == {0}
    assert {encoded.label for encoded in inputs} == {0}
    assert all(len(encoded.sequences[0]) <= 32 for encoded in inputs)
    whole = tokenizer.encode(text, pair).ids
    assert {int(i) for encoded in inputs for i in encoded.sequences[0]} == set(whole)
    for kind in ("truncate", "head-tail"):
        (cut,) = ClassifyTask(("a", "b"), 32, kind).prepare([Example(Path("x"), 1, text, pair, "a")], tokenizer)
        assert len(cut.sequences[0]) == 32


def test_a_long_text_is_refused_unless_told(tokenizer_dir: Path) -> None:
    with pytest.raises(InputError, match=r'x:3: field "text": \d+ tokens, the limit is 8; .*--long-docs'):
        ClassifyTask(("a", "b"), 8).prepare(
            [Example(Path("x"), 3, "the cat " * 9, None, "a")], load_tokenizer(tokenizer_dir)
        )


def test_windows_count_by_their_tokens() -> None:
    joined = joined_windows([np.array([1.0, 0.0]), np.array([0.0, 1.0])], [(np.zeros(30),), (np.zeros(10),)])
    assert joined.tolist() == [0.75, 0.25]
