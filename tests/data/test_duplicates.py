"""Equal and nearly equal documents and lines: the first stays, and what goes is counted."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertsmith.data import prepare as prepare_module
from bertsmith.data.prepare import prepare
from bertsmith.data.shards import TokenStore
from bertsmith.errors import InputError, RunError
from bertsmith.tokenizer.directory import load_tokenizer
from tests.data.shards import documents, hashes, options, stores, text, write


def test_of_equal_documents_the_first_stays_and_the_rest_is_counted(tokenizer_dir: Path, tmp_path: Path) -> None:
    texts = [text(number % 30) for number in range(100)]
    file = write(tmp_path / "a.txt", texts)
    result = prepare(options(file, tokenizer_dir, tmp_path / "s"))
    assert result["removed"]["duplicate_documents"] == 70
    assert result["removed"]["characters"] == sum(len(found.replace("\n", "")) for found in texts[30:])
    prepare(options(write(tmp_path / "b.txt", texts[:30]), tokenizer_dir, tmp_path / "t"))
    for name in ("train-00000.arrow", "heldout-00000.arrow"):
        first, second = (TokenStore([tmp_path / out / name]) for out in "st")
        assert documents(first) == documents(second)
    manifest = json.loads((tmp_path / "s" / "bertsmith.json").read_text())
    assert manifest["removed"] == result["removed"]
    assert manifest["sources"][0]["duplicate_documents"] == 70


def test_of_equal_lines_the_first_stays_and_empty_documents_go(tokenizer_dir: Path, tmp_path: Path) -> None:
    texts = ["the cat\na dog\nthe cat", "a dog\nthe bird", "the cat", "the bird\nthe cat", "one fish"]
    file = write(tmp_path / "a.txt", texts)
    result = prepare(options(file, tokenizer_dir, tmp_path / "s", dedup="lines", heldout=0))
    tokenizer = load_tokenizer(tokenizer_dir)
    left = [["the cat", "a dog"], ["the bird"], ["one fish"]]
    expected = [tuple(token for ids in tokenizer.encode_ids(lines) for token in ids) for lines in left]
    assert documents(stores(tmp_path / "s")["train"]) == expected
    assert result["removed"]["duplicate_lines"] == 5
    assert result["removed"]["emptied_documents"] == 2
    assert result["splits"]["train"]["single_sentence_documents"] == 2


def test_lines_of_a_removed_document_count_with_it_and_not_as_lines(tokenizer_dir: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "a.txt", ["the cat\na dog", "the cat\na dog", "a dog\nthe bird"])
    result = prepare(options(file, tokenizer_dir, tmp_path / "s", dedup="both", heldout=0))
    assert result["removed"]["duplicate_documents"] == 1
    assert result["removed"]["duplicate_lines"] == 1


def test_too_little_memory_for_hashes_is_said_and_resume_takes_more(
    tokenizer_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bertsmith.data.dedup._SMALLEST", 64)
    monkeypatch.setattr("bertsmith.data.blocks.BLOCK_DOCUMENTS", 10)
    monkeypatch.setattr("bertsmith.data.dedup._MEGABYTE", 4000)

    file = write(tmp_path / "a.txt", [text(number) for number in range(300)])
    flags: dict[str, Any] = {"shard_tokens": 500}
    with pytest.raises(RunError, match="--dedup-memory"):
        prepare(options(file, tokenizer_dir, tmp_path / "s", dedup_memory=1, **flags))
    prepare(options(file, tokenizer_dir, tmp_path / "s", dedup_memory=100, resume=True, **flags))
    prepare(options(file, tokenizer_dir, tmp_path / "t", dedup_memory=100, **flags))
    assert hashes(tmp_path / "s") == hashes(tmp_path / "t")


# Near-duplicates


def changed(original: str, share: float, seed: int = 0) -> str:
    """The text with that share of its words replaced by one other."""
    rng = random.Random(seed)
    return "\n".join(
        " ".join("girl" if rng.random() < share else word for word in line.split()) for line in original.split("\n")
    )


def test_the_found_share_of_near_duplicates_follows_their_similarity() -> None:
    from bertsmith.data.near import Signer, shingles

    signer = Signer(0.8, seed=0)
    originals = [text(number, sentences=30) for number in range(150)]
    for share, least, most in ((0.005, 0.9, 1), (0.02, 0.4, 0.95), (0.2, 0, 0.01)):
        pairs = [(original, changed(original, share, seed)) for seed, original in enumerate(originals)]
        sets = [(set(shingles(one)), set(shingles(other))) for one, other in pairs]
        expected = np.mean([1 - (1 - (len(a & b) / len(a | b)) ** 12) ** 10 for a, b in sets])
        found = np.mean([(signer.bands([one]) == signer.bands([other])).any() for one, other in pairs])
        assert least <= found <= most
        assert abs(found - expected) < 0.12


def test_near_duplicates_go_their_first_stays_and_workers_agree(
    tokenizer_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    originals = [text(number, sentences=20) for number in range(40)]
    copies = [changed(original, 0.004, seed) for seed, original in enumerate(originals)]
    file = write(tmp_path / "a.txt", [*originals, *copies])
    flags: dict[str, Any] = {"near_dedup": 0.8, "shard_tokens": 2000}
    result = prepare(options(file, tokenizer_dir, tmp_path / "s", **flags))
    removed = result["removed"]["near_duplicates"] + result["removed"]["duplicate_documents"]
    assert 36 <= removed <= 40
    kept = {int(origin) for store in stores(tmp_path / "s").values() for origin in store.origins}
    assert kept >= set(range(40))
    monkeypatch.setattr(prepare_module, "SMALL", 0)
    monkeypatch.setattr("bertsmith.data.blocks.BLOCK_DOCUMENTS", 7)
    prepare(options(file, tokenizer_dir, tmp_path / "t", threads=2, **flags))
    assert hashes(tmp_path / "s") == hashes(tmp_path / "t")


def test_near_duplicates_are_found_in_text_without_spaces(tokenizer_dir: Path, tmp_path: Path) -> None:
    rng = random.Random(0)
    signs = [chr(0x4E00 + number) for number in range(300)]
    first = "".join(rng.choices(signs, k=600))
    file = write(tmp_path / "a.txt", [first, first[:300] + "兰" + first[301:], "".join(rng.choices(signs, k=600))])
    result = prepare(options(file, tokenizer_dir, tmp_path / "s", near_dedup=0.8, heldout=0))
    assert result["removed"]["near_duplicates"] == 1
    assert stores(tmp_path / "s")["train"].origins.tolist() == [0, 2]


def test_the_missing_extra_is_named_before_anything_is_read(
    corpus: Path, tokenizer_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rensa", None)
    with pytest.raises(InputError, match=r'pip install "bertsmith\[dedup\]"'):
        prepare(options(corpus, tokenizer_dir, tmp_path / "s", near_dedup=0.8))
    assert list(tmp_path.iterdir()) == []
