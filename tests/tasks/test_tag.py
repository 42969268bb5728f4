"""Taggers: words, pieces, windows, aggregation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from bertsmith.bundle import load_bundle
from bertsmith.config.finetune import TagOptions
from bertsmith.data.tagged import TaggedExample
from bertsmith.errors import InputError
from bertsmith.model import load
from bertsmith.tasks.known import task_from_rows
from bertsmith.tasks.tag import Pieces, TagTask
from bertsmith.tokenizer.directory import load_tokenizer
from bertsmith.tokenizer.splitting import split_words
from bertsmith.train.finetune import finetune
from tests.tasks.examples import options, write_model


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's 5 p.m., Tom.", ["It's", "5", "p.m", ".", ",", "Tom", "."]),
        ("我爱 Beijing", ["我", "爱", "Beijing"]),
        ("49ers (U.S.)", ["49ers", "(", "U.S", ".", ")"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("مرحبا، عالم", ["مرحبا", "،", "عالم"]),
        ("naïve cafe\u0301", ["naïve", "cafe\u0301"]),
        (" \t\n", []),
    ],
)
def test_texts_are_cut_into_words(text: str, words: list[str]) -> None:
    found = split_words(text)
    assert [word for word, _, _ in found] == words
    assert all(text[start:end] == word for word, start, end in found)


def row(*words: str, tags: tuple[str, ...] | None = None) -> TaggedExample:
    return TaggedExample(Path("x"), 1, words, tags)


def test_labels_stand_at_the_first_piece_of_each_word(tokenizer_dir: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_dir)
    task = TagTask(("O", "B-X"), 64, "BIO")
    (encoded,) = task.prepare([row("zebra", "cat", tags=("B-X", "O"))], tokenizer)
    (ids,) = encoded.sequences
    origin = encoded.origin.tolist()
    assert origin[0] == origin[-1] == -1
    firsts = [origin.index(0), origin.index(1)]
    assert encoded.label[firsts].tolist() == [1, 0]
    assert (np.delete(encoded.label, firsts) == -1).all()
    assert len(ids) == len(origin)


def test_words_that_vanish_and_long_words_keep_their_place(tokenizer_dir: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_dir)
    task = TagTask(("O", "B-X"), 10, "BIO")
    words = ("\u200b", "cat", "catdogbirdfish" * 4, "dog")
    inputs = task.prepare([row(*words)], tokenizer, labelled=False)
    assert {word for encoded in inputs for word in encoded.origin.tolist()} == {-1, 0, 1, 2, 3}
    assert all(len(encoded.sequences[0]) <= 10 for encoded in inputs)


@pytest.mark.parametrize("long", [False, True])
def test_windows_give_the_answers_of_the_whole(
    long: bool, tokenizer_dir: Path, encoder_dir: Path, tmp_path: Path
) -> None:
    """Each piece comes from the window with the most text around it; a sentence that fits has one window."""
    tokenizer = load_tokenizer(tokenizer_dir)
    task = TagTask(("O", "B-X"), 64, "BIO", stride=4)
    words = row(*(["cat", "dog", "bird"] * (30 if long else 3)))
    inputs = task.prepare([words], tokenizer, labelled=False)
    assert (len(inputs) > 1) == long
    outputs = [np.stack([np.full(2, i * 1000 + j) for j in range(len(e.origin))]) for i, e in enumerate(inputs)]
    result = task.join(words, inputs, outputs)
    assert result.words.tolist() == sorted(result.words.tolist())
    assert set(result.words.tolist()) == set(range(len(words.words)))
    for window in range(len(inputs) - 1):  # from the middle of the overlap on the next window speaks
        places = np.flatnonzero(result.logits[:, 0] // 1000 == window)
        assert places.tolist() == list(range(places[0], places[-1] + 1))


def test_aggregation_of_pieces() -> None:
    logits = np.log(np.array([[0.6, 0.4], [0.1, 0.9], [0.7, 0.3]]))
    result = Pieces(logits, np.array([0, 0, 1]))
    answers = {
        how: TagTask(("O", "B-X"), 64, "BIO", aggregation=how).tags(result)  # type: ignore[arg-type]
        for how in ("first", "average", "max", "simple", "none")
    }
    assert answers["first"][0] == answers["simple"][0] == answers["none"][0] == ["O", "O"]
    assert answers["average"][0] == answers["max"][0] == ["B-X", "O"]
    assert answers["average"][1] == pytest.approx([0.65, 0.7])
    assert answers["max"][1] == pytest.approx([0.9, 0.7])


def test_no_illegal_sequence_leaves_unless_wished() -> None:
    logits = np.log(np.array([[0.1, 0.3, 0.6], [0.2, 0.2, 0.6]]))
    result = Pieces(logits, np.array([0, 1]))
    labels = ("O", "B-X", "I-X")
    assert TagTask(labels, 64, "BIO").tags(result)[0] == ["B-X", "I-X"]
    assert TagTask(labels, 64, "BIO", constrained=False).tags(result)[0] == ["I-X", "I-X"]


def test_an_unknown_tag_is_named_with_its_line(tokenizer_dir: Path) -> None:
    bad = TaggedExample(Path("x.conll"), 1, ("a", "b"), ("O", "B-Y"), (1, 2))
    with pytest.raises(InputError, match=r'x\.conll:2: field "tags": unknown tag "B-Y"'):
        TagTask(("O", "B-X"), 64, "BIO").prepare([bad], load_tokenizer(tokenizer_dir))


def test_predictions_have_the_shape_of_transformers_pipeline(encoder_dir: Path, tmp_path: Path) -> None:
    given = options("tag", encoder_dir, tmp_path)
    finetune(given)
    model = load(given.out)
    pipe = transformers.pipeline("token-classification", str(given.out), aggregation_strategy="first")
    for text, animal in (("the cat sees a red ball", "cat"), ("the  bird likes some bread", "bird")):
        (ours,) = model.predict([text])
        assert [text[answer["start"] : answer["end"]] for answer in ours] == [animal]
        with torch.no_grad():
            theirs = pipe(text)
        assert [(a["entity_group"], a["start"], a["end"]) for a in theirs] == [
            (a["entity_group"], a["start"], a["end"]) for a in ours
        ]
        assert [a["score"] for a in ours] == pytest.approx([float(a["score"]) for a in theirs], abs=1e-4)
        assert set(theirs[0]) == set(ours[0])
    assert model.predict([""]) == [[]]


def trained_on(*sentences: str, tmp_path: Path) -> TagTask:
    """The task of sentences of tags."""
    rows = [row(*["w"] * len(tags.split()), tags=tuple(tags.split())) for tags in sentences]
    given = TagOptions(model="m", train=tmp_path / "a.conll", out=tmp_path / "out")
    return TagTask.from_rows(given, rows, max_length=64)


def test_tags_of_an_unknown_scheme_are_not_held_to_another(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ioe = trained_on("I-PER E-PER O E-LOC", "O I-ORG E-ORG E-LOC O", tmp_path=tmp_path)
    assert not ioe.constrained
    assert set(ioe.labels) == {"I-PER", "E-PER", "O", "E-LOC", "I-ORG", "E-ORG"}
    assert "a.conll: 4 tags cannot follow the one before in BILOU: another scheme" in caplog.text
    one_mistake = trained_on(*["B-PER I-PER O U-LOC".replace("I-", "L-")] * 9, "O L-PER", tmp_path=tmp_path)
    assert one_mistake.constrained


def test_a_class_that_only_goes_on_may_begin(tmp_path: Path) -> None:
    task = trained_on("I-PER I-PER O", "I-LOC B-LOC O", tmp_path=tmp_path)
    assert task.scheme == "IOB1"
    assert set(task.labels) == {"O", "I-PER", "B-PER", "I-LOC", "B-LOC"}


def test_tags_that_keep_others_from_being_entities_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trained_on("B-PER I-PER O", "B-LOC O domain=en", tmp_path=tmp_path)
    assert "these tags are neither O nor PREFIX-CLASS: domain=en" in caplog.text
    trained_on("0 1 2", tmp_path=tmp_path)
    assert "the tags are numbers" in caplog.text
    caplog.clear()
    trained_on("DET NOUN VERB", tmp_path=tmp_path)
    assert not caplog.text


def test_the_tags_of_the_start_model_keep_their_order(tokenizer_dir: Path, tmp_path: Path) -> None:
    known = TagTask(("I-X", "O", "B-X"), 64, "BIO")
    start = write_model(tmp_path / "a", tokenizer_dir, task=known.manifest(), heads=known.heads, labels=3)
    given = TagOptions(model=str(start), train=tmp_path / "b", out=tmp_path / "c")
    for tags, labels in ((("O", "B-X", "I-X"), known.labels), (("O", "B-Y", "I-Y"), ("O", "B-Y", "I-Y"))):
        rows = [row("a", "b", "c", tags=tags)]
        assert task_from_rows(given, rows, max_length=64, start=load_bundle(start)).labels == labels
