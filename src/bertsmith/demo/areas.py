"""Which area of the library a module belongs to, and which split: the labelled task of the demo.

The task is to tell from a paragraph of documentation the area that it documents. What is split is
families of modules, not paragraphs: `socket` and `_socket` are one family, and a family is in one split
alone, so a test row comes from a module of which nothing was seen in training.
Not here: reading the documentation (`corpus`).

    module "_socket" -> family "socket" -> area "network"; all of the family -> "train", "dev" or "test"
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

SPLITS = ("train", "dev", "test")
SHARES = {"test": 0.18, "dev": 0.12}
"""Share of an area's rows that a held-out split may take; train gets the rest."""

MIN_ROWS = 12
"""An area with fewer rows in any split is left out: Debian ships Python without its `tkinter`, for one."""

MAX_ROWS_PER_MODULE = 100
"""Only so many rows of one module, so that `tkinter` alone is not a quarter of its area."""

MIN_WORDS, MAX_WORDS = 25, 100
"""Length of a row. A shorter paragraph ("Return a copy of self.") tells nothing about an area."""

AREAS = {
    "concurrency": "asyncio concurrent contextvars multiprocessing queue sched select selectors threading",
    "datatypes": "array bisect calendar collections copy dataclasses datetime enum functools graphlib heapq "
    "itertools operator pprint reprlib weakref zoneinfo",
    "diagnostics": "bdb cgitb doctest faulthandler logging pdb profile timeit trace traceback tracemalloc "
    "unittest warnings",
    "formats": "audio codecs configparser csv dbm difflib encodings gettext html json locale marshal pickle "
    "plistlib re shelve shlex sqlite3 string stringprep struct textwrap tomllib unicodedata xdrlib xml",
    "gui": "curses idlelib tkinter turtle",
    "language": "abc annotationlib ast code codeop compileall dis gc importlib imp inspect keyword "
    "modulefinder pkgutil py_compile pyclbr pydoc rlcompleter runpy site symtable sys tabnanny token "
    "tokenize types typing zipimport",
    "mail": "base64 binascii email imaplib mailbox mailcap mimetypes poplib quopri smtpd smtplib uu",
    "network": "asynchat asyncore cgi ftplib http ipaddress nntplib socket socketserver ssl telnetlib urllib "
    "uuid webbrowser wsgiref xmlrpc",
    "numbers": "cmath colorsys decimal fractions math numbers random statistics",
    "system": "argparse cmd compression errno fcntl filecmp fileinput fnmatch getopt getpass glob grp io "
    "linecache nis optparse os path pathlib pipes platform pty pwd resource shutil signal spwd stat "
    "subprocess syslog tarfile tempfile termios time tty zipfile",
}
"""Label -> its families of modules, much as the library reference has its chapters. What is too small,
mixed or gone from newer Pythons has no label: builtins, the topics of `help()`, cryptography, distutils
and lib2to3 are text for pretraining alone."""

FAMILIES = {
    "abc": "py_abc",
    "asyncio.tasks": "asyncio asyncio.futures",
    "audio": "aifc audioop chunk sndhdr sunau wave",
    "collections": "collections_abc",
    "compression": "bz2 gzip lzma zlib zstd",
    "curses": "curses_panel",
    "datetime": "pydatetime strptime",
    "decimal": "pydecimal",
    "dis": "opcode opcode_metadata",
    "email.base64mime": "email.quoprimime",
    "email.policy": "email._policybase",
    "html": "markupbase",
    "importlib": "frozen_importlib frozen_importlib_external",
    "io": "pyio",
    "multiprocessing": "posixshmem",
    "os": "nt posix",
    "path": "genericpath ntpath nturl2path posixpath",
    "pickle": "copyreg pickletools",
    "profile": "cProfile lsprof pstats",
    "re": "sre sre_compile sre_constants sre_parse",
    "subprocess": "posixsubprocess",
    "threading": "thread threading_local",
    "turtle": "turtledemo",
    "warnings": "py_warnings",
    "weakref": "weakrefset",
    "xml.etree": "elementtree",
    "xml.parsers": "pyexpat",
}
"""Family -> modules that share its texts: a twin in C or Python, or near copies (`bz2`, `lzma`)."""

LARGE_PACKAGES = frozenset(
    ["asyncio", "email", "http", "idlelib", "importlib", "logging", "tkinter", "unittest", "xml"]
)
"""Packages whose submodules are families of their own. Each is larger than test's share of its area: as a
whole it could only ever be trained on, and what is judged would be the small modules beside it."""

_FAMILY_OF = {module: family for family, modules in FAMILIES.items() for module in modules.split()}
_AREA_OF = {family: area for area, families in AREAS.items() for family in families.split()}


def family_of(module: str) -> str:
    """The modules that must stay together: `_socket -> socket`, `urllib.parse -> urllib`, `_pyio -> io`."""
    parts = module.split(".")
    name = ".".join(parts[:2]) if parts[0] in LARGE_PACKAGES else parts[0].strip("_")
    return _FAMILY_OF.get(name, name)


def area_of(module: str) -> str | None:
    """The label of `module`, or `None` if it has none."""
    return _AREA_OF.get(family_of(module).split(".")[0])


def row_texts(paragraphs: Sequence[Sequence[str]]) -> list[str]:
    """The rows that a module's paragraphs (of sentences) make, each of 25 to 100 words.

    A paragraph is a row; a short one is joined to those that follow, a long one is cut between sentences.
    """
    rows: list[list[str]] = [[]]
    for paragraph in paragraphs:
        for words in (sentence.split() for sentence in paragraph):
            if len(rows[-1]) + len(words) > MAX_WORDS:
                rows.append([])
            rows[-1] += words
        if len(rows[-1]) >= MIN_WORDS:
            rows.append([])
    return [" ".join(row) for row in rows if MIN_WORDS <= len(row) <= MAX_WORDS]


def split_families(rows: Mapping[str, int]) -> dict[str, str]:
    """Family -> split, for the families of one area, from their numbers of rows.

    They are walked in the order of a hash of their name: test takes what fits into its share, then dev;
    train takes the rest, and thereby every family that is larger than the share of a held-out split.
    """
    room = {split: share * sum(rows.values()) * 1.1 for split, share in SHARES.items()}
    found = {}
    for family in sorted(rows, key=lambda name: hashlib.sha256(name.encode()).hexdigest()):
        found[family] = next((split for split in room if rows[family] <= room[split]), "train")
        if found[family] in room:
            room[found[family]] -= rows[family]
    return found


def labelled_rows(
    documents: Mapping[str, Sequence[Sequence[str]]],
) -> tuple[dict[str, list[tuple[str, str]]], set[str]]:
    """The task's rows per split as (text, label), and the modules that the test split is made of.

    `documents`: module -> its paragraphs, each a sequence of sentences. A text appears once.
    """
    seen: set[str] = set()
    texts: dict[str, dict[str, list[str]]] = defaultdict(dict)  # area -> module -> rows
    for module in sorted(documents):
        area = area_of(module)
        if area is None:
            continue
        kept = [text for text in dict.fromkeys(row_texts(documents[module])) if text not in seen]
        seen.update(kept)
        texts[area][module] = kept[:MAX_ROWS_PER_MODULE]

    rows: dict[str, list[tuple[str, str]]] = {split: [] for split in SPLITS}
    tested: set[str] = set()
    for area, modules in sorted(texts.items()):
        sizes: Counter[str] = Counter()
        for module, found in modules.items():
            sizes[family_of(module)] += len(found)
        split_of = split_families(sizes)
        totals = Counter(dict.fromkeys(SPLITS, 0))
        for family, split in split_of.items():
            totals[split] += sizes[family]
        if min(totals.values()) < MIN_ROWS:
            continue
        for module, found in modules.items():
            split = split_of[family_of(module)]
            rows[split] += [(text, area) for text in found]
            tested.update({module} if split == "test" else ())
    return rows, tested
