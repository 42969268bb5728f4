"""Memory and time of `bertsmith tokenizer`: the whole process, the trainer in Rust included.

The texts are made here: random words (the cap on distinct words bites), random Hangul (the worst found), and, if
`BERTSMITH_DATA` names the larger data sets, English books repeated up to the size asked for. The "peer" is the
promise: 2 GB of memory.

    python benchmarks/tokenizer.py [--quick] [--megabytes 1040]
"""

from __future__ import annotations

import argparse
import lzma
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from report import finish, row

PROMISE_MB = 2000


def main() -> None:
    """Measure each text in a process of its own, print a table and one JSON line."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--quick", action="store_true", help="5 MB of each text")
    arguments.add_argument("--megabytes", type=int, default=1040, help="size of the text made of books")
    chosen = arguments.parse_args()
    sizes = {"random words": 300, "random Hangul": 100}
    texts = {"random words": random_words(), "random Hangul": random_hangul()}
    books = Path(os.environ.get("BERTSMITH_DATA", "../shared/data")) / "corpora" / "gutenberg_en.txt.xz"
    if books.is_file():
        sizes["English books"] = chosen.megabytes
        texts["English books"] = again_and_again(books)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, lines in texts.items():
            size = 5 if chosen.quick else sizes[name]
            file = Path(folder) / "text.txt"
            write(file, lines, size * 1_000_000)
            seconds, megabytes = measure(file, Path(folder) / "tokenizer")
            case = f"{size} MB of {name}, {seconds:.0f} s"
            rows.append(row(case, "promise", megabytes, PROMISE_MB, "MB of memory", lower_is_better=True))
    finish("tokenizer", rows)


def write(file: Path, lines: Iterator[str], size: int) -> None:
    """At least `size` bytes of `lines`."""
    with file.open("w", encoding="utf-8") as stream:
        written = 0
        for line in lines:
            written += stream.write(line) * (3 if line[0] > "가" else 1)
            if written >= size:
                return


def again_and_again(file: Path) -> Iterator[str]:
    """The lines of an xz file, over and over."""
    while True:
        with lzma.open(file, "rt", encoding="utf-8") as stream:
            yield from stream


def random_words() -> Iterator[str]:
    """Lines of ten random words of four to nine letters: nearly every word is new."""
    rng = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    while True:
        yield " ".join("".join(rng.choices(letters, k=rng.randint(4, 9))) for _ in range(10)) + "\n"


def random_hangul() -> Iterator[str]:
    """The same of random Korean syllables: many characters, each in many words."""
    rng = random.Random(0)
    while True:
        yield " ".join("".join(chr(rng.randint(0xAC01, 0xD7A3)) for _ in range(4)) for _ in range(10)) + "\n"


def measure(file: Path, out: Path) -> tuple[float, float]:
    """Seconds and largest resident memory (MB) of one training."""
    words = [sys.executable, "-m", "bertsmith", "tokenizer", str(file), "--out", str(out), "--overwrite"]
    started = time.perf_counter()
    process = os.posix_spawn(words[0], [*words, "--vocab-size", "8000"], os.environ)
    _, status, usage = os.wait4(process, 0)
    if status:
        raise SystemExit(f"the training ended with status {status}")
    return time.perf_counter() - started, usage.ru_maxrss / 1000


if __name__ == "__main__":
    main()
