"""The table of words gives the tokenizer's own ids, for every text and after every other text."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bertsmith.config.tokenizer import TokenizerOptions
from bertsmith.data import words
from bertsmith.data.words import WordTable, is_word_by_word
from bertsmith.tokenizer.directory import load_tokenizer
from bertsmith.tokenizer.text_tokenizer import TextTokenizer
from bertsmith.tokenizer.train import train_tokenizer

TEXT = "the cat sees Ünïcode! [SEP] don't, ß ς Σ 兰州 公交 e\u0301 ﬁ İ a\u200bb 1.5 한국 ∑\n" * 3

FLAGS = [
    {},
    {"lowercase": False},
    {"lowercase": False, "strip_accents": True, "chinese_chars": False},
    {"strip_accents": False},
]


@pytest.fixture(scope="module", params=range(len(FLAGS)))
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    flags = {"files": (folder / "text.txt",), "vocab_size": 60, "out": folder / "out", **FLAGS[request.param]}
    train_tokenizer(TokenizerOptions(**flags))
    return load_tokenizer(folder / "out")


SPACES = " \t\u00a0\u0085\x1c\x1f\x7f\u2028\u3000\u0301\u0345\ufeff\ufffd\u00ad\u200d"
odd = st.sampled_from([*TEXT, *SPACES, "[SEP]", "[UNK]"])
sentences = st.lists(
    st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(" cats")), max_size=30)
    | st.lists(odd, max_size=25).map("".join),
    max_size=6,
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(blocks=st.lists(sentences, max_size=4))
def test_ids_and_counts_are_those_of_whole_sentences(tokenizer: TextTokenizer, blocks: list[list[str]]) -> None:
    table = WordTable(tokenizer)
    assert table.separator == " "
    for block in blocks:
        expected = tokenizer.encode_ids(block)
        ids, counts = table(block)
        assert ids.tolist() == [token for sentence in expected for token in sentence]
        assert counts[:, 0].tolist() == list(map(len, expected))
        assert counts[:, 1].tolist() == [len(sentence.split()) for sentence in block]
        assert counts[:, 2].tolist() == [sentence.count(tokenizer.unk_id) for sentence in expected]


def test_a_full_table_keeps_its_words_and_is_begun_anew_for_another_text(
    tokenizer: TextTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "MOST_WORDS", 3)
    table = WordTable(tokenizer)
    blocks = {"the cat sees a dog": 5, "the cat sees don't": 5, "a dog the 1.5": 5, "兰州 한국 the": 3, "the 公交": 4}
    for block, known in (blocks | {"the cat": 4}).items():
        assert table([block])[0].tolist() == tokenizer.encode_ids([block])[0]
        assert len(table._numbers) == known, block


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["added_tokens"].append(
            {**content["added_tokens"][0], "id": 5, "content": "the cat", "special": False}
        ),
        lambda content: content.update(pre_tokenizer={"type": "Whitespace"}),
        lambda content: content.update(normalizer={"type": "Replace", "pattern": {"String": "a b"}, "content": "c"}),
    ],
)
def test_tokenizers_that_may_look_beyond_a_space_get_whole_sentences(tokenizer: TextTokenizer, change) -> None:
    content = json.loads(tokenizer.content)
    change(content)
    other = TextTokenizer(json.dumps(content), tokenizer.config)
    assert not is_word_by_word(other)
    text = "the cat sees a b"
    ids, counts = WordTable(other)([text, text])
    assert ids.tolist() == other.encode_ids([text])[0] * 2
    assert counts[:, 1].tolist() == [5, 5]
