"""`tokenizer.directory`: what is written loads again, and encoding keeps its promises."""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from bertsmith import files
from bertsmith.errors import InputError
from bertsmith.tokenizer.bert import bert_tokenizer
from bertsmith.tokenizer.directory import load_tokenizer, write_tokenizer
from bertsmith.tokenizer.text_tokenizer import NO_LIMIT, TextTokenizer

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = [
    "un",
    "##aff",
    "##able",
    "a",
    "##b",
    "##a",
    "b",
    "hello",
    "cafe",
    ",",
    "[",
    "]",
    "mask",
    "中",
    "café",
    "Hello",
]
VOCABULARY = {piece: number for number, piece in enumerate(SPECIALS + PIECES)}


def make(directory: Path, *, vocabulary: dict[str, int] | None = None, **changes: Any) -> TextTokenizer:
    switches: dict[str, Any] = {"lowercase": True, "strip_accents": None, "chinese_chars": True} | changes
    write_tokenizer(directory, bert_tokenizer(vocabulary or VOCABULARY, **switches), model_max_length=64)
    return load_tokenizer(directory)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return make(tmp_path_factory.mktemp("made"))


def tokens(tokenizer: TextTokenizer, text: str) -> list[str]:
    return [tokenizer.token(number) for number in tokenizer.encode_ids([text])[0]]


def test_the_directory_tells_all_there_is_to_know(tmp_path: Path) -> None:
    tokenizer = make(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"]
    )
    assert (tmp_path / "vocab.txt").read_text(encoding="utf-8").splitlines() == SPECIALS + PIECES
    assert tokenizer.fingerprint == hashlib.sha256((tmp_path / "tokenizer.json").read_bytes()).hexdigest()
    assert tokenizer.vocab_size == len(VOCABULARY)
    ids = (tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id)
    assert ids == tokenizer.special_ids == (0, 1, 2, 3, 4)
    assert tokenizer.model_max_length == 64
    with pytest.raises(KeyError):
        tokenizer.token(999)


def test_a_sequence_and_a_pair_get_their_ends_and_types(tokenizer: TextTokenizer) -> None:
    one = tokenizer.encode("Hello, unaffable")
    assert one.tokens == ["[CLS]", "hello", ",", "un", "##aff", "##able", "[SEP]"]
    assert one.type_ids == [0] * 7
    assert one.offsets == [(0, 0), (0, 5), (5, 6), (7, 9), (9, 12), (12, 16), (0, 0)]
    two = tokenizer.encode("a", "b ab")
    assert two.tokens == ["[CLS]", "a", "[SEP]", "b", "a", "##b", "[SEP]"]
    assert two.type_ids == [0, 0, 0, 1, 1, 1, 1]
    assert two.special_tokens_mask == [1, 0, 1, 0, 0, 0, 1]
    assert tokenizer.encode("").ids == [2, 3]
    assert tokenizer.encode("", "").ids == [2, 3, 3]
    mixed = tokenizer.encode_batch(["a", "b"], [None, "a"])
    assert [encoding.ids for encoding in mixed] == [tokenizer.encode("a").ids, tokenizer.encode("b", "a").ids]
    with pytest.raises(ValueError, match="zip"):
        tokenizer.encode_batch(["a", "b"], ["a"])


def test_switches_change_what_is_read(tmp_path: Path) -> None:
    assert tokens(make(tmp_path / "uncased"), "HELLO Café 中a") == ["hello", "cafe", "中", "a"]
    assert tokens(make(tmp_path / "accents", strip_accents=False), "CAFÉ") == ["café"]
    cased = make(tmp_path / "cased", lowercase=False)
    assert tokens(cased, "Hello hello café cafe") == ["Hello", "hello", "café", "cafe"]
    assert tokens(make(tmp_path / "both", lowercase=False, strip_accents=True), "Hello café") == ["Hello", "cafe"]
    assert tokens(make(tmp_path / "chinese", chinese_chars=False), "中a a中") == ["中", "##a", "[UNK]"]


TEXT = st.text(
    st.sampled_from("unaffablehécCHELO,.[]- 中国\u0301\x00\u200b\t\ufffdİ한\U0001f600")
    | st.characters(exclude_categories=["Cs"])
)


@given(TEXT, TEXT)
@settings(max_examples=300)
def test_offsets_point_into_the_original_text(tokenizer: TextTokenizer, text: str, pair: str) -> None:
    encoding = tokenizer.encode(text, pair)
    sources = {0: text, 1: pair}
    ends = {0: 0, 1: 0}
    for token, (start, end), sequence in zip(encoding.tokens, encoding.offsets, encoding.sequence_ids, strict=True):
        if sequence is None:
            assert token in SPECIALS
            continue
        source = sources[sequence]
        assert ends[sequence] <= start < end <= len(source)
        ends[sequence] = end
        assert source[start:end].strip() == source[start:end]
        if token != "[UNK]" and source[start:end].isascii() and source[start:end].isprintable():
            assert source[start:end].lower() == token.removeprefix("##")


@given(st.lists(st.sampled_from(["un", "a", "b", "hello", "cafe", "mask", "unaffable", "ab"])))
def test_known_words_come_back_from_their_ids(tokenizer: TextTokenizer, words: list[str]) -> None:
    text = " ".join(words)
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids, skip_special_tokens=False) == f"[CLS] {text} [SEP]".replace("  ", " ")


@given(st.lists(TEXT, max_size=5))
def test_a_text_s_ids_do_not_depend_on_its_neighbours(tokenizer: TextTokenizer, texts: list[str]) -> None:
    together = tokenizer.encode_ids(texts)
    assert together == [tokenizer.encode_ids([text])[0] for text in texts]
    assert together == [encoding.ids[1:-1] for encoding in tokenizer.encode_batch(texts)]
    assert not {0, 2, 3, 4} & {number for ids in together for number in ids}


@pytest.mark.parametrize("copy", [lambda t: t, lambda t: pickle.loads(pickle.dumps(t))])
def test_special_tokens_in_a_text_are_plain_text_unless_allowed(tokenizer: TextTokenizer, copy: Any) -> None:
    tokenizer = copy(tokenizer)
    text = "a [MASK] [SEP]"
    plain = ["[", "mask", "]"]
    assert tokens(tokenizer, text) == ["a", *plain, "[", "[UNK]", "]"]
    assert tokenizer.encode(text).tokens[1:-1] == tokens(tokenizer, text)
    assert tokenizer.encode("a", text).tokens[4:7] == plain
    assert tokenizer.encode(text, allow_special=True).tokens == ["[CLS]", "a", "[MASK]", "[SEP]", "[SEP]"]
    assert tokenizer.encode_batch([text], allow_special=True)[0].ids == [2, 8, 4, 3, 3]
    assert tokenizer.encode(text).tokens[1:-1] == tokens(tokenizer, text)


def test_nothing_is_truncated_or_padded(tokenizer: TextTokenizer) -> None:
    lengths = [len(ids) for ids in tokenizer.encode_ids(["a " * 9_999, "a"])]
    assert lengths == [9_999, 1]
    assert [len(encoding.ids) for encoding in tokenizer.encode_batch(["a " * 700, ""])] == [702, 2]


def test_a_word_of_100_kb_is_one_unknown_token(tokenizer: TextTokenizer) -> None:
    started = time.monotonic()
    assert tokens(tokenizer, "a" * 100_000 + " b " + "a" * 101) == ["[UNK]", "b", "[UNK]"]
    assert tokens(tokenizer, "a" * 100) == ["a", *["##a"] * 99]
    assert time.monotonic() - started < 60  # not a speed test: quadratic work would take hours


def test_a_lone_surrogate_is_an_input_error_everywhere(tokenizer: TextTokenizer) -> None:
    bad = "x\ud800y"
    for call in (
        lambda: tokenizer.encode(bad),
        lambda: tokenizer.encode("a", bad),
        lambda: tokenizer.encode(bad, allow_special=True),
        lambda: tokenizer.encode_ids([bad]),
    ):
        with pytest.raises(InputError, match=r"^the text has a lone surrogate.*'x\\ud800y'"):
            call()
    with pytest.raises(InputError, match=r"^texts\[1\]: the text has a lone surrogate"):
        tokenizer.encode_ids(["a", bad])
    with pytest.raises(InputError, match=r"^texts\[1\]: the text has a lone surrogate"):
        tokenizer.encode_batch(["a", "b"], ["a", bad])
    with pytest.raises(TypeError):
        tokenizer.encode_ids([None])  # type: ignore[list-item]


def test_saving_what_was_loaded_changes_no_byte(tmp_path: Path) -> None:
    tokenizer = make(tmp_path / "one")
    tokenizer.save(tmp_path / "deep" / "two")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        assert (tmp_path / "deep" / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    assert load_tokenizer(tmp_path / "deep" / "two").fingerprint == tokenizer.fingerprint


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


@pytest.mark.parametrize("active", [("truncation", "padding"), ("truncation",), ("padding",)])
def test_truncation_and_padding_of_a_foreign_file_are_turned_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, active: tuple[str, ...]
) -> None:
    make(tmp_path)
    foreign = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    if "truncation" in active:
        foreign.enable_truncation(4)
    if "padding" in active:
        foreign.enable_padding(length=8)
    foreign.save(str(tmp_path / "tokenizer.json"))
    with caplog.at_level(logging.INFO, "bertsmith"):
        tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode("a b a b a").tokens == ["[CLS]", "a", "b", "a", "b", "a", "[SEP]"]
    assert "turned off" in caplog.text
    tokenizer.save(tmp_path / "again")
    assert load_tokenizer(tmp_path / "again").fingerprint == tokenizer.fingerprint


def test_other_names_of_the_special_tokens_are_read_from_either_file(tmp_path: Path) -> None:
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "a": 4, "<mask>": 5}
    roberta = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    roberta.pre_tokenizer = pre_tokenizers.Whitespace()
    roberta.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    roberta.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    roberta.save(str(tmp_path / "tokenizer.json"))
    mask = {"content": "<mask>", "lstrip": True}
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>", "mask_token": mask}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        (tmp_path / name).write_text(json.dumps(names))
        tokenizer = load_tokenizer(tmp_path)
        assert tokenizer.encode("a <mask>", allow_special=True).ids == [0, 4, 5, 2]
        assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.model_max_length) == (1, 3, NO_LIMIT)
        (tmp_path / name).unlink()
    assert load_tokenizer(tmp_path).special_tokens["cls_token"] == "<s>", "told by the vocabulary"
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] != "<s>"]
    content["model"]["vocab"]["<S>"] = content["model"]["vocab"].pop("<s>")
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r'pad_token "\[PAD\]" is not in the vocabulary'):
        load_tokenizer(tmp_path)


def test_what_is_not_a_tokenizer_is_refused_with_the_reason(tmp_path: Path) -> None:
    def refused(match: str, directory: Path = tmp_path) -> None:
        with pytest.raises(InputError, match=match) as caught:
            load_tokenizer(directory)
        assert str(directory) in str(caught.value)
        assert "\n" not in str(caught.value)

    refused("no such directory", tmp_path / "gone")
    refused("no tokenizer.json in it")
    make(tmp_path)
    path = tmp_path / "tokenizer.json"
    good = path.read_text(encoding="utf-8")
    refused("not a directory", path)
    for damaged in (good[: len(good) // 2], "", "\x00" * 99):
        path.write_text(damaged)
        refused("not valid JSON")
    path.write_bytes(b'{"a": "\xff"}')
    refused("not valid JSON")
    path.write_bytes('{"a": 1}'.encode("utf-16"))
    refused("not UTF-8")
    path.write_text("[1]")
    refused("not a JSON object")
    path.write_text('{"version": "1.0"}')
    refused("not a tokenizer that can be read")
    path.write_text(good, encoding="utf-8")
    for value in (True, "many", 0, -5):
        edit(tmp_path / "tokenizer_config.json", model_max_length=value)
        refused("model_max_length")
    edit(tmp_path / "tokenizer_config.json", model_max_length=64, mask_token=7)
    (tmp_path / "special_tokens_map.json").unlink()
    refused('field "mask_token": a token is a string')
    edit(tmp_path / "tokenizer_config.json", mask_token="[MASK]")
    load_tokenizer(tmp_path)


@pytest.mark.parametrize("token", SPECIALS)
def test_a_vocabulary_without_a_special_token_is_refused(tmp_path: Path, token: str) -> None:
    make(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text(path.read_text(encoding="utf-8").replace(token, "other"), encoding="utf-8")
    with pytest.raises(InputError, match=rf'"\{token[:-1]}\]" is not in the vocabulary'):
        load_tokenizer(tmp_path)


def test_a_tokenizer_that_adds_no_ends_or_knows_no_mask_is_refused(tmp_path: Path) -> None:
    make(tmp_path)
    path = tmp_path / "tokenizer.json"
    good = path.read_text(encoding="utf-8")
    edit(path, post_processor=None)
    with pytest.raises(InputError, match=r"no post_processor"):
        load_tokenizer(tmp_path)
    path.write_text(good, encoding="utf-8")
    edit(path, added_tokens=json.loads(good)["added_tokens"][:4])
    with pytest.raises(InputError, match=r"\[MASK\] is not among its added_tokens"):
        TextTokenizer(path.read_text(encoding="utf-8"), {})
    assert load_tokenizer(tmp_path).encode("[MASK]", allow_special=True).ids == [2, 4, 3], "told by the configuration"


def test_a_changed_byte_is_noticed_where_a_manifest_lists_the_files(tmp_path: Path) -> None:
    make(tmp_path)
    files.write_manifest(tmp_path, {}, kind="tokenizer")
    load_tokenizer(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"hello"', '"hellp"'), encoding="utf-8")
    with pytest.raises(InputError, match="SHA-256"):
        load_tokenizer(tmp_path)


def test_only_a_tokenizer_with_bert_s_normaliser_is_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="normaliser"):
        write_tokenizer(tmp_path, Tokenizer(models.WordPiece(VOCABULARY)), model_max_length=8)
    assert not list(tmp_path.iterdir())
