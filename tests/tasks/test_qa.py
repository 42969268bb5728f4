"""Questions: windows, spans, no answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bertsmith.config.finetune import QaOptions
from bertsmith.data.questions import Answer, Question
from bertsmith.errors import InputError
from bertsmith.metrics import answers
from bertsmith.tasks.qa import Candidates, QaTask, Span, answer_places, spans_of, word_spans
from bertsmith.tokenizer.directory import load_tokenizer


def asked(context: str, answer: str | None = None, question: str = "the cat?") -> Question:
    answers = None if answer is None else (Answer(answer, context.index(answer)),) if answer else ()
    return Question(Path("x"), 1, question, context, answers)


def test_every_answer_is_found_again_from_its_places(tokenizer_dir: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_dir)
    context = "the old man sees a red ball. " * 6 + "a girl eats treebird"
    task = QaTask(40, stride=8)
    for answer in ("the old man", "a girl", "treebird", "a red ball."):
        inputs = task.prepare([asked(context, answer)], tokenizer)
        assert len(inputs) > 1
        held = [encoded for encoded in inputs if encoded.label != (0, 0)]
        assert held
        for encoded in held:
            start, end = encoded.label
            begin, after = encoded.origin[start, 0], encoded.origin[end, 1]
            assert context[begin:after] == answer


def test_pieces_stand_for_their_whole_word(tokenizer_dir: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_dir)
    window = tokenizer.encode("the?", "a paintly sees")
    assert window.word_ids.count(1) > 2
    spans = word_spans(window, "a paintly sees")
    assert {tuple(span) for span in spans.tolist()} == {(-1, -1), (0, 1), (2, 9), (10, 14)}
    ((start, end),) = answer_places([window], asked("a paintly sees", "paintly"))
    assert end > start
    assert (spans[start, 0], spans[end, 1]) == (2, 9)


def test_spans_are_the_best_sums_in_order_and_not_too_long() -> None:
    rng = np.random.default_rng(0)
    words = np.array([[-1, -1]] * 3 + [[i, i + 1] for i in range(12)] + [[-1, -1]])
    logits = rng.normal(size=(16, 2))
    found = spans_of(words, logits, longest=4)
    every = sorted(
        ((i, j + 1, float(logits[3 + i, 0] + logits[3 + j, 1])) for i in range(12) for j in range(i, min(12, i + 4))),
        key=lambda span: -span[2],
    )
    assert found == [(a, b, pytest.approx(c)) for a, b, c in every[: len(found)]]
    assert len(found) == 20


def test_an_end_before_every_good_start_still_gives_an_answer() -> None:
    words = np.array([[i, i + 1] for i in range(50)])
    logits = np.stack([np.arange(50.0), -np.arange(50.0)], 1)
    (start, end, _), *_ = spans_of(words, logits, longest=1)
    assert end == start + 1


def test_no_answer_is_given_where_it_is_better_by_the_threshold() -> None:
    result = Candidates((Span(0, 3, 2.0),), none=2.5)
    row = asked("abc def")
    assert QaTask(64).decode(row, result)["answer"] == "abc"
    assert QaTask(64, may_have_none=True).decode(row, result)["answer"] == ""
    assert QaTask(64, may_have_none=True, null_threshold=1.0).decode(row, result)["answer"] == "abc"
    assert set(QaTask(64).decode(row, result)) == {"score", "start", "end", "answer"}


def test_the_threshold_that_is_best_on_dev_rows_is_taken(tmp_path: Path) -> None:
    rows = [asked("abc def", "abc"), asked("abc def", ""), asked("abc def", "abc"), asked("abc def", "")]
    found = [Candidates((Span(0, 3, 0.0),), none=none) for none in (1.0, 3.0, 1.5, 2.5)]
    options = QaOptions(model="m", train=tmp_path / "a", dev=tmp_path / "b", out=tmp_path / "c")
    task = QaTask(64, may_have_none=True)
    assert task.judge(rows, found).metrics["f1"] == 0.5
    fitted = task.fitted(options, rows, found)
    assert 1.5 < fitted.null_threshold < 2.5
    assert fitted.judge(rows, found).metrics["f1"] == 1.0


def test_each_answer_is_compared_once_for_all_thresholds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    rows = [asked("abc def ghi", ("abc", "abc def", "", "ghi")[i % 4]) for i in range(300)]
    found = [Candidates((Span(0, 3, 0.0),), none=round(float(rng.normal(1 - i % 4 % 3)), 1)) for i in range(299)]
    found.append(Candidates((), none=0.0))
    options = QaOptions(model="m", train=tmp_path / "a", dev=tmp_path / "b", out=tmp_path / "c")
    task, compared = QaTask(64, may_have_none=True), []
    real = answers.normalized
    monkeypatch.setattr(answers, "normalized", lambda text: compared.append(text) or real(text))
    fitted = task.fitted(options, rows, found)
    assert len(compared) <= 12 * len(rows)
    monkeypatch.undo()

    def f1(threshold: float) -> float:
        return replace(task, null_threshold=threshold).judge(rows, found).metrics["f1"]

    assert f1(fitted.null_threshold) == pytest.approx(max(f1(edge) for edge in np.arange(-5.05, 5.0, 0.1)))


def test_a_question_longer_than_the_window_is_named(tokenizer_dir: Path) -> None:
    long = asked("the cat sees a dog. " * 10, question="the cat " * 30)
    with pytest.raises(InputError, match=r'x:1: field "question": the question has \d+ tokens'):
        QaTask(40).prepare([long], load_tokenizer(tokenizer_dir), labelled=False)


@pytest.mark.parametrize("answer", ["cafe\u0301", "\u200bcafe\u0301", "o\u0308 cafe\u0301\u200b"])
def test_marks_that_the_tokenizer_drops_lose_no_answer(tokenizer_dir: Path, answer: str) -> None:
    context = "the old man sees a red ball. " * 6 + f"a {answer}. the girl"
    inputs = QaTask(40, stride=8).prepare([asked(context, answer)], load_tokenizer(tokenizer_dir))
    held = [encoded for encoded in inputs if encoded.label != (0, 0)]
    assert len(inputs) > 1
    assert held
    for encoded in held:
        start, end = encoded.label
        assert context[encoded.origin[start, 0] : encoded.origin[end, 1]] == answer.strip("\u200b")


def test_answers_that_no_window_holds_are_counted(tokenizer_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        asked("a \u200b cat", "\u200b"),
        asked("the cat sees a dog " * 9, "the cat sees a dog " * 8),
        asked("a cat", "cat"),
    ]
    QaTask(40).prepare(rows, load_tokenizer(tokenizer_dir))
    assert "2 answers are in no window" in caplog.text
