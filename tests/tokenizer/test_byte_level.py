"""vocab.json and merges.txt: added tokens and their flags are those of transformers' `RobertaTokenizer`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import pre_tokenizers
from transformers import RobertaTokenizer

from bertsmith.errors import InputError
from bertsmith.tokenizer.directory import load_tokenizer
from tests.interop.families import ROBERTA

NEXT = 5 + 256 + 3
"""The id after the vocabulary."""
TEXTS = ["the [E1] fox [E2]jumps", "a <mask> ball", "<s> the  cat<pad>", " two  spaces ", ""]
FLAGS = {"__type": "AddedToken", "lstrip": False, "rstrip": True, "normalized": False, "single_word": False}
NO_STRIP = {"mask_token": FLAGS | {"content": "<mask>", "rstrip": False}}


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    directory = tmp_path / "pair"
    directory.mkdir()
    pieces = [*ROBERTA, *sorted(pre_tokenizers.ByteLevel.alphabet()), "th", "the", "\u0120a"]
    (directory / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(pieces)}))
    (directory / "merges.txt").write_text("t h\nth e\n\u0120 a\n", encoding="utf-8")
    return directory


def write(pair: Path, **contents: Any) -> Path:
    for name, content in contents.items():
        (pair / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return pair


@pytest.mark.parametrize(
    ("contents", "added"),
    [
        ({"added_tokens": {"[E1]": NEXT, "[E2]": NEXT + 1}, "tokenizer_config": NO_STRIP}, 2),
        (
            {
                "tokenizer_config": {
                    "added_tokens_decoder": {
                        str(NEXT + 1): {"content": "[E2]", "special": True},
                        str(NEXT): {"content": "[E1]", "lstrip": True},
                        "4": {"content": "<mask>", "rstrip": True, "special": True},
                    }
                }
            },
            2,
        ),
        ({"tokenizer_config": NO_STRIP | {"additional_special_tokens": ["[E2]"]}}, 1),
        ({"tokenizer_config": NO_STRIP | {"extra_special_tokens": {"entity_token": "[E1]"}}}, 1),
        ({"tokenizer_config": {"mask_token": FLAGS | {"content": "<mask>"}, "trim_offsets": False}}, 0),
        ({"tokenizer_config": NO_STRIP | {"bos_token": "[E1]", "eos_token": "[E2]"}}, 2),
    ],
)
def test_added_tokens_and_their_flags_are_those_of_transformers(
    pair: Path, tmp_path: Path, contents: dict[str, Any], added: int
) -> None:
    ours, theirs = load_tokenizer(write(pair, **contents)), RobertaTokenizer.from_pretrained(pair)
    assert ours.vocab_size == len(theirs) == NEXT + added
    ours.save(tmp_path / "saved")
    again = RobertaTokenizer.from_pretrained(tmp_path / "saved")
    for text in TEXTS:
        expected = theirs(text, "a pair", return_offsets_mapping=True)
        encoding = ours.encode(text, "a pair", allow_special=True)
        assert (encoding.ids, encoding.offsets) == (expected["input_ids"], expected["offset_mapping"]), text
        assert again(text, "a pair")["input_ids"] == encoding.ids, text
        assert not {*ours.special_ids} & {*ours.encode_ids([text])[0]}, text


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"added_tokens": {"[E1]": NEXT + 1}}, f'"\\[E1\\]" has id {NEXT + 1}, where {NEXT} is next'),
        ({"tokenizer_config": {"mask_token": 7}}, 'field "mask_token": a token is a string or an object'),
        ({"tokenizer_config": {"trim_offsets": "no"}}, 'field "trim_offsets": true or false is needed'),
    ],
)
def test_a_bad_setting_is_refused_with_its_field(pair: Path, contents: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_tokenizer(write(pair, **contents))
    assert str(caught.value).startswith(str(pair / "tokenizer_config.json"))
