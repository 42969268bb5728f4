"""Which columns are read, under which name: headers, positions, `--columns`, and those that are missing or double."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bertsmith.data.text import (
    read_all_rows,
    read_rows,
)
from bertsmith.errors import InputError
from tests.data.text_files import TABLES, failure, flag_failure, values, write, write_table


def test_a_text_file_has_no_other_column(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "a\n")
    assert "only text, not label" in failure(path).message
    assert "only text, not text_a" in failure(path, required=(), optional=("text_a",)).message
    assert "no columns" in flag_failure(path, "text", required=("text",))


@pytest.mark.parametrize("extension", TABLES)
def test_an_alternative_name_is_stored_under_the_first(tmp_path: Path, extension: str) -> None:
    path = write_table(tmp_path / f"data{extension}", [{"sentence": "a", "label": "b"}])
    assert values(path, required=("text|sentence", "label")) == [{"text": "a", "label": "b"}]


@pytest.mark.parametrize("extension", TABLES)
def test_columns_that_nobody_asked_for_are_left_out(tmp_path: Path, extension: str) -> None:
    path = write_table(tmp_path / f"data{extension}", [{"id": "7", "text": "a", "label": "b"}])
    assert values(path, required=("text",)) == [{"text": "a"}]
    assert values(path, required=("text",), optional=("label", "score")) == [{"text": "a", "label": "b"}]


@pytest.mark.parametrize("extension", TABLES)
def test_columns_maps_other_headers(tmp_path: Path, extension: str) -> None:
    path = write_table(tmp_path / f"data{extension}", [{"text": "x", "a=body": "a", "stars": "b"}])
    assert values(path, columns="text=a=body, label=stars") == [{"text": "a", "label": "b"}]
    assert values(path, required=("text",), columns="text=stars") == [{"text": "b"}]
    assert values(path, required=("text_a", "text_b"), columns="text_a=text,text_b=text") == [
        {"text_a": "x", "text_b": "x"}
    ]


@pytest.mark.parametrize("extension", TABLES)
def test_a_mapped_column_must_be_there_even_if_optional(tmp_path: Path, extension: str) -> None:
    path = write_table(tmp_path / f"data{extension}", [{"text": "a"}])
    error = failure(path, required=("text",), optional=("label",), columns="label=stars")
    assert "stars" in str(error)


@pytest.mark.parametrize("extension", [".csv", ".tsv"])
def test_columns_names_a_file_without_header_by_position(tmp_path: Path, extension: str) -> None:
    comma = "," if extension == ".csv" else "\t"
    path = write(tmp_path / f"a{extension}", "7,good,x,a\n8,bad,y,b\n".replace(",", comma))
    expected = [{"text": "a", "label": "good"}, {"text": "b", "label": "bad"}]
    assert values(path, columns="-,label,_,text") == expected
    assert values(path, columns="id,label,other,text") == expected
    assert values(path, columns="id,label,other,sentence", required=("text|sentence", "label")) == expected
    assert read_all_rows(path, required=["text"], columns="-,-,-,text")[0].line == 1


@pytest.mark.parametrize("first", ["text,label", "TEXT, Label ", "sentence,label"])
def test_a_header_in_a_file_declared_without_one_is_refused(tmp_path: Path, first: str) -> None:
    path = write(tmp_path / "a.csv", f"{first}\na,b\n")
    error = failure(path, required=("text|sentence", "label"), columns="text,label")
    assert error.line == 1
    mapping = f"text={first.split(',', maxsplit=1)[0]},label={first.split(',')[1]}"
    assert error.message == f"line 1 looks like a header; use --columns {mapping}"
    assert values(path, required=("text|sentence", "label"), columns=mapping) == [{"text": "a", "label": "b"}]


def test_a_header_is_recognised_by_the_wanted_columns_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "idx,text\n1,a\n")
    assert "looks like a header" in failure(path, required=("text",), columns="-,text").message
    assert "looks like a header" in failure(path, required=("text",), columns="number,text").message


@pytest.mark.parametrize("extension", [".csv", ".tsv"])
def test_a_missing_column_is_named_with_the_present_ones_and_the_fix(tmp_path: Path, extension: str) -> None:
    error = failure(write_table(tmp_path / f"data{extension}", [{"body": "a", "stars": "5"}]))
    assert error.line == 1
    assert error.message == (
        'no column "text" and no column "label"; the columns are: "body", "stars"; give --columns '
        "text=NAME,label=NAME, or for a file without a header --columns text,label"
    )


def test_a_missing_parquet_column_needs_a_mapping(tmp_path: Path) -> None:
    error = failure(write_table(tmp_path / "data.parquet", [{"text": "a", "stars": "5"}]))
    assert error.message == ('no column "label"; the columns are: "text", "stars"; give --columns label=NAME')


def test_a_header_is_never_guessed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "Text, label\na,b\n")
    assert 'the columns are: "Text", " label"' in failure(path).message


def test_a_broken_header_cell_stays_on_one_line(tmp_path: Path) -> None:
    error = failure(write(tmp_path / "a.csv", '"a\nb",' + "c" * 1000 + "\nx,y\n"))
    assert '"a\\nb", "' in error.message
    assert "\n" not in error.message
    assert len(error.message) < 300


@pytest.mark.parametrize("extension", [".csv", ".tsv", ".parquet"])
def test_a_double_column_is_an_error_only_if_wanted(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"data{extension}"
    if extension == ".parquet":
        pq.write_table(pa.table([["a"], ["b"], ["c"]], names=["text", "label", "label"]), path)
    else:
        write(path, "text,label,label\na,b,c\n".replace(",", "," if extension == ".csv" else "\t"))
    assert '2 columns are named "label"' in failure(path).message
    assert values(path, required=("text",)) == [{"text": "a"}]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ("", "empty name"),
        ("text,,label", "empty name"),
        ("text, ,label", "empty name"),
        ("text=", "empty name"),
        ("=text", "empty name"),
        ("text=a,label", "mixes two forms"),
        ("text,label,text", 'gives "text" twice'),
        ("text,sentence,label", 'gives "text" twice'),
        ("text=a,sentence=b", 'gives "text" twice'),
        ("id,label,id,text", 'gives "id" twice'),
        ("text,id", 'does not name "label"'),
        ("txt=a", 'did you mean "text"?'),
        ("-=a", "not a column of this task"),
    ],
)
def test_a_wrong_columns_flag_is_refused_with_the_reason(tmp_path: Path, columns: str, reason: str) -> None:
    path = write(tmp_path / "a.csv", "text,label\na,b\n")
    assert reason in flag_failure(path, columns, required=("text|sentence", "label"))
    with pytest.raises(InputError, match=r"--columns"):
        read_rows(path, required=("text|sentence", "label"), columns=columns)


def test_positions_must_name_something_wanted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "a,b\n")
    assert "does not name any of: text, label" in flag_failure(path, "-,other", required=(), optional=("text", "label"))


@pytest.mark.parametrize("extension", [".jsonl", ".parquet"])
def test_positions_do_not_fit_a_file_with_names(tmp_path: Path, extension: str) -> None:
    path = write_table(tmp_path / f"data{extension}", [{"text": "a", "label": "b"}])
    assert f"a {extension} file names its columns; give text=NAME" in flag_failure(path, "text,label")
    assert "give text=NAME" in flag_failure(path, "text", required=(), optional=("text",))


def test_an_error_about_a_mapped_column_gives_the_name_in_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "a", "stars": null}\n')
    assert failure(path, columns="label=stars").field == "stars"


def test_an_optional_null_is_absent(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "a", "label": null}\n')
    assert values(path, required=("text",), optional=("label",)) == [{"text": "a"}]


def test_the_caller_says_which_columns_are_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": 1, "label": 2}\n')
    assert values(path, text_columns=()) == [{"text": 1, "label": 2}]
    assert failure(path, text_columns=("label",)).field == "label"
