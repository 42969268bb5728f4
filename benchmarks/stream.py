"""A long job: `bertsmith embed` of a million short texts. Speed beside that of a small sample, memory, and kill -9.

A job of its own measures each: a single text (the start, which is taken off), the small sample, the whole file (most
memory, and what it grew by after the first tenth of the time), and the whole file again, killed a few times in the
middle and resumed, whose bytes must be the same. Texts are made up of the words of the model's vocabulary; the default
encoder is all-MiniLM-L6-v2.

    python benchmarks/stream.py [--quick] [--model DIR] [--engine int8] [--texts 1000000] [--threads 2] [--kills 3]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from report import finish, row
from samples import mini_lm

SAMPLE = 20_000
LONGEST = 24


def main() -> None:
    """Run the jobs, print a table and one JSON line."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--quick", action="store_true", help="a few thousand texts, one kill")
    arguments.add_argument("--model", type=Path, default=None)
    arguments.add_argument("--engine", default="int8")
    arguments.add_argument("--texts", type=int, default=1_000_000)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--kills", type=int, default=3)
    chosen = arguments.parse_args()
    chosen.model = chosen.model or mini_lm()
    if chosen.quick:
        chosen.texts, chosen.kills = 12_000, 1
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        one, small, whole = (work / f"{name}.txt" for name in ("one", "small", "whole"))
        words = words_of(chosen.model)
        write_texts(one, 1, words, seed=0)
        write_texts(small, min(SAMPLE, chosen.texts // 4), words, seed=1)
        write_texts(whole, chosen.texts, words, seed=2)
        start_up, first, second = (job(chosen, file, file.with_suffix(".npy")) for file in (one, small, whole))
        again, kills = killed(chosen, whole, work / "again.npy", seconds=second["seconds"])
        if digest(again) != digest(whole.with_suffix(".npy")):
            raise SystemExit(f"killed {kills} times and resumed, the vectors are others")
    name = f"{chosen.model.name}, {chosen.engine}"
    speeds = (each["texts"] / (each["seconds"] - start_up["seconds"]) for each in (second, first))
    line = row(f"{name}: {chosen.texts} texts", f"ours, {first['texts']} texts", *speeds, "texts/s")
    figures = {
        "most_memory_mb": second["most_memory"] / 1e6,
        "grown_mb": second["grown"] / 1e6,
        "start_s": start_up["seconds"],
        "kills_without_effect": kills,
    }
    finish("stream", [line | figures])


def words_of(model: Path) -> list[str]:
    """Whole words of the model's vocabulary."""
    pieces = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    return [piece for piece in pieces if piece.isalpha() and piece.isascii() and len(piece) > 1]


def write_texts(path: Path, count: int, words: list[str], *, seed: int) -> None:
    """A text a line."""
    draw = random.Random(seed)
    with path.open("w", encoding="utf-8") as stream:
        for _ in range(count):
            stream.write(" ".join(draw.choices(words, k=draw.randint(2, LONGEST))) + "\n")


def start(chosen: argparse.Namespace, data: Path, out: Path, *more: str) -> subprocess.Popen[bytes]:
    """The verb in a process of its own."""
    words = ["embed", chosen.model, "--data", data, "--out", out, "--engine", chosen.engine, *more]
    command = [sys.executable, "-m", "bertsmith", *map(str, words), "--threads", str(chosen.threads)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def job(chosen: argparse.Namespace, data: Path, out: Path) -> dict[str, Any]:
    """Seconds and memory in bytes of one whole job; `grown`: how far the most lies above that of the first tenth."""
    with data.open("rb") as stream:
        count = sum(1 for _ in stream)
    started = time.perf_counter()
    process = start(chosen, data, out)
    seen: list[int] = []
    while process.poll() is None:
        seen.append(resident(process.pid))
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"embed of {data.name} ended with {process.returncode}")
    early = max(seen[: max(1, len(seen) // 10)])
    most = max(seen)
    return {"texts": count, "seconds": time.perf_counter() - started, "most_memory": most, "grown": most - early}


def resident(process: int) -> int:
    """Bytes that a process has in memory."""
    try:
        pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    except OSError:  # it has just ended
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def killed(chosen: argparse.Namespace, data: Path, out: Path, *, seconds: float) -> tuple[Path, int]:
    """The same job, killed in the middle and resumed; the file, and how often it was."""
    draw, kills = random.Random(0), 0
    for _ in range(chosen.kills):
        process = start(chosen, data, out, "--resume")
        try:
            process.wait(seconds * draw.uniform(0.2, 0.8) / chosen.kills + seconds * 0.05)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
    process = start(chosen, data, out, "--resume")
    if process.wait():
        raise SystemExit(f"embed of {data.name}, resumed, ended with {process.returncode}")
    return out, kills


def digest(file: Path) -> str:
    """SHA-256."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


if __name__ == "__main__":
    main()
