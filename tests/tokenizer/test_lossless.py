"""The vocabulary of models that write: no character is lost, and transformers encodes alike."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.tokenizer.directory import load_tokenizer
from bertsmith.tokenizer.lossless import train_lossless
from bertsmith.tokenizer.text_tokenizer import TextTokenizer

TEXTS = [
    "Ein Boston-Terrier läuft über saftig-grünes Gras vor einem weißen Zaun.",
    "A Boston Terrier is running on lush green grass, in front of a white fence.",
    "Fünf Leute in Winterjacken und mit Helmen stehen im Schnee; „Schneemobile“ sind im Hintergrund (links).",
    "A man's 3/4-length T-shirt reads: \"don't walk\" - it isn't clear why…",
]
ODD = ["", " two  spaces ", "a\tb\nc", "[SEP] is text", "漢字 😀 e\u0301", "x" * 300, "\x00\x1f"]


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return train_lossless(TEXTS * 3, vocab_size=400, model_max_length=64)


@pytest.mark.parametrize("text", [*TEXTS, *ODD])
def test_texts_come_back_as_they_were(text: str, tokenizer: TextTokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode_ids([text])[0]) == text
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_comes_back(text: str) -> None:
    small = train_lossless(["ab ab"], vocab_size=261, model_max_length=64)
    assert small.decode(small.encode_ids([text])[0]) == text


def test_transformers_reads_the_directory_alike(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.fingerprint == tokenizer.fingerprint
    for text in [*TEXTS, *ODD[:3], *ODD[4:]]:
        ids = tokenizer.encode(text).ids
        assert theirs(text)["input_ids"] == ids == again.encode(text).ids
        assert theirs.decode(ids, skip_special_tokens=True) == text
    pair = tokenizer.encode("a b", "c")
    assert theirs("a b", "c")["token_type_ids"] == pair.type_ids
    assert theirs.model_max_length == 64
    assert (theirs.pad_token_id, theirs.sep_token_id) == (tokenizer.pad_id, tokenizer.sep_id)


def test_the_size_is_a_bound_and_bytes_are_always_there(tokenizer: TextTokenizer) -> None:
    assert tokenizer.vocab_size == 400
    assert train_lossless(["ab"], vocab_size=400, model_max_length=64).vocab_size == 261
    assert tokenizer.unk_id not in tokenizer.encode_ids(["漢字 \U0010ffff"])[0]


def test_another_process_learns_the_same() -> None:
    code = (
        "from tests.tokenizer.test_lossless import TEXTS, train_lossless\n"
        "print(train_lossless(TEXTS * 3, vocab_size=400, model_max_length=64).fingerprint)"
    )
    run = [subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(2)]
    assert run[0] == run[1]
