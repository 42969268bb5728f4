"""Texts to prepare, and what the shards that come of them hold."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

from bertsmith.config.prepare import PrepareOptions
from bertsmith.data.shards import TokenStore, open_shards
from bertsmith.files import sha256

NOUNS = ("cat", "dog", "bird", "fish", "ball", "tree", "bread", "stones", "sky", "girl", "man", "house")


def options(corpus: Path, tokenizer: Path, out: Path, **changes: object) -> PrepareOptions:
    return PrepareOptions(**({"files": (corpus,), "tokenizer": tokenizer, "out": out} | changes))


def stores(out: Path) -> dict[str, TokenStore]:
    return {split: open_shards(out, split)[0] for split in ("train", "heldout")}


def documents(store: TokenStore) -> list[tuple[int, ...]]:
    """The ids of each document."""
    bounds = store.document_bounds.tolist()
    return [tuple(store.slice(start, end).tolist()) for start, end in pairwise(bounds)]


def hashes(out: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in sorted(out.iterdir()) if path.is_file()}


def write(path: Path, texts: list[str]) -> Path:
    path.write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    return path


def text(seed: int, *, sentences: int = 4, words: int = 8) -> str:
    """A document of the words of the corpus."""
    rng, known = random.Random(seed), f"{' '.join(NOUNS)} sees eats likes red green".split()
    return "\n".join(" ".join(rng.choices(known, k=words)) for _ in range(sentences))
