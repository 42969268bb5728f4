"""A vocab.txt with each combination of options is read as transformers 5 reads it: equal ids, types and offsets.

`BertTokenizer` of version 5 honours these three settings, so nothing is left out. It ignores `never_split` and
knows no `max_input_chars_per_word`: see test_never_split.py.
"""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import BertTokenizer

from bertsmith.tokenizer.directory import load_tokenizer
from bertsmith.tokenizer.text_tokenizer import TextTokenizer
from tests.tokenizer.texts import FRAGMENTS, PIECES, TEXTS

COMBINATIONS = [
    {"do_lower_case": lowercase, "strip_accents": strip, "tokenize_chinese_chars": chinese}
    for lowercase, strip, chinese in product([True, False], [None, True, False], [True, False])
]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[TextTokenizer, Any]]:
    """For each combination, our tokenizer and theirs, from a directory of two files."""
    made = []
    for combination in COMBINATIONS:
        directory = tmp_path_factory.mktemp("vocabulary")
        (directory / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES), encoding="utf-8")
        (directory / "tokenizer_config.json").write_text(json.dumps(combination))
        made.append((load_tokenizer(directory), BertTokenizer.from_pretrained(directory)))
    return made


def assert_equal(ours: TextTokenizer, theirs: Any, texts: list[str], pairs: list[str | None] | None) -> None:
    wanted = theirs(texts, pairs, return_offsets_mapping=True)
    got = ours.encode_batch(texts, pairs, allow_special=True)
    for number, encoding in enumerate(got):
        place = texts[number] if pairs is None else (texts[number], pairs[number])
        assert encoding.ids == wanted["input_ids"][number], place
        assert encoding.offsets == [tuple(offset) for offset in wanted["offset_mapping"][number]], place
        assert encoding.type_ids == wanted["token_type_ids"][number], place


@pytest.mark.slow
@given(st.lists(TEXTS, min_size=50, max_size=60))
@settings(max_examples=200, suppress_health_check=list(HealthCheck))
def test_ids_and_offsets_of_10_000_texts_equal_transformers_in_each_combination(
    both: list[tuple[TextTokenizer, Any]], texts: list[str]
) -> None:
    for ours, theirs in both:
        assert_equal(ours, theirs, texts, None)


@given(st.lists(TEXTS, min_size=2, max_size=20))
@settings(suppress_health_check=list(HealthCheck))
def test_pairs_equal_transformers_in_each_combination(both: list[tuple[TextTokenizer, Any]], texts: list[str]) -> None:
    for ours, theirs in both:
        assert_equal(ours, theirs, texts, texts[::-1])


def test_each_setting_is_seen_in_the_ids(both: list[tuple[TextTokenizer, Any]]) -> None:
    texts = ["Hello", "cafe\u0301", "中中"]
    seen = set()
    for combination, (ours, theirs) in zip(COMBINATIONS, both, strict=True):
        assert_equal(ours, theirs, texts, None)
        hello, cafe, chinese = (encoding.tokens[1:-1] for encoding in ours.encode_batch(texts))
        assert hello == (["hello"] if combination["do_lower_case"] else ["Hello"])
        stripped = combination["strip_accents"] in (True, *([None] if combination["do_lower_case"] else []))
        assert cafe == (["cafe"] if stripped else ["cafe\u0301"])
        assert chinese == (["中", "中"] if combination["tokenize_chinese_chars"] else ["中", "##中"])
        seen.add((*hello, *cafe, *chinese))
    assert len(seen) == 8


def test_the_texts_are_read_as_more_than_unknown_words(both: list[tuple[TextTokenizer, Any]]) -> None:
    found: set[str] = set()
    for ours, _ in both:
        for encoding in ours.encode_batch(FRAGMENTS, allow_special=True):
            found.update(encoding.tokens)
    assert len(found) >= 80
    assert {"😀", "שלום", "中", "𠀀", "한국어", "ǆ", "й", "[MASK]", "##\u0301", "\u0378"} <= found
