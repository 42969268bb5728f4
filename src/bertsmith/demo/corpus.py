"""The corpus that every Python carries: the documentation of its library, as sentences.

Docstrings of the library's sources (parsed, never imported), those of its compiled modules, and the
topics of `help()`: near 2 MB of English, nothing to download, equal bytes from the same build of Python.
One module is one document. The test split's modules are left out of the pretraining text, so that the
classifier is judged on paragraphs that no stage has seen.
Not here: which module belongs to which area, and to which split (`areas`).

    .py files -- ast --> docstrings --+
    compiled modules --> __doc__ -----+--> blocks --> prose only --> sentences --> corpus.txt, *.tsv
    pydoc_data.topics --> one each ---+
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
import sysconfig
import types
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from bertsmith.demo.areas import SPLITS, labelled_rows
from bertsmith.errors import InputError
from bertsmith.files import write_file

MIN_BYTES = 500_000
"""Less text than this means that the library's sources are missing, and nothing can be learned."""


@dataclass(frozen=True)
class ModuleDoc:
    """The prose that documents a module, or a topic of `help()`; a paragraph is its sentences."""

    module: str
    paragraphs: tuple[tuple[str, ...], ...]


# Reading ------------------------------------------------------------------------------------------

_SKIPPED_PARTS = frozenset({"test", "tests", "idle_test", "_bundled", "__phello__", "pydoc_data"})
_SKIPPED_EXTENSIONS = ("_test", "_ctypes_test", "xx", "_xx", "readline", "_tkinter")
"""Tests and examples of CPython's own; `readline` writes to the terminal, `_tkinter` loads Tk."""

_BUILTIN_KINDS = (
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    types.WrapperDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
)
"""Only what C defines is read from live modules: Python code may have put its own things beside it."""


def _source_docstrings() -> Iterator[tuple[str, list[str]]]:
    """Module name and docstrings of each source file, in the order in which they stand in it."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        if parts[0] not in sys.stdlib_module_names or _SKIPPED_PARTS.intersection(parts):
            continue
        if parts[0] == "encodings" and len(parts) > 1:
            continue  # a hundred modules that say "generated from … with gencodec.py"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            nodes = list(ast.walk(ast.parse(path.read_bytes())))
        documented = [
            node
            for node in nodes
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        documented.sort(key=lambda node: getattr(node, "lineno", 0))
        found = [ast.get_docstring(node) or "" for node in documented]
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), found


def _compiled_docstrings() -> Iterator[tuple[str, list[str]]]:
    """Module name and docstrings of what is written in C: built into the interpreter or beside it."""
    beside = Path(sysconfig.get_paths()["stdlib"]) / "lib-dynload"
    names = {*sys.builtin_module_names, *(path.name.split(".")[0] for path in beside.glob("*.so"))}
    for name in names:
        if name.startswith(_SKIPPED_EXTENSIONS):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                module = importlib.import_module(name)
        except ImportError:  # a library that it links to is not installed
            continue
        found: list[Any] = [module.__doc__]
        for _, value in sorted(vars(module).items()):
            if isinstance(value, types.BuiltinFunctionType):
                found.append(value.__doc__)
            elif isinstance(value, type) and str(value.__module__).split(".")[0] in sys.stdlib_module_names:
                members = [getattr(member, "__func__", member) for _, member in sorted(vars(value).items())]
                found.append(value.__doc__)
                found += [member.__doc__ for member in members if isinstance(member, _BUILTIN_KINDS)]
        yield name, [inspect.cleandoc(text) for text in found if isinstance(text, str)]


def _topics() -> Iterator[tuple[str, list[str]]]:
    """Name and text of each topic of `help()`."""
    from pydoc_data.topics import topics

    for name, text in topics.items():
        yield f"topics.{name}", [text]


# From a docstring to sentences --------------------------------------------------------------------

_RULE = re.compile(r"[\W_]{3,}")
_CODE = re.compile(
    r"[|+#].*"  # tables, comments
    r"|[\w.\[\]]+(?:, [\w.\[\]]+)* [-+*/|&]?= .*|\w.*(?:\s{2,}|\)\s)# .*"  # x, y = f(z)
    r"|(?:def|class) \w+.*:|import [\w.]+|from [\w.]+ import .*|for [\w, ]+ in \S+:|(?:else|try|finally):"
    r"|(?:return|raise|yield|print) ?\w*\(.*\)|(?:if|elif|while|with) \S+ ?(?:[=<>!]=|\().*:"
)
_SIGNATURE = re.compile(r"(?:[\w.\[\], ]+\s=\s)?[A-Za-z_][\w.]*\(.*?\)(?:\s*(?:->|--|:)\s*(?P<result>[^:]*))?[:;]?")
_BULLET = re.compile(r"(?:[-*+•o]|\(?(?:\d{1,2}|[a-z])[.)]|\[\d+\])\s+(?=\S)")
_FIELD = re.compile(
    r"[:@](?:param|type|raises?|returns?|keyword)\b[^:]*:\s*|(?:Note|Warning|See also):\s"
    r"|\.\. (?:note|warning|caution|important|tip|seealso)::\s*"
)
_LITERAL = re.compile(r"\.\. \w.*|(?P<text>.*:):")
_ENTRY = re.compile(r"\S+(?: or \S+)?\s+(?:--|->|=>)\s|\S*[^.!?:,;\s]\s{2,}\S")


def _prose_lines(doc: str) -> Iterator[tuple[int, str]]:
    """(indentation, text) of the lines that may be prose; text `""` where a block ends.

    Doctests, tables, headings, signatures, code and literal blocks are left out.
    """
    literal: int | None = None  # indentation of the line whose "::" announced what is deeper
    in_doctest = False
    previous = ""
    lines = [*doc.expandtabs().splitlines(), ""]
    for line, following in pairwise(lines):
        text, indent = line.strip(), len(line) - len(line.lstrip())
        if literal is not None and text and indent <= literal:
            literal = None
        in_doctest = bool(text) and (in_doctest or text.startswith(">>>"))
        is_heading = _RULE.fullmatch(following.strip()) and len(following.strip()) >= len(text) - 2
        if not text or in_doctest or literal is not None or is_heading or _RULE.fullmatch(text):
            previous = ""
            yield 0, ""
            continue
        field = _FIELD.match(text)
        if not field and (announcement := _LITERAL.fullmatch(text)):
            literal, text = indent, announcement["text"] or ""
        if bullet := _BULLET.match(text):
            yield 0, ""
            indent, text = indent + bullet.end(), text[bullet.end() :]
        elif field:
            yield 0, ""
            indent, text = max(indent, len(following) - len(following.lstrip())), text[field.end() :]
        elif _ENTRY.match(text) and (len(previous) < 60 or _ENTRY.match(previous)):
            yield 0, ""  # not a dash in running text, which follows a full line
        previous = text
        if signature := _SIGNATURE.fullmatch(text):
            yield 0, ""
            text = signature["result"] or ""
        elif _CODE.fullmatch(text):
            text = ""
        yield indent, text


def _blocks(doc: str) -> Iterator[str]:
    """Lines that belong together, joined: a block ends at an empty line or where the indentation changes."""
    block: list[str] = []
    indent = 0
    for here, text in [*_prose_lines(doc), (0, "")]:
        hanging = len(block) == 1 and here > indent and indent + len(block[0]) > 50
        if block and (not text or (here != indent and not hanging)):
            yield "".join(line if re.search(r"[a-z]-$", line) else line + " " for line in block)
            block = []
        if text:
            block.append(text)
            indent = here


_ASCII = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "´": "'", "…": "...", "—": " - ", "–": "-"})
_MARKUP = [
    (re.compile(r":[a-z:]+:`~?([^`<]*?)\s*(?:<[^`]*>)?`"), r"\1"),  # :class:`~a.X`, :ref:`text <target>`
    (re.compile(r"``(.+?)``|`([^`']{1,60})[`']_{0,2}"), r"\1\2"),  # ``x``, `x`, `x'
    (re.compile(r"`"), ""),
    (re.compile(r"(?<![\w*])(\*{1,2})(?=\w)([^*]{1,200}?)(?<=[\w).:])\1(?![\w*])"), r"\2"),  # *x*, **x**
    (re.compile(r"\[\d\](?=[\s.,)]|$)"), ""),  # footnotes
    (re.compile(r'"+([\w.][^\s"]*)"+'), r"\1"),  # the topics' "x"
    (re.compile(r'""+'), '"'),
    (re.compile(r"^(?:[-=>*!|]+\s+)+"), ""),  # what is left of a list or a frame
]


def plain(text: str) -> str:
    """`text` without markup, typographic signs and runs of blanks: ":class:`Foo` and ``x``" -> "Foo and x"."""
    text = text.translate(_ASCII)
    for pattern, replacement in _MARKUP:
        text = pattern.sub(replacement, text)
    return " ".join(text.split())


_WORD = re.compile(r"""[("'\[]*[A-Za-z][a-z]*(?:[-'/][A-Za-z]+)*[)"'\]]*[.,;:!?]*[)"']*""")
_FUNCTION_WORDS = (
    "a an the of to in is are be and or for if that this with not by as it on from at which when can will was "
    "may has have does do its their you all any each no over into than then but so only used other"
)
_JOINING = frozenset(_FUNCTION_WORDS.split())


def is_prose(text: str) -> bool:
    """Whether `text` reads as English: at least four words, most of what stands there, joined by the small ones."""
    tokens = text.split()
    words = [token for token in tokens if _WORD.fullmatch(token)]
    joining = sum(word.lower().strip(".,;:()") in _JOINING for word in words)
    letters = sum(sign.isalpha() for sign in text)
    return (
        "::=" not in tokens
        and len(words) >= max(4, 0.7 * len(tokens))
        and joining >= 0.12 * len(tokens)
        and letters >= 0.8 * len("".join(tokens))
    )


_END = re.compile(r"""(?<=[\w)\]}>"'])[.!?]+["')\]]*\s+(?=(\S))""")
_NO_END = re.compile(
    r"""(?:^|[\s("'\[/])(?:e\.?g|i\.?e|cf|vs|resp|approx|incl|ca|al|esp|pp?|Mr|Mrs|Dr|St|No|Vol|Fig|Sec|v"""
    r"""|[A-Z]|a\.k\.a|w\.r\.t)\.\s+$|(["'])[.!?]+\1\s+$|\.\.\.["')\]]*\s+$"""
)
_NO_END_BEFORE_LOWER = re.compile(r"(?:\W\w?|\betc)[.!?]+\S*\s+$|[!?]\s+$")


def sentences(text: str) -> list[str]:
    """The sentences of a paragraph: "Use e.g. os.path. It is 3.11 only." -> two, the second from "It"."""
    found: list[str] = []
    start = 0
    for end in _END.finditer(text):
        before = text[start : end.end()]
        if _NO_END.search(before) or (end[1].islower() and _NO_END_BEFORE_LOWER.search(before)):
            continue
        found.append(before.strip())
        start = end.end()
    return [sentence for sentence in [*found, text[start:].strip()] if sentence]


_CONTACT = re.compile(r"https?:|ftp://|www\.|\S@\S+\.\w|[Cc]opyright|\(c\) (?:19|20)")


def paragraphs(doc: str) -> Iterator[tuple[str, ...]]:
    """The paragraphs of prose in a docstring. Sentences with an address, and labels left of code, are dropped."""
    for text in map(plain, _blocks(doc)):
        if not is_prose(text):
            continue
        kept = tuple(
            sentence
            for sentence in sentences(text)
            if len(words := sentence.split()) > 1
            and not _CONTACT.search(sentence)
            and not (sentence.endswith(":") and len(words) < 5)
        )
        if sum(len(sentence.split()) for sentence in kept) >= 4:
            yield kept


# The whole library --------------------------------------------------------------------------------


def _read() -> tuple[list[ModuleDoc], int]:
    """The library's documents, and how many paragraphs were left out since an earlier document has them."""
    seen: set[str] = set()
    documents: list[ModuleDoc] = []
    duplicates = 0
    for module, docstrings in sorted([*_source_docstrings(), *_compiled_docstrings(), *_topics()]):
        kept = []
        for paragraph in (paragraph for text in docstrings for paragraph in paragraphs(text)):
            key = " ".join(paragraph).casefold().rstrip(".:")
            duplicates += key in seen
            if key not in seen:
                kept.append(paragraph)
            seen.add(key)
        if kept:
            documents.append(ModuleDoc(module, tuple(kept)))
    return documents, duplicates


def read_library() -> list[ModuleDoc]:
    """The documentation of this Python's library, by module name; every paragraph appears once."""
    return _read()[0]


def write_corpus(directory: Path) -> dict[str, Any]:
    """Write `corpus.txt` and `train.tsv`, `dev.tsv`, `test.tsv` (text, label) into an existing `directory`.

    Returns what was written: `documents`, `sentences`, `words` and `bytes` of the corpus,
    `duplicates_removed` (paragraphs), `rows` per split, `labels` (label -> split -> rows) and
    `test_text_in_corpus`, which is false. Raises `InputError` if this Python has no sources to read.
    """
    documents, duplicates = _read()
    rows, tested = labelled_rows({document.module: document.paragraphs for document in documents})
    texts = [
        [sentence for paragraph in document.paragraphs for sentence in paragraph]
        for document in documents
        if document.module not in tested
    ]
    corpus = "\n".join("".join(f"{sentence}\n" for sentence in text) for text in texts).encode()
    if len(corpus) < MIN_BYTES:
        raise InputError(
            f"the standard library holds only {len(corpus)} bytes of documentation; use a Python that has "
            "the library's .py files (Debian: libpython3-stdlib)",
            file=sysconfig.get_paths()["stdlib"],
        )
    write_file(directory / "corpus.txt", corpus)
    for split in SPLITS:
        lines = [f"{text}\t{label}\n" for text, label in rows[split]]
        write_file(directory / f"{split}.tsv", "text\tlabel\n" + "".join(lines))
    counts = {split: Counter(label for _, label in rows[split]) for split in SPLITS}
    return {
        "documents": len(texts),
        "sentences": sum(len(text) for text in texts),
        "words": sum(len(sentence.split()) for text in texts for sentence in text),
        "bytes": len(corpus),
        "duplicates_removed": duplicates,
        "rows": {split: len(rows[split]) for split in SPLITS},
        "labels": {label: {split: counts[split][label] for split in SPLITS} for label in sorted(counts["train"])},
        "test_text_in_corpus": False,
    }
