"""What stands only beside a tokenizer.json counts as in transformers: added tokens, and settings of BERT's class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, normalizers
from transformers import AutoTokenizer

from bertsmith.errors import InputError
from bertsmith.tokenizer.directory import load_tokenizer
from bertsmith.tokenizer.text_tokenizer import TextTokenizer
from tests.tokenizer.test_directory import VOCABULARY, edit, make

NEXT = len(VOCABULARY)
TEXTS = ["a Hello café[E1] ,b", "[E2]hello [e2] ENT", "  [MASK] un [MASK]", "中a 中", "CAFÉ [mask] hello", ""]
READS_FILE = {"tokenizer_class": "PreTrainedTokenizerFast"}
ENTITY = {"content": "[E1]", "lstrip": True, "normalized": False, "rstrip": False, "single_word": False}


def assert_as_transformers(directory: Path, out: Path) -> TextTokenizer:
    """The directory, and what is written of it, are read as by transformers."""
    ours = load_tokenizer(directory)
    for path in (directory, out):
        theirs = AutoTokenizer.from_pretrained(path)
        assert len(theirs) == ours.vocab_size
        for text in TEXTS:
            expected = theirs(text, return_offsets_mapping=True)
            encoding = ours.encode(text, allow_special=True)
            assert (encoding.ids, encoding.offsets) == (expected["input_ids"], expected["offset_mapping"]), text
            assert not {*ours.special_ids} & {*ours.encode_ids([text])[0]} - {ours.unk_id}
        ours.save(out)
    again = load_tokenizer(out)
    assert (again.fingerprint, again.config) == (ours.fingerprint, ours.config)
    return ours


@pytest.mark.parametrize("name", ["BertTokenizer", "PreTrainedTokenizerFast"])
@pytest.mark.parametrize(
    ("contents", "added"),
    [
        ({"tokenizer_config": {"added_tokens_decoder": {str(NEXT): ENTITY}}}, ["[E1]"]),
        ({"tokenizer_config": {"additional_special_tokens": ["[E2]", "[E1]"]}}, ["[E2]", "[E1]"]),
        ({"tokenizer_config": {"extra_special_tokens": ["[E1]", "hello"]}}, ["[E1]"]),
        ({"tokenizer_config": {"extra_special_tokens": {"entity_token": "[E2]"}}}, ["[E2]"]),
        ({"tokenizer_config": {"bos_token": "[E1]"}}, ["[E1]"]),
        ({"special_tokens_map": {"extra_special_tokens": [ENTITY]}}, ["[E1]"]),
        ({"added_tokens": {"[E2]": NEXT + 1, "ENT": NEXT, "[MASK]": 4}}, ["ENT", "[E2]"]),
        ({"tokenizer_config": {"added_tokens_decoder": {"4": ENTITY | {"content": "[MASK]", "special": True}}}}, []),
    ],
)
def test_tokens_that_tokenizer_json_lacks_are_added(
    tmp_path: Path, name: str, contents: dict[str, Any], added: list[str]
) -> None:
    make(tmp_path / "in")
    edit(tmp_path / "in" / "tokenizer_config.json", tokenizer_class=name)
    (tmp_path / "in" / "added_tokens.json").write_text("{}")
    for file, values in contents.items():
        edit(tmp_path / "in" / f"{file}.json", **values)
    if not contents.get("added_tokens"):
        (tmp_path / "in" / "added_tokens.json").unlink()
    ours = assert_as_transformers(tmp_path / "in", tmp_path / "out")
    assert [ours.token_id(token) for token in added] == list(range(NEXT, NEXT + len(added)))


@pytest.mark.parametrize(
    ("written", "config", "tokens"),
    [
        ({}, {"do_lower_case": False}, ["Hello", "café"]),
        ({}, {"do_lower_case": False, "tokenizer_class": "DistilBertTokenizerFast"}, ["Hello", "café"]),
        ({}, {"strip_accents": False}, ["hello", "café"]),
        ({}, {"tokenize_chinese_chars": False}, ["hello", "cafe"]),
        ({"lowercase": False}, {"do_lower_case": True}, ["hello", "cafe"]),
        ({"lowercase": False}, {"do_lower_case": False, "strip_accents": True}, ["Hello", "cafe"]),
        ({"lowercase": False}, {"do_lower_case": True} | READS_FILE, ["Hello", "café"]),
    ],
)
def test_settings_of_bert_s_class_count_more_than_tokenizer_json(
    tmp_path: Path, written: dict[str, Any], config: dict[str, Any], tokens: list[str]
) -> None:
    make(tmp_path / "in", **written)
    edit(tmp_path / "in" / "tokenizer_config.json", **config)
    ours = assert_as_transformers(tmp_path / "in", tmp_path / "out")
    assert ours.encode("Hello café").tokens[1:-1] == tokens


def test_settings_that_are_not_there_have_the_defaults_of_bert_s_class_if_it_is_named(tmp_path: Path) -> None:
    make(tmp_path / "in", lowercase=False)
    path = tmp_path / "in" / "tokenizer_config.json"
    path.write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    assert assert_as_transformers(tmp_path / "in", tmp_path / "out").encode("Hello").tokens[1] == "hello"
    path.write_text("{}")
    assert load_tokenizer(tmp_path / "in").encode("Hello").tokens[1] == "Hello"
    path.write_text('{"do_lower_case": true}')
    assert load_tokenizer(tmp_path / "in").encode("Hello").tokens[1] == "hello"


def test_a_file_that_says_the_same_or_has_a_normaliser_of_its_own_stays(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    written = make(tmp_path)
    assert written.content == file.read_text(encoding="utf-8")
    raw = Tokenizer.from_file(str(file))
    raw.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])
    raw.add_tokens([AddedToken("[E1]", lstrip=True)])
    raw.save(str(file))
    edit(tmp_path / "tokenizer_config.json", additional_special_tokens=["[MASK]"])
    own = load_tokenizer(tmp_path)
    assert own.content == file.read_text(encoding="utf-8")
    assert own.encode("Hello café").tokens[1:-1] == ["Hello", "cafe"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"added_tokens_decoder": {str(NEXT + 2): ENTITY}}, f'"\\[E1\\]" has id {NEXT + 2}, where {NEXT} is next'),
        ({"added_tokens_decoder": {"9": {"content": "[MASK]"}}}, '"\\[MASK\\]" has id 9, where 4 is next'),
        ({"do_lower_case": "yes"}, 'field "do_lower_case": true or false is needed'),
    ],
)
def test_a_bad_setting_is_refused_with_its_field(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    make(tmp_path)
    edit(tmp_path / "tokenizer_config.json", **config)
    with pytest.raises(InputError, match=message) as caught:
        load_tokenizer(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "tokenizer_config.json"))
