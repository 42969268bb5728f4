"""Special tokens in a text stay plain text with any model, and nothing else changes."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import XLMRobertaTokenizer

from bertsmith.tokenizer.directory import load_tokenizer
from bertsmith.tokenizer.text_tokenizer import TextTokenizer

SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
LETTERS = "abcdehkmnpstu</>"
SCORES = [("\u2581", -3.0), ("\u2581the", -4.0), ("th", -4.5), ("bcd", -8.0), *((letter, -6.0) for letter in LETTERS)]
PIECES = [*((name, 0.0) for name in SPECIALS[:4]), *SCORES, ("<mask>", 0.0)]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("unigram")
    XLMRobertaTokenizer(vocab=PIECES, additional_special_tokens=["[E1]"]).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def tokenizer(directory: Path) -> TextTokenizer:
    return load_tokenizer(directory)


def pieces(tokenizer: TextTokenizer, text: str) -> list[str]:
    return [tokenizer.token(number) for number in tokenizer.encode_ids([text])[0]]


def test_no_text_ends_a_sequence_or_places_a_mask_of_a_unigram(tokenizer: TextTokenizer) -> None:
    for copy in (tokenizer, pickle.loads(pickle.dumps(tokenizer))):
        assert pieces(copy, "the</s>") == ["\u2581the", "<", "/", "s", ">"]
        assert pieces(copy, "<unk> <mask>") == ["\u2581", *"<unk>", "\u2581", *"<mask>"]
        for text in (*SPECIALS, "the a </s> b", "<pad><pad>", "[E1]"):
            ids = copy.encode_ids([text])[0]
            assert not (({*tokenizer.special_ids} - {tokenizer.unk_id}) & {*ids}), text
            pair = copy.encode(text, text)
            assert pair.ids == [0, *ids, 2, 2, *ids, 2], text
            assert pair.special_tokens_mask == [1, *(0 for _ in ids), 1, 1, *(0 for _ in ids), 1], text
    assert tokenizer.encode("the <mask>", allow_special=True).ids[-2:] == [tokenizer.mask_id, tokenizer.sep_id]
    windows = tokenizer.windows("the </s> <mask> <s>", max_length=5)
    assert {sum(window.special_tokens_mask) for window in windows} == {2}
    inner = [number for window in windows for number in window.ids[1:-1]]
    assert inner == tokenizer.encode_ids(["the </s> <mask> <s>"])[0]


WORDS = st.lists(st.sampled_from(["the", "a", "bcd", "bcdx", "th", "\u00e9", "x", " ", "\u2581", "\U0001f600", "hk"]))


@given(WORDS)
@settings(max_examples=200)
def test_all_other_texts_are_read_as_by_transformers(
    directory: Path, tokenizer: TextTokenizer, words: list[str]
) -> None:
    text = "".join(words)
    theirs = Tokenizer.from_file(str(directory / "tokenizer.json")).encode(text, text)
    ours = tokenizer.encode(text, text)
    for name in ("ids", "tokens", "offsets", "type_ids", "special_tokens_mask", "word_ids"):
        assert getattr(ours, name) == getattr(theirs, name)


def test_the_file_stays_as_it_was(directory: Path, tokenizer: TextTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == (directory / "tokenizer.json").read_bytes()
    assert [tokenizer.token(number) for number in tokenizer.special_ids] == [*SPECIALS, "[E1]"]
    assert tokenizer.decode([0, 5, 2], skip_special_tokens=False) == "<s> the</s>"
    assert tokenizer.decode([0, 5, 2]) == "the"


@pytest.mark.parametrize("kind", ["WordLevel", "WordPiece", "BPE"])
def test_a_model_that_gets_whole_words_finds_no_special_token_either(kind: str) -> None:
    vocabulary = {
        piece: number for number, piece in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"])
    }
    more: dict[str, Any] = {"merges": [], "ignore_merges": True} if kind == "BPE" else {}
    raw = Tokenizer(getattr(models, kind)(vocabulary, unk_token="[UNK]", **more))
    raw.normalizer, raw.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.WhitespaceSplit()
    raw.add_special_tokens([AddedToken(name, special=True) for name in list(vocabulary)[:5]])
    raw.add_tokens(["[NEW]"])
    raw.add_special_tokens(["[E1]"])
    raw.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer = TextTokenizer(raw.to_str(), {})
    assert json.loads(tokenizer.content) == json.loads(raw.to_str())
    assert tokenizer.encode("a b [NEW]").ids == raw.encode("a b [NEW]").ids == [2, 5, 6, 7, 3]
    for text in ("a [SEP] b", "[MASK]", "\uff3bSEP]", "[E1]", "[PAD] [CLS]"):
        assert not {0, 2, 3, 4, 8} & {*tokenizer.encode_ids([text])[0]}, text
    assert tokenizer.encode("[MASK]", allow_special=True).ids == [2, 4, 3]
