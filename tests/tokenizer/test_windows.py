"""`TextTokenizer.windows` equals transformers' overflow with stride, and refuses what cannot move on."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Encoding, Tokenizer, processors
from transformers import BertTokenizer

from bertsmith.errors import InputError
from bertsmith.tokenizer.directory import load_tokenizer
from bertsmith.tokenizer.text_tokenizer import TextTokenizer
from tests.tokenizer.texts import FRAGMENTS, PIECES

STRATEGIES = ["longest_first", "only_first", "only_second"]
TEXTS = st.lists(st.sampled_from([*FRAGMENTS, " a ", " b, ", " hello ", "中"]), max_size=40).map("".join)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("vocabulary")
    (made / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES), encoding="utf-8")
    (made / "tokenizer_config.json").write_text("{}")
    return made


@pytest.fixture(scope="module")
def tokenizer(directory: Path) -> TextTokenizer:
    return load_tokenizer(directory)


@pytest.fixture(scope="module")
def theirs(directory: Path) -> Any:
    return BertTokenizer.from_pretrained(directory)


def seen(windows: list[Encoding]) -> list[Any]:
    return [(window.ids, window.type_ids, window.offsets, window.sequence_ids) for window in windows]


def their_windows(theirs: Any, text: str, pair: str | None, **setting: Any) -> list[Any]:
    pairs = None if pair is None else [pair]  # a list, as "" alone counts as no pair
    answer = theirs([text], pairs, return_overflowing_tokens=True, return_offsets_mapping=True, **setting)
    sequences = [answer.sequence_ids(number) for number in range(len(answer["input_ids"]))]
    return list(zip(answer["input_ids"], answer["token_type_ids"], answer["offset_mapping"], sequences, strict=True))


WITHOUT_TYPES = [
    {"tokenizer_class": "BertTokenizer", "model_input_names": ["input_ids", "attention_mask"]},
    {"tokenizer_class": "PreTrainedTokenizerFast"},
    {"tokenizer_class": "TokenizersBackend"},
]


@pytest.mark.parametrize("config", WITHOUT_TYPES)
@pytest.mark.parametrize("kind", ["template", "bert", "sequence"])
def test_types_are_zero_if_the_model_is_fed_none(kind: str, config: dict[str, Any], tokenizer: TextTokenizer) -> None:
    made = Tokenizer.from_str(tokenizer.content)
    if kind == "bert":
        made.post_processor = processors.BertProcessing(("[SEP]", tokenizer.sep_id), ("[CLS]", tokenizer.cls_id))
    if kind == "sequence":
        made.post_processor = processors.Sequence([made.post_processor])
    without = TextTokenizer(made.to_str(), config)
    assert without.content == made.to_str()
    for one in (without, pickle.loads(pickle.dumps(without))):
        whole, expected = one.encode("hello, a b", "hello"), tokenizer.encode("hello, a b", "hello")
        assert set(expected.type_ids) == {0, 1}
        assert set(whole.type_ids) == {0}
        assert (whole.ids, whole.sequence_ids) == (expected.ids, expected.sequence_ids)
        windows = one.windows("hello, a b a b a b", "hello", max_length=8, truncation="only_first")
        assert len(windows) > 1
        assert not any(any(window.type_ids) for window in windows)
    fed = TextTokenizer(made.to_str(), config | {"model_input_names": ["input_ids", "token_type_ids"]})
    assert fed.encode("hello, a b", "hello").type_ids == expected.type_ids


@given(TEXTS, st.none() | TEXTS, st.integers(5, 24), st.integers(0, 7), st.sampled_from(STRATEGIES))
@settings(max_examples=1500, suppress_health_check=list(HealthCheck))
def test_windows_of_generated_texts_equal_transformers(
    tokenizer: TextTokenizer,
    theirs: Any,
    text: str,
    pair: str | None,
    max_length: int,
    stride: int,
    truncation: Any,
) -> None:
    setting = {"max_length": max_length, "stride": stride, "truncation": truncation}
    try:
        windows = tokenizer.windows(text, pair, **setting, allow_special=True)
    except InputError:
        assert_refused_with_reason(tokenizer, text, pair, **setting)
        return
    assert seen(windows) == their_windows(theirs, text, pair, **setting)


def assert_refused_with_reason(
    tokenizer: TextTokenizer, text: str, pair: str | None, *, max_length: int, stride: int, truncation: str
) -> None:
    """Such a setting never works, or one of the texts that would be cut has no room for stride and a token."""
    special = 2 if pair is None else 3
    first, second = (len(ids) for ids in token_ids(tokenizer, text, pair or ""))
    if (truncation == "only_second" and pair is None) or max_length - special <= stride:
        return
    assert first + second > max_length - special
    if truncation == "longest_first":
        assert (max_length - special) // 2 <= stride
    else:
        assert max_length - special - (second if truncation == "only_first" else first) <= stride


def token_ids(tokenizer: TextTokenizer, *texts: str) -> list[list[int]]:
    return [encoding.ids[1:-1] for encoding in tokenizer.encode_batch(texts, allow_special=True)]


@given(TEXTS, st.none() | TEXTS, st.integers(8, 24), st.integers(0, 4))
@settings(suppress_health_check=list(HealthCheck))
def test_windows_hold_every_token_in_order_and_share_the_stride(
    tokenizer: TextTokenizer, text: str, pair: str | None, max_length: int, stride: int
) -> None:
    """For a text alone, and for a long text after a short question."""
    question = None if pair is None else pair[:2]
    first, second = (text, None) if question is None else (question, text)
    sequence = 0 if question is None else 1
    truncation: Any = "only_first" if question is None else "only_second"
    try:
        windows = tokenizer.windows(first, second, max_length=max_length, stride=stride, truncation=truncation)
    except InputError:
        return
    whole = tokenizer.encode(first, second)
    parts = [
        [
            (token, offsets)
            for token, offsets, at in zip(window.ids, window.offsets, window.sequence_ids, strict=True)
            if at == sequence
        ]
        for window in [whole, *windows]
    ]
    expected, found = parts[0], parts[1]
    for before, part in pairwise(parts[1:]):
        assert before[len(before) - stride :] == part[:stride]
        assert len(part) > stride
        found = found + part[stride:]
    assert found == expected
    assert all(len(window) <= max_length for window in windows)
    assert all(window.ids[0] == 2 and window.ids[-1] == 3 for window in windows)


def test_the_question_stands_in_every_window(tokenizer: TextTokenizer) -> None:
    windows = tokenizer.windows("hello?", "un a b 1", max_length=7, stride=1, truncation="only_second")
    assert [window.tokens for window in windows] == [
        ["[CLS]", "hello", "?", "[SEP]", "un", "a", "[SEP]"],
        ["[CLS]", "hello", "?", "[SEP]", "a", "b", "[SEP]"],
        ["[CLS]", "hello", "?", "[SEP]", "b", "1", "[SEP]"],
    ]
    assert [window.type_ids for window in windows] == [[0, 0, 0, 0, 1, 1, 1]] * 3
    assert windows[2].offsets == [(0, 0), (0, 5), (5, 6), (0, 0), (5, 6), (7, 8), (0, 0)]


def test_special_tokens_in_a_text_are_plain_text_unless_allowed(tokenizer: TextTokenizer) -> None:
    plain = tokenizer.windows("[SEP] a [MASK]", max_length=5)
    assert [window.tokens[1:-1] for window in plain] == [["[", "sep", "]"], ["a", "[", "mask"], ["]"]]
    allowed = tokenizer.windows("[SEP] a [MASK]", max_length=4, allow_special=True)
    assert [window.tokens[1:-1] for window in allowed] == [["[SEP]", "a"], ["[MASK]"]]
    again = pickle.loads(pickle.dumps(tokenizer)).windows("[SEP] a [MASK]", max_length=5)
    assert seen(again) == seen(plain)


def test_a_text_that_fits_is_one_window(tokenizer: TextTokenizer) -> None:
    assert seen(tokenizer.windows("a b", "un", max_length=6)) == seen([tokenizer.encode("a b", "un")])
    assert seen(tokenizer.windows("", max_length=3)) == seen([tokenizer.encode("")])
    assert len(tokenizer.windows("a b", max_length=3)) == 2


@pytest.mark.parametrize(
    ("pair", "setting", "message"),
    [
        (
            None,
            {"max_length": 2},
            'field "max_length": 2 is too small for 2 special tokens and more than stride 0.*at least 3',
        ),
        (None, {"max_length": 0}, "at least 3"),
        (None, {"max_length": -9}, "at least 3"),
        ("b", {"max_length": 3}, "at least 4"),
        (None, {"max_length": 8, "stride": 6}, "stride 6.* at least 9, or a smaller stride"),
        (None, {"max_length": 8, "stride": 60}, "at least 63"),
        (None, {"max_length": 8, "stride": -1}, 'field "stride": -1 is negative'),
        (None, {"max_length": 8, "truncation": "only_second"}, 'field "truncation": there is no second.*"only_first"'),
        (None, {"max_length": 8, "truncation": "first"}, "'first' is none of longest_first, only_first, only_second"),
        ("b " * 9, {"max_length": 12, "truncation": "only_first"}, "12 leaves 0 tokens for a text that is cut"),
        ("b " * 99, {"max_length": 12, "truncation": "only_first"}, "12 leaves 0 tokens"),
        ("b " * 9, {"max_length": 13, "stride": 1, "truncation": "only_first"}, "leaves 1 tokens.*stride is 1"),
        ("b " * 9, {"max_length": 9, "stride": 3}, "leaves 3 tokens.*stride is 3"),
    ],
)
def test_a_setting_that_cannot_move_on_is_refused_with_the_fix(
    tokenizer: TextTokenizer, pair: str | None, setting: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        tokenizer.windows("a " * 20, pair, **setting)
    assert "\n" not in str(caught.value)


def test_a_lone_surrogate_is_an_input_error(tokenizer: TextTokenizer) -> None:
    with pytest.raises(InputError, match="lone surrogate"):
        tokenizer.windows("a\ud800", max_length=8)


def test_threads_with_different_settings_do_not_disturb_each_other(tokenizer: TextTokenizer) -> None:
    text = "hello un a b, " * 40
    jobs = list(product([8, 9, 20, 50], [0, 1, 3], [True, False])) * 6

    def work(job: tuple[int, int, bool]) -> list[Any]:
        max_length, stride, allow = job
        windows = tokenizer.windows(text, max_length=max_length, stride=stride, allow_special=allow)
        return [*seen(windows), *seen([tokenizer.encode(text, allow_special=allow)])]

    expected = {job: work(job) for job in jobs}
    with ThreadPoolExecutor(8) as pool:
        for job, answer in zip(jobs, pool.map(work, jobs), strict=True):
            assert answer == expected[job]
            assert len(answer[-1][0]) == 202
