from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.data.questions import Answer, nearest_place, read_questions
from bertsmith.errors import InputError


def squad(path: Path, *asked: dict[str, Any], context: str = "Rome is a city. Rome is old.") -> Path:
    path.write_text(json.dumps({"version": "2", "data": [{"paragraphs": [{"context": context, "qas": list(asked)}]}]}))
    return path


def test_squad_of_both_versions(tmp_path: Path) -> None:
    file = squad(
        tmp_path / "a.json",
        {"id": "x", "question": "What is old?", "answers": [{"text": "Rome", "answer_start": 16}]},
        {"id": "y", "question": "Who?", "answers": [], "is_impossible": True},
        {"question": "Where?", "answers": [{"text": "Rome", "answer_start": 14}]},
    )
    first, second, third = read_questions(file)
    assert (first.answers, first.moved) == ((Answer("Rome", 16),), False)
    assert second.answers == ()
    assert (third.answers, third.moved) == ((Answer("Rome", 16),), True)


def test_rows_with_answers_in_any_shape(tmp_path: Path) -> None:
    shapes = ['"Rome"', '["Rome"]', '[{"text": "Rome"}]', '{"text": ["Rome"], "answer_start": [0]}', "[]"]
    file = tmp_path / "a.jsonl"
    file.write_text("".join(f'{{"question": "q?", "context": "Rome", "answers": {shape}}}\n' for shape in shapes))
    assert [row.answers for row in read_questions(file)] == [(Answer("Rome", 0),)] * 4 + [()]
    assert read_questions(file, labelled=False)[0].answers is None


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"id": "x", "question": "q", "answers": [{"text": "Oslo", "answer_start": 0}]}, "question x.*'Oslo' does not"),
        ({"id": "x", "question": " ", "answers": []}, r'question x: field "question": is empty'),
        ({"id": "x", "question": "q", "answers": [{"text": "", "answer_start": 0}]}, r'field "answers": is empty'),
        ({"id": "x", "question": "q", "answers": [{"text": "Rome", "answer_start": "0"}]}, "is not a list of"),
        ({"id": "x", "answers": []}, r'paragraphs\[0\]\.qas\[0\]\.question": is missing'),
    ],
)
def test_what_cannot_be_asked_is_named(tmp_path: Path, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_questions(squad(tmp_path / "a.json", asked))


def test_a_json_file_that_is_not_squad_s(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("[]")
    with pytest.raises(InputError, match=r"is not SQuAD's JSON"):
        read_questions(file)
    file.write_text('{"data": [')
    with pytest.raises(InputError, match="not valid JSON"):
        read_questions(file)


@given(st.text("ab", max_size=20), st.text("ab", min_size=1, max_size=3), st.integers(0, 25))
def test_the_nearest_place_is_found(context: str, text: str, start: int) -> None:
    every = [i for i in range(len(context)) if context.startswith(text, i)]
    found = nearest_place(context, text, start)
    if not every:
        assert found is None
    else:
        assert found in every
        assert abs(found - start) == min(abs(place - start) for place in every)


def test_a_column_says_where_the_answer_starts(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text(
        "question,context,answer,answer_start,is_impossible\nq?,Rome and Rome again,Rome,9,\nq?,Rome,,,TRUE\n"
    )
    assert [row.answers for row in read_questions(file)] == [(Answer("Rome", 9),), ()]
    for row, message in (("Rome,x,", "'x' is not a place"), (",,", "has is_impossible true")):
        file.write_text(f"question,context,answer,answer_start,is_impossible\nq?,Rome,{row}\n")
        with pytest.raises(InputError, match=message):
            read_questions(file)


def test_squad_has_names_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'"--columns": SQuAD.s JSON has its own names'):
        read_questions(squad(tmp_path / "a.json"), columns="question=q")
