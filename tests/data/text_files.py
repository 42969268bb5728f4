"""Text and rows to write into files of every format, and what reading them gives or refuses."""

import csv
import gzip
import io
import json
import lzma
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from bertsmith.data.text import (
    read_all_rows,
    read_rows,
)
from bertsmith.errors import InputError, InputErrors

COMPRESSIONS = ("", ".gz", ".xz", ".zst")
TABLES = (".jsonl", ".csv", ".tsv", ".parquet")
quick = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
encodable = st.characters(exclude_categories=["Cs"])
any_text = st.text(encodable, max_size=20)
one_line = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=20).filter(
    lambda text: not text.endswith("\r")
)
cell = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\t"), min_size=1, max_size=20)


def write(path: Path, content: str | bytes) -> Path:
    """Write `content`, compressed as the name says."""
    data = content.encode() if isinstance(content, str) else content
    match path.suffix:
        case ".gz":
            data = gzip.compress(data)
        case ".xz":
            data = lzma.compress(data)
        case ".zst":
            data = pa.compress(data, codec="zstd", asbytes=True)
    path.write_bytes(data)
    return path


def write_table(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write `rows`, all with the keys of the first, in the format that the name says."""
    table = [list(rows[0]), *([row[key] for key in rows[0]] for row in rows)]
    extension = path.name.removeprefix("data").split(".")[1]
    if extension == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    stream = io.StringIO(newline="")
    if extension == "jsonl":
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    elif extension == "csv":
        csv.writer(stream).writerows(table)
    else:
        stream.writelines("\t".join(cells) + "\n" for cells in table)
    return write(path, stream.getvalue())


def failure(path: Path, *, required: tuple[str, ...] = ("text", "label"), **options: Any) -> InputError:
    """The one error that reading all rows of `path` raises."""
    with pytest.raises(InputError) as caught:
        read_all_rows(path, required=required, **options)
    assert not isinstance(caught.value, InputErrors), caught.value.lines()
    return caught.value


def flag_failure(path: Path, columns: str, **options: Any) -> str:
    error = failure(path, columns=columns, **options)
    assert error.field == "--columns"
    return error.message


def values(path: Path, *, required: tuple[str, ...] = ("text", "label"), **options: Any) -> list[dict[str, Any]]:
    rows = read_all_rows(path, required=required, **options)
    assert list(read_rows(path, required=required, **options)) == rows
    return [row.values for row in rows]
