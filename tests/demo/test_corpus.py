"""The demo's corpus: what reading leaves out, what it writes, and that no split knows of another."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertsmith.demo import areas, corpus
from bertsmith.errors import InputError
from bertsmith.files import sha256

FILES = ("corpus.txt", "train.tsv", "dev.tsv", "test.tsv")


@pytest.fixture(scope="module")
def library() -> list[corpus.ModuleDoc]:
    return corpus.read_library()


def rows_of(directory: Path, split: str) -> list[tuple[str, str]]:
    header, *lines = (directory / f"{split}.tsv").read_text().split("\n")[:-1]
    assert header == "text\tlabel"
    return [(text, label) for text, label in (line.split("\t") for line in lines)]


# What is written ----------------------------------------------------------------------------------

WRITE = """
import json, sys
from pathlib import Path
for name in sys.argv[2:]:
    __import__(name)
from bertsmith.demo.corpus import write_corpus
before = set(sys.modules)
result = write_corpus(Path(sys.argv[1]))
from_source = [n for n in set(sys.modules) - before if getattr(sys.modules[n], "__file__", "").endswith(".py")]
print(json.dumps({"result": result, "from_source": from_source, "modules": list(sys.modules)}))
"""


def write_in_process(directory: Path, *imports: str, cwd: Path, **environment: str) -> dict[str, Any]:
    command = [sys.executable, "-W", "error", "-c", WRITE, str(directory), *imports]
    output = subprocess.run(
        command, env={**os.environ, **environment}, cwd=cwd, check=True, capture_output=True, text=True
    )
    assert output.stderr == ""
    found: dict[str, Any] = json.loads(output.stdout)
    return found


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    directory = tmp_path_factory.mktemp("corpus")
    return directory, write_in_process(directory, cwd=directory, PYTHONHASHSEED="1", PYTHONOPTIMIZE="")


@pytest.fixture(scope="module")
def written(process: tuple[Path, dict[str, Any]]) -> tuple[Path, dict[str, Any]]:
    return process[0], process[1]["result"]


def test_two_processes_write_equal_bytes_whatever_the_environment_and_earlier_imports(
    tmp_path: Path, written: tuple[Path, dict[str, Any]]
) -> None:
    # Modules that change classes or functions of compiled ones, and -OO, which drops live docstrings.
    imports = ("ast", "ssl", "datetime", "decimal", "unittest.mock", "ctypes", "asyncio")
    environment = {"PYTHONHASHSEED": "77", "PYTHONOPTIMIZE": "2", "LC_ALL": "C"}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    directory, result = written
    assert write_in_process(tmp_path, *imports, cwd=Path("/"), **environment)["result"] == result
    for name in FILES:
        one, other = (sha256(folder / name) for folder in (directory, tmp_path))
        assert one == other, name


def test_sources_are_read_but_not_imported(process: tuple[Path, dict[str, Any]]) -> None:
    modules = process[1]["modules"]
    assert not {"antigravity", "this", "tkinter", "idlelib", "turtle", "smtplib", "pdb"} & set(modules)
    # Compiled modules import some themselves (`_asyncio` imports `asyncio`), but far from all 600.
    assert 0 < len(process[1]["from_source"]) < 150


def test_the_sizes_are_those_of_a_corpus_that_a_demo_can_learn_from(
    written: tuple[Path, dict[str, Any]],
) -> None:
    directory, result = written
    data = (directory / "corpus.txt").read_bytes()
    documents = [text.splitlines() for text in data.decode().split("\n\n")]
    assert result["bytes"] == len(data) > 1_200_000
    assert result["documents"] == len(documents) > 300
    assert result["sentences"] == sum(map(len, documents)) > 12_000
    assert result["words"] == len(data.split()) > 200_000
    assert result["duplicates_removed"] > 1000
    assert 3000 <= sum(result["rows"].values()) <= 8000
    assert 8 <= len(result["labels"]) <= 12
    assert all(sum(rows.values()) >= 150 for rows in result["labels"].values())


def test_the_splits_have_their_shares_and_every_label(written: tuple[Path, dict[str, Any]]) -> None:
    directory, result = written
    total = sum(result["rows"].values())
    for split, share in (("train", 0.70), ("dev", 0.12), ("test", 0.18)):
        rows = rows_of(directory, split)
        assert result["rows"][split] == len(rows)
        assert len(rows) / total == pytest.approx(share, abs=0.04)
        assert {label for _, label in rows} == set(result["labels"])
        assert all(
            sum(found == label for _, found in rows) == counts[split] >= areas.MIN_ROWS
            for label, counts in result["labels"].items()
        )


def test_rows_are_plain_bounded_and_unique_over_all_splits(written: tuple[Path, dict[str, Any]]) -> None:
    directory, _ = written
    texts = [text for split in areas.SPLITS for text, _ in rows_of(directory, split)]
    assert len(set(texts)) == len(texts)
    assert all(areas.MIN_WORDS <= len(text.split()) <= areas.MAX_WORDS for text in texts)
    assert all(text == " ".join(text.split()) and text.isprintable() for text in texts)


def test_no_sentence_of_the_test_split_is_in_the_corpus_as_its_own(
    written: tuple[Path, dict[str, Any]], library: list[corpus.ModuleDoc]
) -> None:
    directory, result = written
    assert result["test_text_in_corpus"] is False
    paragraphs = {module.module: module.paragraphs for module in library}
    _, tested = areas.labelled_rows(paragraphs)
    kept = [" ".join(words) for name, found in paragraphs.items() if name not in tested for words in found]
    corpus_text = (directory / "corpus.txt").read_text().replace("\n\n", " ").replace("\n", " ").strip()
    assert corpus_text == " ".join(kept)
    assert not any(text in corpus_text for text, _ in rows_of(directory, "test") if len(text) > 200)


def test_a_python_without_its_sources_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "_read", lambda: ([corpus.ModuleDoc("os", (("Only one sentence.",),))], 0))
    with pytest.raises(InputError, match="libpython3-stdlib"):
        corpus.write_corpus(tmp_path)
    assert not list(tmp_path.iterdir())


# What is read -------------------------------------------------------------------------------------


def test_modules_are_sorted_and_no_paragraph_appears_twice(library: list[corpus.ModuleDoc]) -> None:
    names = [document.module for document in library]
    assert names == sorted(set(names))
    assert {"os", "_socket", "topics.compound", "builtins"} <= set(names)
    assert not any("test" in name.split(".") or name.startswith(("_test", "pydoc_data")) for name in names)
    texts = [" ".join(paragraph).casefold() for document in library for paragraph in document.paragraphs]
    assert len(set(texts)) == len(texts)


def test_sentences_of_the_library_are_clean(library: list[corpus.ModuleDoc]) -> None:
    every = [text for document in library for paragraph in document.paragraphs for text in paragraph]
    assert all(text == " ".join(text.split()) and text.isprintable() for text in every)
    for sign in ("``", "`", ":class:", ":func:", ".. note", "https:", "http:", "::=", " at 0x"):
        assert not [text for text in every if sign in text], sign
    assert not [text for text in every if text.startswith((">>>", "...:", "| ", "+--", "==="))]
    codelike = [text for text in every if text.count("(") > 12 or " = [" in text]
    assert len(codelike) < len(every) / 1000


def test_docstrings_keep_the_order_of_their_source(library: list[corpus.ModuleDoc]) -> None:
    tree = ast.parse(Path(textwrap.__file__).read_text())
    documented = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    documented.sort(key=lambda node: node.lineno)
    docstrings = [ast.get_docstring(node) or "" for node in (tree, *documented)]
    expected = [paragraph for text in docstrings for paragraph in corpus.paragraphs(text)]
    found = next(document.paragraphs for document in library if document.module == "textwrap")
    assert len(found) > 20
    assert list(found) == [paragraph for paragraph in dict.fromkeys(expected) if paragraph in found]


DOC = """
    f(x, *, key=None) -> list of str

    Return the ``words`` of *x*, as :class:`~a.b.List` does; see :ref:`the rest <rest>`.
    It is long-
    lasting, e.g. in version 3.11 of `tool'. **Beware:** the "key" is kept.

    A heading of the most usual kind
    --------------------------------

    >>> f("this is the output of a test that is not prose")
    this is the output of the test and it is not a part of the text

    .. note:: This is a note that
       should remain in the text.

    .. warning::
        This is a warning that should remain too.

    .. code-block:: python
        this is code that should not remain in the text

    Use it like this in all of your programs::

        the literal block is not a part of the text and it is to be dropped

    - the first entry of a list that is
      continued on the next line
    - the second entry of the list
    key -- what the elements are to be sorted by
    other -- what is not to be sorted at all

    +-------+----------------------------------------+
    | this  | is a table of things that are dropped  |
    +-------+----------------------------------------+
    x = g(y)
    Further details are to be found at https://example.org/it. The rest of it is in here.
    See:
"""


def test_what_is_not_prose_is_left_out_and_markup_is_resolved() -> None:
    assert list(corpus.paragraphs(corpus.inspect.cleandoc(DOC))) == [
        (
            "Return the words of x, as a.b.List does; see the rest.",
            "It is long-lasting, e.g. in version 3.11 of tool.",
            "Beware: the key is kept.",
        ),
        ("This is a note that should remain in the text.",),
        ("This is a warning that should remain too.",),
        ("Use it like this in all of your programs:",),
        ("the first entry of a list that is continued on the next line",),
        ("the second entry of the list",),
        ("key -- what the elements are to be sorted by",),
        ("other -- what is not to be sorted at all",),
        ("The rest of it is in here.",),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One is here. Two is there.", ["One is here.", "Two is there."]),
        ("Use e.g. Unix, i.e. POSIX. Then stop.", ["Use e.g. Unix, i.e. POSIX.", "Then stop."]),
        ("New in 3.11. Uses os.path and a.b.c only.", ["New in 3.11.", "Uses os.path and a.b.c only."]),
        ("By G. van Rossum and Dr. Who. Good!", ["By G. van Rossum and Dr. Who.", "Good!"]),
        ("Is it so? (It is.) Then go.", ["Is it so?", "(It is.)", "Then go."]),
        ("Lists, tuples, etc. are sequences. Done.", ["Lists, tuples, etc. are sequences.", "Done."]),
        ("Lists, tuples, etc. They are sequences.", ["Lists, tuples, etc.", "They are sequences."]),
        ("The '.' character. It ends.", ["The '.' character.", "It ends."]),
        ("Read from fp. fp must be open.", ["Read from fp.", "fp must be open."]),
        ("Items 0, 1, 2, ... Then more of it.", ["Items 0, 1, 2, ... Then more of it."]),
        ("The '.' It ends... And so on", ["The '.' It ends... And so on"]),
        ("", []),
    ],
)
def test_sentences_end_where_a_reader_would_end_them(text: str, expected: list[str]) -> None:
    assert corpus.sentences(text) == expected


@given(st.text(alphabet="ab AB.,!?'\"()[]e.g\u00e9 1", max_size=60))
def test_splitting_into_sentences_loses_nothing(text: str) -> None:
    assert " ".join(" ".join(corpus.sentences(text)).split()) == " ".join(text.split())


@given(st.text(alphabet="`*:\"'>|-=+#.( )[]{}aB1_ \t\n\u2028\x85", max_size=200))
@settings(max_examples=150)
def test_any_docstring_gives_single_clean_lines(text: str) -> None:
    for paragraph in corpus.paragraphs(text):
        assert paragraph
        assert all(sentence == " ".join(sentence.split()) != "" for sentence in paragraph)


# Areas --------------------------------------------------------------------------------------------


def test_each_family_has_one_area_and_each_alias_one_family() -> None:
    families = [family for names in areas.AREAS.values() for family in names.split()]
    members = [member for names in areas.FAMILIES.values() for member in names.split()]
    assert len(set(families)) == len(families)
    assert len(set(members)) == len(members)
    assert {family.split(".")[0] for family in areas.FAMILIES} <= set(families)
    assert not areas.LARGE_PACKAGES - set(families)


@pytest.mark.parametrize(
    ("module", "family", "area"),
    [
        ("_socket", "socket", "network"),
        ("urllib.parse", "urllib", "network"),
        ("email.quoprimime", "email.base64mime", "mail"),
        ("xml.dom.minidom", "xml.dom", "formats"),
        ("_elementtree", "xml.etree", "formats"),
        ("_asyncio", "asyncio.tasks", "concurrency"),
        ("asyncio.futures", "asyncio.tasks", "concurrency"),
        ("_pyio", "io", "system"),
        ("builtins", "builtins", None),
    ],
)
def test_twins_are_of_one_family(module: str, family: str, area: str | None) -> None:
    assert areas.family_of(module) == family
    assert areas.area_of(module) == area


def test_no_family_of_modules_is_in_two_splits(library: list[corpus.ModuleDoc]) -> None:
    """Told from the rows alone: each is traced back to the modules that can make it."""
    paragraphs = {module.module: module.paragraphs for module in library}
    rows, tested = areas.labelled_rows(paragraphs)
    split_of = {text: split for split, found in rows.items() for text, _ in found}
    splits: dict[str, set[str]] = {}
    for module, found in paragraphs.items():
        used = {split_of[text] for text in areas.row_texts(found) if text in split_of}
        splits.setdefault(areas.family_of(module), set()).update(used)
        assert ("test" in used) <= (module in tested)
    assert {family: found for family, found in splits.items() if len(found) > 1} == {}
    assert sum(bool(found) for found in splits.values()) > 100


def test_an_area_too_small_for_a_split_is_left_out_and_a_long_module_gives_no_more_than_its_share() -> None:
    system = areas.AREAS["system"].split()
    documents = {
        name: [["word " * 29 + f"{name}-{number}."] for number in range(300)]
        for name in ("tkinter.ttk", "turtle", *system)
    }
    rows, tested = areas.labelled_rows(documents)
    every = [row for found in rows.values() for row in found]
    assert {label for _, label in every} == {"system"}
    assert len(every) == areas.MAX_ROWS_PER_MODULE * len(system)
    assert set() < tested < set(system)


def test_rows_join_short_paragraphs_and_cut_long_ones_between_sentences() -> None:
    ten, twenty, sixty = ("word " * (length - 1) + "end." for length in (10, 20, 60))
    assert areas.row_texts([[ten], [twenty], [twenty]]) == [f"{ten} {twenty}"]
    assert areas.row_texts([[sixty, sixty]]) == [sixty, sixty]
    assert areas.row_texts([[sixty[:-1] + " " + sixty]]) == []


@given(st.dictionaries(st.text(min_size=1, max_size=8), st.integers(1, 50), max_size=30))
def test_held_out_families_fit_their_share(rows: dict[str, int]) -> None:
    split_of = areas.split_families(rows)
    assert set(split_of) == set(rows)
    assert split_of == areas.split_families(dict(reversed(rows.items())))
    for split, share in areas.SHARES.items():
        taken = sum(size for family, size in rows.items() if split_of[family] == split)
        assert taken <= 1.1 * share * sum(rows.values()) + 1e-9
