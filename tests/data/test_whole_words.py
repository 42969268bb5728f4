"""Which tokens make up a word."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from bertsmith.data.whole_words import WordFinder, chinese_segmenter
from bertsmith.errors import InputError
from bertsmith.tokenizer.bert import bert_tokenizer
from bertsmith.tokenizer.text_tokenizer import TextTokenizer

PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "the",
    "rep",
    "##resent",
    "##ative",
    "said",
    "，",
    *"使用语言模型来预测",
]


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    vocabulary = {piece: number for number, piece in enumerate(PIECES)}
    built = bert_tokenizer(vocabulary, lowercase=True, strip_accents=None, chinese_chars=True)
    return TextTokenizer(built.to_str(), {})


def ids_of(tokenizer: TextTokenizer, text: str) -> np.ndarray:
    return np.array(tokenizer.encode(text).ids)


def test_pieces_that_continue_belong_to_the_word_before_them(tokenizer: TextTokenizer) -> None:
    ids = ids_of(tokenizer, "the representative said")
    assert WordFinder(tokenizer)(ids).tolist() == [0, 1, 2, 2, 2, 3, 4]
    assert WordFinder(tokenizer)(ids[3:]).tolist() == [0, 0, 1, 2], "a cut word begins where the sequence begins"


def test_chinese_characters_are_words_of_their_own_without_a_segmenter(tokenizer: TextTokenizer) -> None:
    assert WordFinder(tokenizer)(ids_of(tokenizer, "使用语言")).tolist() == [0, 1, 2, 3, 4, 5]


def test_a_segmenter_joins_chinese_characters_and_leaves_the_rest(tokenizer: TextTokenizer) -> None:
    finder = WordFinder(tokenizer, segment=chinese_segmenter())
    # [CLS] 使用 | 语言 | 模型 | the | rep ##resent | ， | 预测 | [SEP]
    found = finder(ids_of(tokenizer, "使用语言模型 the represent，预测"))
    assert found.tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 5, 5, 6, 7, 7, 8]


def test_without_the_segmenter_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rjieba", None)
    with pytest.raises(InputError, match=r'pip install "bertsmith\[zh\]"'):
        chinese_segmenter()
