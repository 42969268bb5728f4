"""`tokenizer.words`: what is counted is what encoding would see, and the table stays bounded."""

from __future__ import annotations

import random
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers, pre_tokenizers

from bertsmith.errors import InputError
from bertsmith.tokenizer import words
from bertsmith.tokenizer.words import WordCounts, count_words

PRE_TOKENIZER = pre_tokenizers.BertPreTokenizer()
UNCASED = normalizers.BertNormalizer(lowercase=True)
CASED = normalizers.BertNormalizer(lowercase=False)
WITHOUT_CHINESE = normalizers.BertNormalizer(handle_chinese_chars=False)

# Dense in what matters: separators of all kinds, deleted characters, accents, Chinese, punctuation.
TEXTS = st.lists(st.text("ab1 é\u0301Ω.,-中文\u3000\x0b\x1c\x85\xa0\t\n\r\u200b\ufffdİſ한\U0001f600", max_size=40))


def count(texts: list[str], normalizer: normalizers.Normalizer = UNCASED, max_words: int = 10_000) -> WordCounts:
    return count_words(texts, normalizer=normalizer, pre_tokenizer=PRE_TOKENIZER, max_words=max_words)


def as_encoding_sees_them(texts: list[str], normalizer: normalizers.Normalizer) -> Counter[str]:
    seen = Counter(word for text in texts for word, _ in PRE_TOKENIZER.pre_tokenize_str(normalizer.normalize_str(text)))
    return Counter({word: number for word, number in seen.items() if len(word) <= 100})


@given(TEXTS | st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30)))
@settings(max_examples=300)
def test_counts_are_those_of_the_encoder_s_own_words(texts: list[str]) -> None:
    for normalizer in (UNCASED, CASED, WITHOUT_CHINESE):
        counted = count(texts, normalizer)
        assert counted.counts == as_encoding_sees_them(texts, normalizer)
        assert counted.texts == len(texts)
        assert counted.words == sum(counted.counts.values())


def test_every_character_separates_vanishes_or_stays_as_in_the_encoder() -> None:
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    texts = ["x".join(characters[start : start + 20]) for start in range(0, len(characters), 20)]
    for normalizer in (UNCASED, CASED):
        assert count(texts, normalizer, max_words=2_000_000).counts == as_encoding_sees_them(texts, normalizer)


def test_words_are_never_cut_where_a_block_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = random.Random(5)
    tokens = ["".join(generator.choices("abcde,中", k=generator.randint(1, 12))) for _ in range(2_000)]
    texts = [" ".join(tokens[start : start + 17]) for start in range(0, len(tokens), 17)]
    whole = count(texts)
    for size in (1, 7, 100, 1_000):
        for name in ("BLOCK_CHARACTERS", "RAW_CHARACTERS", "NORMALIZED_AT_ONCE", "LONGEST_RUN"):
            monkeypatch.setattr(words, name, max(size, 20) if name == "LONGEST_RUN" else size)
        assert count(texts).counts == whole.counts
        assert count([" ".join(tokens)]).counts == whole.counts


def test_line_lengths_do_not_change_what_is_pruned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "BLOCK_CHARACTERS", 500)
    monkeypatch.setattr(words, "RAW_CHARACTERS", 300)
    generator = random.Random(1)
    tokens = [f"w{int(generator.paretovariate(0.3)) % 9_999}" for _ in range(20_000)]
    lines = [" ".join(tokens[start : start + 9]) for start in range(0, len(tokens), 9)]
    by_line, at_once = count(lines, max_words=1_000), count([" ".join(tokens)], max_words=1_000)
    assert by_line.pruned_words > 0
    assert list(by_line.counts.items()) == list(at_once.counts.items())
    assert by_line.pruned_occurrences == at_once.pruned_occurrences


def test_the_rarest_words_are_dropped_and_tallied() -> None:
    texts = ["often often often", "twice twice"] + [f"once{number}" for number in range(2_000)]
    counted = count(texts, max_words=1_000)
    assert len(counted.counts) <= 1_000
    assert counted.counts["often"] == 3
    assert counted.counts["twice"] == 2
    assert counted.pruned_occurrences == counted.pruned_words == 2_002 - len(counted.counts)
    assert counted.words == sum(counted.counts.values()) + counted.pruned_occurrences == 2_005
    assert "once1999" in counted.counts
    assert "once0" not in counted.counts  # among equals the oldest goes


def test_pruning_keeps_some_when_all_are_equally_frequent() -> None:
    counted = count([f"w{number} w{number}" for number in range(1_500)], max_words=1_000)
    assert len(counted.counts) == 800


def test_the_table_stays_near_the_cap_while_a_stream_of_new_words_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "BLOCK_CHARACTERS", 1_000)
    monkeypatch.setattr(words, "RAW_CHARACTERS", 1_000)
    largest = 0
    prune = words._Table.prune

    def watched(table: words._Table) -> None:
        nonlocal largest
        largest = max(largest, len(table.counts))
        prune(table)
        assert table.characters == sum(map(len, table.counts))

    monkeypatch.setattr(words._Table, "prune", watched)
    counted = count_words(
        (f"word{number} the" for number in range(30_000)),
        normalizer=UNCASED,
        pre_tokenizer=PRE_TOKENIZER,
        max_words=1_000,
    )
    assert largest < 1_300
    assert counted.counts["the"] == 30_000


def test_long_words_share_a_smaller_table() -> None:
    counted = count([f"{number:064d}" for number in range(900)], max_words=1_000)
    assert sum(map(len, counted.counts)) <= 1_000 * words.CHARACTERS_PER_WORD
    assert 100 < len(counted.counts) < 160


@pytest.mark.parametrize("length", [101, 100_000, 300_000])
def test_an_overlong_word_is_left_out_and_tallied(length: int) -> None:
    counted = count(["a" * length + " b " + "c" * 100])
    assert counted.counts == {"b": 1, "c" * 100: 1}
    assert counted.overlong_words == 1
    assert counted.words == 3


def test_prose_without_spaces_is_cut_beside_punctuation_only() -> None:
    text = "我们，hello。" * 60_000
    assert count([text]).counts == dict.fromkeys("我们，。", 60000) | {"hello": 60_000}


def test_a_lone_surrogate_is_an_input_error_that_shows_the_place() -> None:
    with pytest.raises(InputError, match=r"surrogate.*'b\\ud800ad'; "):
        count(["good b\ud800ad"])


def test_no_texts_give_no_counts() -> None:
    assert count([]) == WordCounts({}, 0, 0, 0, 0, 0)
    assert count(["", " \n", "\x00"]).counts == {}
