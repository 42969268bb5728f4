"""Rows of embedders and rerankers: which kind the columns give, scores and their range, negatives in both forms."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bertsmith.data.similar import parse_score_range, read_relevance, read_similar
from bertsmith.errors import InputError


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_the_columns_decide_the_kind(tmp_path: Path) -> None:
    scored = read_similar(write(tmp_path / "a.csv", "sentence1,sentence2,score\na,b,0.5\n"))
    assert [(row.kind, row.texts, row.score) for row in scored] == [("scores", ("a", "b"), 0.5)]
    pairs = read_similar(write(tmp_path / "b.tsv", "query\tpositive\na\tb\n"))
    assert [(row.kind, row.texts, row.score) for row in pairs] == [("pairs", ("a", "b"), None)]
    texts = read_similar(write(tmp_path / "c.txt", "one\n\ntwo\n"))
    assert [(row.kind, row.texts, row.line) for row in texts] == [("texts", ("one",), 1), ("texts", ("two",), 3)]


def test_negatives_stand_in_columns_or_in_a_list_and_may_differ_in_number(tmp_path: Path) -> None:
    table = "anchor\tpositive\tnegative\tnegative_2\na\tb\tc\td\ne\tf\tg\t\n"
    assert [row.texts for row in read_similar(write(tmp_path / "a.tsv", table))] == [
        ("a", "b", "c", "d"),
        ("e", "f", "g"),
    ]
    lines = [{"anchor": "a", "positive": "b", "negatives": ["c", "d", "c"]}, {"anchor": "e", "positive": "f"}]
    listed = write(tmp_path / "b.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    assert [row.texts for row in read_similar(listed)] == [("a", "b", "c", "d"), ("e", "f")]


@pytest.mark.parametrize(
    ("flag", "cell", "score"),
    [(None, "-0.5", -0.5), ("0,5", "5.0", 1.0), ("5", "2", 0.4), ("1,5", "1", 0.0), ("-2,2", "1", 0.5)],
)
def test_scores_are_scaled_by_the_range_that_is_given(
    flag: str | None, cell: str, score: float, tmp_path: Path
) -> None:
    file = write(tmp_path / "a.tsv", f"text_a\ttext_b\tscore\nx\ty\t{cell}\n")
    (row,) = read_similar(file, score_range=parse_score_range(flag, default=(-1.0, 1.0)))
    assert row.score == pytest.approx(score)


@pytest.mark.parametrize("flag", ["", "a,b", "1,2,3", "5,0", "0,nan", "0,inf", "0"])
def test_a_range_that_is_none_is_refused(flag: str) -> None:
    with pytest.raises(InputError, match=r'field "--score-range".* is not LOWEST,HIGHEST'):
        parse_score_range(flag, default=(0.0, 1.0))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.tsv",
            "text_a\ttext_b\tscore\nx\ty\t3.8\n",
            r'a.tsv:2: field "score": is 3.8, outside of -1 to 1; .*--score-range',
        ),
        ("a.tsv", "text_a\ttext_b\tscore\nx\ty\tnan\n", r'a.tsv:2: field "score": .nan. is not a finite number'),
        ("a.jsonl", '{"text_a": "x", "text_b": "y", "score": NaN}\n', r"a.jsonl:1: not valid JSON: NaN"),
        ("a.tsv", "text_a\ttext_b\nx\ty\n", r'a.tsv:2: field "score": is missing'),
        ("a.tsv", "text_a\tscore\nx\t1\n", r'a.tsv:2: field "text_b": is missing'),
        ("a.tsv", "anchor\tnegative\nx\ty\n", r'a.tsv:2: field "positive": is missing'),
        ("a.tsv", "anchor\tpositive\nx\t \n", r'a.tsv:2: field "positive": is empty'),
        ("a.tsv", "anchor\tpositive\tnegative\nx\ty\ty\n", r'field "negative": is the same text as the positive'),
        ("a.tsv", "anchor\tpositive\tnegative\nx\ty\tx\n", r'field "negative": is the same text as the anchor'),
        (
            "a.jsonl",
            '{"anchor": "x", "positive": "y", "negatives": "z"}\n',
            r'field "negatives": is not a list of texts',
        ),
        ("a.tsv", "body\tother\nx\ty\n", r"found no known column; needed are `anchor` and `positive`"),
    ],
)
def test_bad_rows_are_named_by_line_and_field(name: str, text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_similar(write(tmp_path / name, text))


def test_a_reranker_reads_pairs_and_takes_groups_apart(tmp_path: Path) -> None:
    pairs = read_relevance(write(tmp_path / "a.tsv", "query\tpassage\tlabel\nq\tx\t1\nq\ty\t0\n"))
    assert [(row.text, row.pair, row.label) for row in pairs] == [("q", "x", 1.0), ("q", "y", 0.0)]
    groups = read_relevance(write(tmp_path / "b.tsv", "anchor\tpositive\tnegative\nq\tx\ty\n"))
    assert [(row.text, row.pair, row.label, row.line) for row in groups] == [("q", "x", 1.0, 2), ("q", "y", 0.0, 2)]
    with pytest.raises(InputError, match=r'a.tsv:2: field "label": is 3, outside of 0 to 1'):
        read_relevance(write(tmp_path / "a.tsv", "text_a\ttext_b\tlabel\nq\tx\t3\n"))
    with pytest.raises(InputError, match="found text_a; needed are `text_a`, `text_b` and `label`"):
        read_relevance(write(tmp_path / "c.tsv", "query\tother\nq\tx\n"))
    unlabelled = read_relevance(write(tmp_path / "d.tsv", "query\tpassage\nq\tx\n"), labelled=False)
    assert unlabelled[0].label is None
