"""Reading rows of every format: what is written comes back, and what is bad is named with file, line and field."""

import csv
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.data import tables as tables_module
from bertsmith.data.text import (
    Row,
    read_all_rows,
    read_rows,
)
from bertsmith.errors import InputError, InputErrors
from tests.data.text_files import (
    COMPRESSIONS,
    TABLES,
    any_text,
    cell,
    failure,
    quick,
    values,
    write,
    write_table,
)


@quick
@given(
    rows=st.lists(st.fixed_dictionaries({"text": cell, "label": cell}), min_size=1, max_size=6),
    name=st.sampled_from(
        [f"data{table}{compression}" for table in TABLES[:3] for compression in COMPRESSIONS] + ["data.parquet"]
    ),
)
def test_rows_come_back_from_every_format(tmp_path: Path, rows: list[dict[str, str]], name: str) -> None:
    path = write_table(tmp_path / name, rows)
    first = 2 if ".csv" in name or ".tsv" in name else 1
    expected = [Row(path, line, row) for line, row in enumerate(rows, start=first)]
    assert list(read_rows(path, required=["text", "label"])) == expected
    assert read_all_rows(path, required=["label", "text"]) == expected


@quick
@given(records=st.lists(st.tuples(any_text, any_text), min_size=1, max_size=6))
def test_csv_keeps_every_character_and_the_line_of_each_record(tmp_path: Path, records: list[tuple[str, str]]) -> None:
    line, starts, stream = 2, [], io.StringIO(newline="")
    writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
    writer.writerows([("text", "label"), *records])
    for record in records:
        starts.append(line)
        line += 1 + sum(part.count("\n") for part in record)
    rows = read_all_rows(write(tmp_path / "a.csv", stream.getvalue()), required=["text", "label"])
    assert [(row.values["text"], row.values["label"]) for row in rows] == records
    assert [row.line for row in rows] == starts


@quick
@given(
    label=st.one_of(any_text, st.integers(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False)),
    extension=st.sampled_from([".jsonl", ".parquet"]),
)
def test_typed_labels_keep_their_type(tmp_path: Path, label: object, extension: str) -> None:
    if extension == ".parquet" and isinstance(label, int) and abs(label) >= 1 << 63:
        label = 0
    (row,) = values(write_table(tmp_path / f"data{extension}", [{"text": "a", "label": label}]))
    assert row == {"text": "a", "label": label}
    assert type(row["label"]) is type(label)


@quick
@given(bad=st.integers(1, 8), extension=st.sampled_from([".jsonl", ".tsv", ".csv"]), blanks=st.integers(0, 3))
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, bad: int, extension: str, blanks: int) -> None:
    good, header = ('{"text": "a", "label": "b"}', "") if extension == ".jsonl" else ("a\tb", "text\tlabel\n")
    lines = [good] * 8
    lines[bad - 1] = "alone"
    content = header + "\n".join(lines) + "\n" * blanks
    path = write(tmp_path / f"a{extension}", content.replace("\t", "," if extension == ".csv" else "\t"))
    error = failure(path)
    assert (error.file, error.line) == (path, bad + bool(header))
    rows = read_rows(path, required=["text", "label"])
    for _ in range(bad - 1):
        next(rows)
    with pytest.raises(InputError) as caught:
        next(rows)
    assert str(caught.value) == str(error)


def test_all_bad_rows_are_collected_and_counted(tmp_path: Path) -> None:
    lines = ["text\tlabel", *(["bad"] * 30), "a\tb", *(["c\td\te"] * 5)]
    path = write(tmp_path / "a.tsv", "\n".join(lines).encode() + b"\n\xff\tb\n")
    with pytest.raises(InputErrors) as caught:
        read_all_rows(path, required=["text", "label"])
    assert caught.value.total == 36
    assert [error.line for error in caught.value.errors] == list(range(2, 22))


@pytest.mark.parametrize("extension", [".jsonl", ".tsv", ".csv"])
def test_reading_goes_on_after_an_undecodable_line(tmp_path: Path, extension: str) -> None:
    lines = [b"\xff", b"{", b"\xfe"] if extension == ".jsonl" else [b"text", b"\xff", b"a,b\tc", b"\xfe"]
    with pytest.raises(InputErrors) as caught:
        read_all_rows(write(tmp_path / f"a{extension}", b"\n".join(lines)), required=["text"])
    assert ["UTF-8" in error.message for error in caught.value.errors] == [True, False, True]
    assert [error.line for error in caught.value.errors] == ([1, 2, 3] if extension == ".jsonl" else [2, 3, 4])


@pytest.mark.parametrize("extension", [".csv", ".tsv"])
def test_a_damaged_archive_ends_the_collected_errors(tmp_path: Path, extension: str) -> None:
    path = write(tmp_path / f"a{extension}.gz", "text\na,b\tc\n" + "good\n" * 200_000)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputErrors) as caught:
        read_all_rows(path, required=["text"])
    assert [error.line for error in caught.value.errors] == [2, None]
    assert "damaged" in caught.value.errors[1].message


def test_a_text_file_gives_a_row_for_each_nonblank_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", " a\tb \n\n\t\nc\n")
    rows = [Row(path, 1, {"text": " a\tb "}), Row(path, 4, {"text": "c"})]
    assert list(read_rows(path, required=["text|sentence"])) == rows
    assert list(read_rows(path, required=[], optional=["text", "label"])) == rows


@pytest.mark.parametrize("extension", [".csv", ".tsv"])
@pytest.mark.parametrize("row", ["a", "a,b,c"])
def test_a_row_of_another_width_is_refused(tmp_path: Path, extension: str, row: str) -> None:
    content = f"text,label\na,b\n{row}\n".replace(",", "," if extension == ".csv" else "\t")
    error = failure(write(tmp_path / f"a{extension}", content))
    assert error.line == 3
    assert error.message == f"has {row.count(',') + 1} column(s); 2 are needed (text, label)"
    headless = write(tmp_path / f"b{extension}", content.split("\n", 1)[1])
    assert "names each column, or skips it with -" in failure(headless, columns="text,label").message


@pytest.mark.parametrize("extension", [".csv", ".tsv", ".jsonl"])
def test_empty_lines_are_errors_except_at_the_end(tmp_path: Path, extension: str) -> None:
    header, row = ([], '{"text": "a"}') if extension == ".jsonl" else (["text"], "a")
    path = write(tmp_path / f"a{extension}", "\n".join([*header, row, "", "", ""]))
    assert values(path, required=("text",)) == [{"text": "a"}]
    path = write(tmp_path / f"a{extension}", "\r\n".join([*header, row, "", "", row, "", ""]))
    with pytest.raises(InputErrors) as caught:
        read_all_rows(path, required=["text"])
    lines = [error.line for error in caught.value.errors]
    assert lines == [len(header) + 2, len(header) + 3]
    assert "empty line" in caught.value.errors[0].message
    path = write(tmp_path / f"a{extension}", "\n".join(["", *header, row]))
    assert (failure(path, required=("text",)).line, failure(path, required=("text",)).message[:10]) == (
        1,
        "empty line",
    )


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt", "a.jsonl"])
def test_a_file_without_rows_is_refused(tmp_path: Path, name: str) -> None:
    header = "text\n" if name in ("a.csv", "a.tsv") else ""
    assert failure(write(tmp_path / name, header + "\n"), required=("text",)).message == "has no rows"
    assert failure(write(tmp_path / f"{name}.gz", ""), required=("text",)).message == "has no rows"


def test_a_parquet_file_without_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    assert failure(path, required=("text",)).message == "has no rows"


def test_a_bad_file_or_flag_is_found_before_the_first_row_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file"):
        read_rows(tmp_path / "a.csv", required=["text"])


# TSV and CSV


def test_tsv_has_no_quoting(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", 'text\tlabel\n"a\t"b""\n')
    assert values(path) == [{"text": '"a', "label": '"b""'}]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ('"a,b\n', "unexpected end of data"),
        ('"a"x,b\n', "expected after"),
        ("a\rx,b\n", "new-line character seen in unquoted field;"),
    ],
)
def test_broken_csv_is_named_by_the_first_line_of_the_record(tmp_path: Path, record: str, reason: str) -> None:
    error = failure(write(tmp_path / "a.csv", f'text,label\n"1\n2",b\n{record}'))
    assert error.line == 4
    assert "not valid CSV (RFC 4180)" in error.message
    assert reason in error.message


def test_csv_is_read_on_after_a_broken_record(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'text,label\n"a"x,b\nc,d\ne\n')
    with pytest.raises(InputErrors) as caught:
        read_all_rows(path, required=["text", "label"])
    assert [error.line for error in caught.value.errors] == [2, 4]


def test_a_cell_of_a_megabyte_is_read_and_the_csv_limit_is_left_alone(tmp_path: Path) -> None:
    text = "a\n" * 600_000
    path = write(tmp_path / "a.csv", f'text\n"{text}"\nb\n')
    before = csv.field_size_limit(1234)
    try:
        rows = read_rows(path, required=["text"])
        assert next(rows).values == {"text": text}
        assert csv.field_size_limit() == 1234
        assert next(rows) == Row(path, 600_003, {"text": "b"})
        assert list(rows) == []
        assert csv.field_size_limit() == 1234
    finally:
        csv.field_size_limit(before)


def test_a_quote_that_swallows_the_file_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables_module, "MAX_CELL", 1000)
    error = failure(write(tmp_path / "a.csv", 'text\n"a\n' + "b\n" * 501), required=("text",))
    assert error.line == 2
    assert "field larger" in error.message


# JSON


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": "a"', "not valid JSON: Expecting ',' delimiter (column 13)"),
        ("[1]", "not a JSON object"),
        ("null", "not a JSON object"),
        ('{"text": "a", "label": NaN}', "NaN is not a number of JSON"),
        ('{"text": "a", "label": -Infinity}', "-Infinity is not a number of JSON"),
        ('{"text": "a", "label": 1, "label": 2}', "same key twice"),
        ("[" * 100_000, "not valid JSON"),
        ('{"text": "a", "label": ' + "[" * 800 + "]" * 800 + "}", "not valid JSON: maximum recursion"),
        ('{"text": "a", "label": ' + "9" * 5000 + "}", "not valid JSON"),
        ('{"text": "a\tb", "label": 1}', "not valid JSON: Invalid control character"),
        ("  ", "not valid JSON"),
    ],
)
def test_a_bad_json_line_is_refused_with_the_reason(tmp_path: Path, line: str, reason: str) -> None:
    error = failure(write(tmp_path / "a.jsonl", f'{{"text": "a", "label": 1}}\n{line}\n'))
    assert error.line == 2
    assert reason in error.message


@pytest.mark.parametrize(
    ("line", "field", "reason"),
    [
        (
            '{"text": "a", "star": 1}',
            "label",
            'is missing; the row has: "text", "star"; give --columns label=NAME',
        ),
        ('{"text": 3, "label": 1}', "text", "is a number, not a string"),
        ('{"text": ["a"], "label": 1}', "text", "is a list, not a string"),
        ('{"text": null, "label": 1}', "text", "is null"),
        ('{"text": "a", "label": null}', "label", "is null"),
        ('{"text": "a", "label": 1e999}', "label", "is inf; a finite number is needed"),
        ('{"text": "\\ud800", "label": 1}', "text", "surrogate"),
        ('{"text": "a", "label": "\\udfff"}', "label", "surrogate"),
        ('{"text": "a", "label": [{"b": "é\\udfff"}]}', "label", "surrogate"),
        ('{"text": "a", "label": {"é\\udfff": 1}}', "label", "surrogate"),
    ],
)
def test_a_bad_json_value_is_named_by_field(tmp_path: Path, line: str, field: str, reason: str) -> None:
    error = failure(write(tmp_path / "a.jsonl", f'{{"text": "a", "label": 1}}\n{line}\n'))
    assert (error.line, error.field) == (2, field)
    assert reason in error.message


def test_escaped_surrogate_pairs_and_structured_values_are_good(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "\\ud83d\\ude00", "label": [{"é": 1}, "b", null]}\n')
    assert values(path) == [{"text": "😀", "label": [{"é": 1}, "b", None]}]


# Parquet


def test_parquet_rows_are_numbered_across_batches(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    rows = [{"text": "a", "label": i} for i in range(3000)]
    pq.write_table(pa.Table.from_pylist([*rows, {"text": "a", "label": None}]), path, row_group_size=700)
    assert failure(path).line == 3001
    assert [row.line for row in read_rows(path, required=["text"])] == list(range(1, 3002))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_parquet_label_that_is_not_finite_is_refused(tmp_path: Path, value: float) -> None:
    path = write_table(tmp_path / "data.parquet", [{"text": "a", "label": value}])
    assert failure(path).field == "label"


def test_parquet_bytes_are_no_text(tmp_path: Path) -> None:
    path = write_table(tmp_path / "data.parquet", [{"text": b"a"}])
    assert "of type bytes" in failure(path, required=("text",)).message


@pytest.mark.parametrize("damage", ["cut", "foreign", "page"])
def test_a_damaged_parquet_file_is_an_input_error(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"text": [f"text {i}" for i in range(1000)]})
    pq.write_table(table, path, compression="none", use_dictionary=False, write_page_checksum=True)
    data = path.read_bytes()
    page = data.replace(b"text 500", b"test 500")
    path.write_bytes({"cut": data[:-20], "foreign": b"text,label\na,b\n", "page": page}[damage])
    error = failure(path, required=("text",))
    assert "cannot be read as Parquet after row 0" in error.message
    assert "\n" not in error.message


def test_invalid_utf8_in_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    raw = pa.array([b"a", b"\xff"], pa.binary())
    pq.write_table(pa.table({"text": pa.Array.from_buffers(pa.string(), 2, raw.buffers())}), path)
    assert "utf-8" in failure(path, required=("text",)).message
