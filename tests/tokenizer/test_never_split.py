"""`never_split` and the longest word against the reference, in files and in generated texts.

Version 5 of transformers ignores `never_split` and a longest word other than 100 in its `BertTokenizer`, so it
serves only where a directory tells it to take tokenizer.json as it is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from bertsmith.tokenizer.bert import bert_tokenizer
from bertsmith.tokenizer.directory import load_tokenizer, tokenizer_from_vocabulary, write_tokenizer
from bertsmith.tokenizer.text_tokenizer import TextTokenizer
from tests.tokenizer.reference import reference
from tests.tokenizer.texts import CONTINUATIONS, FRAGMENTS, SPECIALS, WORDS

ENTRIES = [
    *(
        "C++",
        "c++",
        "U.S.",
        "u.s.",
        "foo-bar",
        "foo",
        "bar",
        "Foo",
        "-",
        "--",
        "+",
        "[x]",
        "#Tag",
        "tag",
        "a",
        "ab",
        "A.B",
    ),
    *("İ", "i", "É", "E\u0301", "é", "Å", "ẞ", "ΟΔΟΣ", "Жй", "𐐀", "K", "ﬁ", "Ⅷ", "한국어", "한국", "שָׁלוֹם", "हिन्दी"),
    *(
        "中",
        "中国",
        "豈",
        "😀",
        "hello",
        "Hello",
        "HELLO",
        "unaffable",
        "##b",
        "##x",
        "A",
        "Ab",
        "…",
        "¿que?",
        "^$",
        "a|b",
        "\\d",
    ),
    *("", "a b", " a", "a\n", "a\u200bb", "\ufeff", "\ue000", "\U000f0000", "[SEP]", "[MASK]"),
]
"""Cased and not, with punctuation and without, some in the vocabulary; the last row never matches a plain text."""

KNOWN = ["C++", "U.S.", "foo-bar", "[x]", "#Tag", "É", "İ", "Å", "한국어", "豈", "hello", "Foo", "##b", "-", "𐐀", "a|b"]
VOCABULARY = {
    piece: number
    for number, piece in enumerate(
        dict.fromkeys(
            [
                *SPECIALS,
                *KNOWN,
                *WORDS,
                *CONTINUATIONS,
                "foo",
                "##o",
                "f",
                "##ar",
                "c",
                "u",
                "##s",
                "s",
                "##x",
                "x",
                "t",
                "##g",
            ]
        )
    )
}
JOINTS = ["", "", " ", " ", " ", ",", "-", ".", "\u200b", "\n", "、", "!", "\u0301", "a", "b", "B"]


def ours(tokenizer: TextTokenizer, text: str) -> list[tuple[str, tuple[int, int]]]:
    encoding = tokenizer.encode(text)
    return list(zip(encoding.tokens, encoding.offsets, strict=True))[1:-1]


def make(switches: dict[str, Any], vocabulary: dict[str, int] = VOCABULARY) -> TextTokenizer:
    tokenizer = bert_tokenizer(vocabulary, **switches)
    return TextTokenizer(tokenizer.to_str(), {})


# Characters of which Python's Unicode knows more than the one of tokenizers, which is older.
NEWER = {"\U000e0041", "\U000e0067", "\U000e007f"}
BASE = [fragment for fragment in FRAGMENTS if not NEWER & set(fragment)]
SWITCHES = st.fixed_dictionaries(
    {"lowercase": st.booleans(), "strip_accents": st.none() | st.booleans(), "chinese_chars": st.booleans()}
)
SMALL = st.text("aAbÉ\u0301-+中", min_size=1, max_size=5)
"""So few characters that entries meet within words: `["a", "b-a"]`, "b-a-b"."""


@st.composite
def entries_and_texts(draw: st.DrawFn) -> tuple[list[str], dict[str, int], list[str]]:
    """Entries, a vocabulary with some of them, and texts in which they, or the like of them, are frequent."""
    never_split = draw(st.lists(st.sampled_from(ENTRIES) | SMALL, min_size=1, max_size=12))
    known = draw(st.lists(st.sampled_from(never_split)))
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys([*VOCABULARY, *known]))}
    entry = st.sampled_from(never_split)
    words = entry | entry | entry.map(str.lower) | entry.map(str.upper) | st.sampled_from(BASE + ENTRIES) | SMALL
    texts = st.lists(st.tuples(words, st.sampled_from(JOINTS)).map("".join), max_size=8).map("".join)
    return never_split, vocabulary, draw(st.lists(texts, min_size=15, max_size=20))


@given(SWITCHES, entries_and_texts())
@settings(max_examples=400, suppress_health_check=list(HealthCheck))
def test_tokens_and_offsets_equal_the_reference(
    switches: dict[str, Any], case: tuple[list[str], dict[str, int], list[str]]
) -> None:
    never_split, vocabulary, texts = case
    tokenizer = make(switches | {"never_split": never_split}, vocabulary)
    for text in texts:
        wanted = reference(text, **switches, never_split=never_split, vocabulary=vocabulary)
        assert ours(tokenizer, text) == wanted, (text, never_split)


def test_a_word_is_kept_as_it_is_only_where_it_stands_alone() -> None:
    switches = {"lowercase": True, "strip_accents": None, "chinese_chars": True}
    plain, kept = make(switches), make(switches | {"never_split": ["C++", "É", "foo-bar", "unaffable"]})
    text = "C++ É foo-bar unaffable"
    assert [token for token, _ in ours(plain, text)] == (
        ["c", "+", "+", "[UNK]", "foo", "-", "b", "##ar", "un", "##aff", "##able"]
    )
    assert ours(kept, text) == [("C++", (0, 3)), ("É", (4, 5)), ("foo-bar", (6, 13)), ("[UNK]", (14, 23))]
    assert ours(kept, "\u200bC\u200b++\u00a0(C++)") == [
        *[("C++", (1, 5)), ("[UNK]", (6, 7)), ("c", (7, 8)), ("+", (8, 9)), ("+", (9, 10)), ("[UNK]", (10, 11))]
    ]
    assert ours(kept, "unaffable!") == [("[UNK]", (0, 9)), ("!", (9, 10))]


def test_an_entry_within_a_longer_entry_is_part_of_it() -> None:
    switches = {"lowercase": True, "strip_accents": None, "chinese_chars": True}
    tokenizer = make(switches | {"never_split": ["foo-bar", "bar", "x-un-x", "un"]})
    assert ours(tokenizer, "foo-bar x-un-x") == [("foo-bar", (0, 7)), ("[UNK]", (8, 14))]
    assert [token for token, _ in ours(tokenizer, "foo-bar. hello-bar un-x")] == (
        ["foo", "-", "[UNK]", ".", "hello", "-", "[UNK]", "un", "-", "x"]
    )


def test_marks_of_an_entry_keep_their_order() -> None:
    entry = "a\U0001d16d\U0001d165"  # marks that NFD puts in the other order, and no accents that it strips
    switches = {"lowercase": True, "strip_accents": None, "chinese_chars": True}
    vocabulary = VOCABULARY | {entry: len(VOCABULARY)}
    assert ours(make(switches | {"never_split": [entry]}, vocabulary), entry) == [(entry, (0, 3))]
    assert ours(make(switches, vocabulary), entry) == [("[UNK]", (0, 3))]


def write(directory: Path, config: dict[str, Any], vocabulary: dict[str, int] = VOCABULARY) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "vocab.txt").write_text("".join(f"{piece}\n" for piece in vocabulary), encoding="utf-8")
    (directory / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return directory


@pytest.mark.parametrize(
    "config",
    [
        {"never_split": ENTRIES, "tokenizer_class": "BertTokenizer"},
        {"max_input_chars_per_word": 7, "tokenizer_class": "BertTokenizer"},
        {"never_split": ENTRIES, "max_input_chars_per_word": 7, "do_lower_case": False, "tokenizer_class": None},
    ],
)
def test_tokenizer_json_alone_holds_the_rule_also_for_transformers(tmp_path: Path, config: dict[str, Any]) -> None:
    first = load_tokenizer(write(tmp_path / "vocabulary", config))
    first.save(tmp_path / "saved")
    assert (tmp_path / "saved" / "vocab.txt").read_bytes() == (tmp_path / "vocabulary" / "vocab.txt").read_bytes()
    second = load_tokenizer(tmp_path / "saved")
    assert (second.fingerprint, second.config) == (first.fingerprint, first.config)
    written = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_bytes())
    assert {key: written.get(key) for key in config} == config | {"tokenizer_class": "PreTrainedTokenizerFast"}
    (tmp_path / "saved" / "config.json").write_text('{"model_type": "bert"}')
    theirs = AutoTokenizer.from_pretrained(tmp_path / "saved")
    for text in [*ENTRIES, " ".join(ENTRIES), ", ".join(ENTRIES), "hellohell hellohe [SEP]"]:
        encoding = second.encode(text, allow_special=True)
        wanted = theirs(text, return_offsets_mapping=True)
        assert encoding.ids == wanted["input_ids"]
        assert encoding.type_ids == wanted["token_type_ids"]
        assert encoding.offsets == wanted["offset_mapping"]
    (tmp_path / "saved" / "tokenizer.json").unlink()
    assert load_tokenizer(tmp_path / "saved").fingerprint == first.fingerprint


def test_write_tokenizer_keeps_the_entries_and_the_longest_word(tmp_path: Path) -> None:
    switches = {"lowercase": True, "strip_accents": False, "chinese_chars": False}
    entries = ["C++", "É"]
    made = bert_tokenizer(VOCABULARY, **switches, never_split=entries, max_input_chars_per_word=200)
    write_tokenizer(tmp_path, made, model_max_length=64, never_split=entries)
    written = load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    rebuilt = load_tokenizer(tmp_path)
    assert (rebuilt.fingerprint, rebuilt.config) == (written.fingerprint, written.config)
    assert [token for token, _ in ours(rebuilt, "C++ É é")] == ["C++", "É", "[UNK]"]


def test_entries_that_match_nothing_change_nothing() -> None:
    switches = {"lowercase": True, "strip_accents": None, "chinese_chars": True}
    without = make(switches)
    idle = make(switches | {"never_split": ["", "a b", "a\u200bb", "\ue000", "[SEP]", "[MASK]"]})
    assert idle.content == without.content
    assert [token for token, _ in ours(idle, "[SEP]")] == ["[", "sep", "]"]


def test_a_vocabulary_with_private_use_characters_does_not_get_in_the_way() -> None:
    private = [chr(number) for number in range(0xF0000, 0xF0004)]
    vocabulary = {piece: number for number, piece in enumerate([*VOCABULARY, *private, "##oo"])}
    switches = {"lowercase": True, "strip_accents": None, "chinese_chars": True}
    assert ours(make(switches, vocabulary), "xoo") == [("x", (0, 1)), ("##oo", (1, 3))]
    assert ours(make(switches | {"never_split": ["xoo"]}, vocabulary), "xoo") == [("[UNK]", (0, 3))]


UNITS = {"a": "a", "É": "e", "e\u0301": "e", "İ": "i", "😀": "😀", "𐐀": "𐐨", "中": "中", "ß": "ß", "א": "א"}
LONG = {
    piece: number
    for number, piece in enumerate(
        dict.fromkeys(
            [*SPECIALS, *UNITS, *UNITS.values(), *(f"##{c}" for c in (*UNITS.values(), *"EÉéIİ𐐀\u0301\u0307")), "é"]
        )
    )
}


@pytest.mark.parametrize("longest", [100, 200])
@pytest.mark.parametrize("unit", UNITS)
def test_a_word_of_more_than_the_longest_is_unknown(tmp_path: Path, unit: str, longest: int) -> None:
    file = write(tmp_path, {}, LONG) / "vocab.txt"
    config = {"tokenize_chinese_chars": False} | ({"max_input_chars_per_word": longest} if longest != 100 else {})
    tokenizer = tokenizer_from_vocabulary(file, config)
    for length in (99, 100, 101, 199, 200, 201):
        tokens = [token for token, _ in ours(tokenizer, unit * length)]
        read = UNITS[unit]
        assert tokens == (["[UNK]"] if length > longest else [read, *[f"##{read}"] * (length - 1)])


@given(
    SWITCHES,
    st.lists(
        st.tuples(st.sampled_from([98, 100, 102, 198, 200, 202]), st.lists(st.sampled_from(list(UNITS)), min_size=1)),
        min_size=5,
        max_size=5,
    ),
    st.sampled_from([100, 200]),
)
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
def test_the_longest_word_equals_the_reference_in_generated_words(
    switches: dict[str, Any], words: list[tuple[int, list[str]]], longest: int
) -> None:
    tokenizer = make(switches | {"max_input_chars_per_word": longest}, LONG)
    for length, units in words:
        word = "".join(units[at % len(units)] for at in range(length))
        for text in (word, word[:-1], f"{word} a"):
            assert ours(tokenizer, text) == reference(text, **switches, longest=longest, vocabulary=LONG)
