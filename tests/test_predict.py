"""`predict` over a file: a part of its rows at a time, the same answers, and nothing before all rows are good."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertsmith import predict as module
from bertsmith.config.inference import PredictOptions
from bertsmith.errors import InputError
from bertsmith.model import Model, load
from bertsmith.predict import predict


def options(model: Path, data: Path) -> PredictOptions:
    return PredictOptions(model=str(model), data=data, threads=1)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("".join(f"the cat sees {number} red balls.\n" for number in range(20)))
    return path


@pytest.mark.parametrize("size", [1, 7, 20, 21])
def test_parts_change_no_answer(size: int, classifier_dir: Path, texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(predict(options(classifier_dir, texts)))
    monkeypatch.setattr(module, "PART_ROWS", size)
    found = list(predict(options(classifier_dir, texts)))
    assert [answer["label"] for answer in found] == [answer["label"] for answer in whole]
    for one, other in zip(found, whole, strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)


def test_answers_come_before_the_file_is_done(
    classifier_dir: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PART_ROWS", 5)
    computed = []
    real = Model.predict_rows

    def watched(self: Model, rows: list[object], *, batch_tokens: int | None = None) -> list[object]:
        computed.append(len(rows))
        return real(self, rows, batch_tokens=batch_tokens)

    monkeypatch.setattr(Model, "predict_rows", watched)
    answers = predict(options(classifier_dir, texts))
    next(answers)
    assert computed == [5]
    assert len(list(answers)) == 19
    assert computed == [5, 5, 5, 5]


def test_a_bad_row_in_the_last_part_is_named_before_the_first_answer(
    classifier_dir: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PART_ROWS", 5)
    texts.write_text(texts.read_text() + "long " * 5000 + "\n")
    with pytest.raises(InputError, match=r'texts\.txt:21: field "text": \d+ tokens'):
        next(predict(options(classifier_dir, texts)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"texts": [1]}, r'field "texts\[0\]": is a number; a text is needed'),
        ({"texts": ["a", None]}, r'field "texts\[1\]": is null; a text is needed'),
        ({"texts": None}, r'field "texts": a list of texts is needed, not null'),
        ({"texts": ["a"], "pairs": "b"}, r'field "pairs": a list of texts is needed, not one text'),
        ({"texts": ["a"], "questions": ["b", "c"]}, r"2 questions for 1 texts"),
        ({"texts": ["a"], "choices": ["ab"]}, r'field "choices\[0\]": a list of texts is needed, not one text'),
        ({"texts": ["a"], "choices": [["b", 2]]}, r'field "choices\[0\]\[1\]": is a number; a text is needed'),
    ],
)
def test_python_callers_get_one_line_for_what_is_no_list_of_texts(
    call: dict[str, Any], message: str, classifier_dir: Path
) -> None:
    model = load(classifier_dir, device="cpu")
    with pytest.raises(InputError, match=message):
        model.predict(**call)
    if list(call) == ["texts"]:
        with pytest.raises(InputError, match=message):
            model.embed(call["texts"])


def test_texts_may_come_from_a_generator(classifier_dir: Path) -> None:
    model = load(classifier_dir, device="cpu")
    texts = ["the cat", "a dog"]
    assert model.predict(text for text in texts) == model.predict(texts)
    np.testing.assert_array_equal(model.embed(text for text in texts), model.embed(texts))
