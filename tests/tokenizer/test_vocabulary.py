"""A directory with vocab.txt and no tokenizer.json: read as transformers reads it, or refused with the reason."""

from __future__ import annotations

import json
import logging
import pickle
from pathlib import Path
from typing import Any

import pytest
from transformers import BertTokenizer

from bertsmith import files
from bertsmith.errors import InputError
from bertsmith.tokenizer.directory import load_tokenizer, tokenizer_from_vocabulary
from bertsmith.tokenizer.text_tokenizer import NO_LIMIT, TextTokenizer
from bertsmith.tokenizer.vocabulary import read_vocabulary

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = [*SPECIALS, "a", "b", "##a", "##b", "hello", ",", "[", "]", "e", "##1", "é"]
TEXTS = ["a ab, hello!", "[E1] x[E1]y [e1] [MASK]a", "ENT ent aENT", "A [MASK] <s> </s>", ""]


def write(directory: Path, lines: list[str] | bytes = PIECES, **contents: Any) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    vocabulary = lines if isinstance(lines, bytes) else "".join(f"{line}\n" for line in lines).encode()
    (directory / "vocab.txt").write_bytes(vocabulary)
    for name, content in contents.items():
        (directory / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return directory


def assert_as_transformers(directory: Path, texts: list[str] = TEXTS) -> TextTokenizer:
    ours, theirs = load_tokenizer(directory), BertTokenizer.from_pretrained(directory)
    wanted = theirs(texts, return_offsets_mapping=True)
    for text, ids, offsets in zip(texts, wanted["input_ids"], wanted["offset_mapping"], strict=True):
        encoding = ours.encode(text, allow_special=True)
        assert encoding.ids == ids, text
        assert encoding.offsets == offsets, text
    for role, token in ours.special_tokens.items():
        assert (token, ours.token(getattr(ours, role.replace("token", "id")))) == (getattr(theirs, role), token)
    return ours


def test_vocab_txt_alone_gives_the_tokenizer_of_bert(tmp_path: Path) -> None:
    tokenizer = assert_as_transformers(write(tmp_path))
    assert tokenizer.encode("É A").tokens == ["[CLS]", "e", "a", "[SEP]"]
    assert tokenizer.encode("[MASK]").tokens[1:-1] == ["[", "[UNK]", "]"]
    assert tokenizer.encode("a " + "a" * 100 + " " + "a" * 101).ids[-3:] == [7, 1, 3]
    assert (tokenizer.vocab_size, tokenizer.model_max_length) == (16, NO_LIMIT)
    again = pickle.loads(pickle.dumps(tokenizer))
    assert again.encode("hello, É").ids == tokenizer.encode("hello, É").ids


def test_what_was_read_from_vocab_txt_is_written_as_any_tokenizer(tmp_path: Path) -> None:
    config = {
        "do_lower_case": False,
        "strip_accents": True,
        "model_max_length": 77,
        "tokenizer_class": "ElectraTokenizer",
    }
    first = load_tokenizer(write(tmp_path / "one", tokenizer_config=config))
    first.save(tmp_path / "two")
    second = load_tokenizer(tmp_path / "two")
    assert (second.fingerprint, second.config) == (first.fingerprint, first.config)
    assert {key: second.config[key] for key in config} == config
    assert second.config["tokenize_chinese_chars"] is True
    assert second.model_max_length == 77
    assert (tmp_path / "two" / "vocab.txt").read_bytes() == (tmp_path / "one" / "vocab.txt").read_bytes()
    (tmp_path / "two" / "tokenizer.json").unlink()
    assert_as_transformers(tmp_path / "two")
    assert load_tokenizer(tmp_path / "two").fingerprint == first.fingerprint


def test_a_bare_file_is_read_with_the_settings_that_are_given(tmp_path: Path) -> None:
    file = write(tmp_path / "google") / "vocab.txt"
    google = tokenizer_from_vocabulary(file, {"max_input_chars_per_word": 200, "do_lower_case": False})
    assert google.encode("a" * 200).ids == [2, 5, *[7] * 199, 3]
    assert google.encode("a" * 201).ids == google.encode("A").ids == [2, 1, 3]
    assert tokenizer_from_vocabulary(file, {}).encode("A").ids == [2, 5, 3]


def test_line_ends_and_white_space_at_the_end_of_lines_are_no_part_of_pieces(tmp_path: Path) -> None:
    text = "".join(f"{piece}\n" for piece in PIECES)
    expected = assert_as_transformers(write(tmp_path / "plain", text.encode())).fingerprint
    for number, same in enumerate([text.replace("\n", "\r\n"), text.replace("\n", " \t\u3000\n"), text[:-1]]):
        directory = write(tmp_path / str(number), same.encode())
        assert assert_as_transformers(directory).fingerprint == expected
    assert load_tokenizer(write(tmp_path / "end", f"{text}\n\r\n \n".encode())).fingerprint == expected


def test_ids_are_line_numbers_also_after_an_empty_line(tmp_path: Path) -> None:
    lines = [*SPECIALS, "a", "", "##a", "\x1cb\x1c", "", "b", "\u2028c\u2029", "x\ry"]
    tokenizer = assert_as_transformers(write(tmp_path, lines), ["a b", "aa", "c", "x y xy"])
    assert list(read_vocabulary(tmp_path / "vocab.txt"))[7:] == ["##a", "\x1cb\x1c", "b", "\u2028c", "x\ry"]
    assert tokenizer.encode("aa b").ids == [2, 5, 7, 10, 3]
    assert tokenizer.vocab_size == 13


def test_of_two_equal_lines_the_later_is_the_id_and_both_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "bertsmith"):
        tokenizer = assert_as_transformers(write(tmp_path, [*PIECES, "a", "c"]), ["a ab", "c b"])
    assert f'{tmp_path / "vocab.txt"}:17: "a" stands in line 6 too' in caplog.text
    assert tokenizer.encode("a b c").ids == [2, 16, 6, 17, 3]
    assert tokenizer.vocab_size == 18  # a model needs a row for each line
    tokenizer.save(tmp_path / "saved")
    assert load_tokenizer(tmp_path / "saved").fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize("place", ["tokenizer_config", "special_tokens_map"])
@pytest.mark.parametrize("form", ["string", "object"])
def test_special_tokens_by_other_names(tmp_path: Path, place: str, form: str) -> None:
    names = dict(zip(["pad_token", "unk_token", "cls_token", "sep_token", "mask_token"], "PUSEM", strict=True))
    tokens: dict[str, Any] = {role: f"<{name}>" for role, name in names.items()}
    lines = [*tokens.values(), "a", "<", ">", "m"]
    if form == "object":
        tokens = {role: {"content": token, "lstrip": role == "mask_token"} for role, token in tokens.items()}
        if place == "tokenizer_config":  # transformers knows an object in this file by a mark
            tokens = {role: token | {"__type": "AddedToken", "special": True} for role, token in tokens.items()}
    directory = write(tmp_path, lines, **{place: tokens})
    tokenizer = assert_as_transformers(directory, ["a a", "a <M>", "<m> <M>", "[MASK]"])
    assert tokenizer.encode("a x").ids == [2, 5, 1, 3]
    assert tokenizer.encode("a <M>", allow_special=True).offsets[2] == ((1, 5) if form == "object" else (2, 5))
    tokenizer.save(tmp_path / "saved")
    assert load_tokenizer(tmp_path / "saved").fingerprint == tokenizer.fingerprint


def test_the_special_tokens_map_counts_unless_added_tokens_have_ids(tmp_path: Path) -> None:
    mapped, named = {"mask_token": "<m>"}, {"mask_token": "<n>"}
    lines = [*PIECES, "<m>", "<n>"]
    write(tmp_path, lines, special_tokens_map=mapped, tokenizer_config=named)
    assert assert_as_transformers(tmp_path, ["a <m> <n>"]).special_tokens["mask_token"] == "<m>"
    write(tmp_path, lines, tokenizer_config=named | {"added_tokens_decoder": {"17": {"content": "<n>"}}})
    assert assert_as_transformers(tmp_path, ["a <m> <n>"]).special_tokens["mask_token"] == "<n>"


NUMBERED = {
    "16": {"content": "[E1]", "special": True},
    "17": {
        "content": "ENT",
        "lstrip": False,
        "normalized": True,
        "rstrip": False,
        "single_word": True,
        "special": False,
    },
    "4": {"content": "[MASK]", "lstrip": True, "special": True},
}


@pytest.mark.parametrize(
    ("lines", "contents", "expected"),
    [
        (PIECES, {"tokenizer_config": {"added_tokens_decoder": NUMBERED}}, {"[E1]": 16, "ENT": 17}),
        (PIECES, {"added_tokens": {"ENT": 17, "[E1]": 16}}, {"[E1]": 16, "ENT": 17}),
        (
            PIECES,
            {"added_tokens": {"ENT": 17, "[E1]": 16}, "tokenizer_config": {"additional_special_tokens": ["[E1]"]}},
            {"[E1]": 16, "ENT": 17},
        ),
        (PIECES, {"tokenizer_config": {"extra_special_tokens": ["ENT", "[E1]"]}}, {"ENT": 16, "[E1]": 17}),
        (PIECES, {"special_tokens_map": {"extra_special_tokens": ["[E1]", {"content": "ENT"}]}}, {"ENT": 17}),
        (PIECES, {"special_tokens_map": {"bos_token": "<s>", "eos_token": "</s>"}}, {"<s>": 16, "</s>": 17}),
        (
            [*SPECIALS[:4], *PIECES[5:]],
            {"tokenizer_config": {"added_tokens_decoder": {"15": {"content": "[MASK]", "normalized": False}}}},
            {"[MASK]": 15},
        ),
        (
            PIECES[:9],
            {"tokenizer_config": {"added_tokens_decoder": {"10": {"content": "[E2]"}, "9": {"content": "[E1]"}}}},
            {"[E1]": 9, "[E2]": 10},
        ),
    ],
)
def test_added_tokens_are_found_and_numbered_as_in_transformers(
    tmp_path: Path, lines: list[str], contents: dict[str, Any], expected: dict[str, int]
) -> None:
    tokenizer = assert_as_transformers(write(tmp_path, lines, **contents))
    for token, number in expected.items():
        assert tokenizer.encode(token, allow_special=True).ids[1:-1] == [number]
    assert tokenizer.vocab_size == max(expected.values()) + 1
    assert tokenizer.mask_id not in tokenizer.encode_ids(["a [MASK]"])[0]
    tokenizer.save(tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved")
    assert (again.fingerprint, again.config) == (tokenizer.fingerprint, tokenizer.config)
    (tmp_path / "saved" / "tokenizer.json").unlink()
    assert load_tokenizer(tmp_path / "saved").fingerprint == tokenizer.fingerprint


def test_the_unknown_token_must_be_a_line(tmp_path: Path) -> None:
    config = {"added_tokens_decoder": {"15": {"content": "[UNK]", "special": True}}}
    found = refusal(write(tmp_path, [line for line in PIECES if line != "[UNK]"], tokenizer_config=config))
    assert "vocab.txt: unk_token [UNK]: not in the vocabulary" in found


def test_an_added_special_token_in_a_text_is_plain_unless_allowed(tmp_path: Path) -> None:
    config = {"added_tokens_decoder": NUMBERED, "never_split": ["[E1]", "[MASK]"]}
    tokenizer = load_tokenizer(write(tmp_path, tokenizer_config=config))
    assert tokenizer.encode("[E1] ENT").tokens[1:-1] == ["[", "e", "##1", "]", "ent"]
    assert tokenizer.encode("[E1] ENT", allow_special=True).ids[1:-1] == [16, 17]
    assert tokenizer.special_ids == (0, 1, 2, 3, 4, 16)


def refusal(directory: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_tokenizer(directory)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "vocab.txt: the file is empty"),
        (b"\n \r\n\n", "vocab.txt: the file is empty"),
        ("\n".join(PIECES).encode() + b"\n\xff\n", "vocab.txt:17: not UTF-8"),
        ("\n".join(PIECES).encode("utf-16"), "vocab.txt:1: not UTF-8"),
        (
            ("\ufeff" + "\n".join(PIECES)).encode(),
            "vocab.txt:1: it begins with a byte order mark; save the file without",
        ),
        (
            "\r".join(PIECES).encode(),
            "pad_token [PAD], unk_token [UNK], cls_token [CLS], sep_token [SEP], mask_token [MASK]",
        ),
        ("\n".join(PIECES[:4]).encode(), "vocab.txt: mask_token [MASK]: not in the vocabulary; add a line"),
        ("\n".join(PIECES[1:]).encode(), "vocab.txt: pad_token [PAD]: not in the vocabulary; add a line"),
    ],
)
def test_a_bad_vocabulary_is_refused_with_the_place_and_the_fix(tmp_path: Path, content: bytes, message: str) -> None:
    found = refusal(write(tmp_path, content))
    assert found.startswith(str(tmp_path / "vocab.txt"))
    assert message in found


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"do_lower_case": "yes"}, 'field "do_lower_case": true or false is needed, not "yes"'),
        ({"do_lower_case": None}, 'field "do_lower_case"'),
        ({"do_lower_case": 1}, 'field "do_lower_case"'),
        ({"tokenize_chinese_chars": []}, 'field "tokenize_chinese_chars"'),
        ({"strip_accents": "no"}, 'field "strip_accents"'),
        ({"do_basic_tokenize": False}, 'field "do_basic_tokenize"'),
        ({"never_split": "C++"}, 'field "never_split": a list of strings is needed, not "C\\+\\+"'),
        ({"never_split": ["a", 1]}, 'field "never_split": a list of strings'),
        ({"never_split": {"a": 1}}, 'field "never_split": a list of strings'),
        ({"never_split": ["hello"], "max_input_chars_per_word": 4}, 'field "never_split": "hello".* raise that to 5'),
        ({"max_input_chars_per_word": 0}, 'field "max_input_chars_per_word": a number of at least 1'),
        ({"max_input_chars_per_word": True}, 'field "max_input_chars_per_word"'),
        ({"max_input_chars_per_word": "200"}, 'field "max_input_chars_per_word"'),
        ({"max_input_chars_per_word": None}, 'field "max_input_chars_per_word"'),
        ({"tokenizer_class": "BertJapaneseTokenizer"}, 'field "tokenizer_class": "BertJapaneseTokenizer" has rules'),
        ({"tokenizer_class": 7}, 'field "tokenizer_class": 7 has rules'),
        ({"model_max_length": "many"}, "model_max_length"),
        ({"mask_token": 7}, 'field "mask_token": a token is a string or an object with "content", not 7'),
        ({"mask_token": {"lstrip": True}}, 'field "mask_token": a token is a string'),
        ({"mask_token": {"content": "[MASK]", "lstrip": "yes"}}, '"lstrip" of "\\[MASK\\]" must be true or false'),
        ({"additional_special_tokens": "[E1]"}, 'field "additional_special_tokens": a list of tokens'),
        ({"additional_special_tokens": [1]}, 'field "additional_special_tokens": a token is a string'),
        ({"added_tokens_decoder": ["[E1]"]}, 'field "added_tokens_decoder": an object from ids to tokens'),
        ({"added_tokens_decoder": {"x": "[E1]"}}, 'field "added_tokens_decoder": an object from ids to tokens'),
        ({"added_tokens_decoder": {"16": 1}}, 'field "added_tokens_decoder": a token is a string'),
        ({"added_tokens_decoder": {"20": {"content": "[E1]"}}}, '"\\[E1\\]" has id 20, where 16 is next'),
        ({"added_tokens_decoder": {"7": {"content": "hello"}}}, '"hello" has id 7, where 9 is next'),
    ],
)
def test_a_bad_setting_is_refused_with_its_field(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    directory = write(tmp_path, tokenizer_config=config)
    with pytest.raises(InputError, match=message):
        load_tokenizer(directory)
    assert refusal(directory).startswith(str(tmp_path / "tokenizer_config.json"))
    with pytest.raises(InputError, match=message):
        tokenizer_from_vocabulary(directory / "vocab.txt", config)


def test_other_bad_files_are_refused_by_name(tmp_path: Path) -> None:
    directory = write(tmp_path, tokenizer_config=[1])
    assert "tokenizer_config.json: not a JSON object" in refusal(directory)
    write(tmp_path, tokenizer_config={}, added_tokens={"[E1]": "16"})
    assert 'added_tokens.json: field "[E1]": an id is a number, not "16"' in refusal(directory)
    write(tmp_path, [*PIECES, "a"], added_tokens={}, tokenizer_config={"additional_special_tokens": ["[E1]"]})
    assert '"[E1]" would get id 16, which is taken, as the vocabulary has a line twice' in refusal(directory)
    (tmp_path / "vocab.txt").unlink()
    assert "no tokenizer.json in it, and no vocab.txt" in refusal(directory)
    with pytest.raises(InputError, match=r"vocab.txt: no such file"):
        tokenizer_from_vocabulary(tmp_path / "vocab.txt", {})


def test_a_changed_byte_is_noticed_where_a_manifest_lists_the_files(tmp_path: Path) -> None:
    write(tmp_path, tokenizer_config={})
    files.write_manifest(tmp_path, {}, kind="tokenizer")
    load_tokenizer(tmp_path)
    write(tmp_path, [*PIECES[:-1], "è"])
    assert "SHA-256" in refusal(tmp_path)
