"""From text to shards: nothing lost unasked, the same bytes however it is done, clear words for bad text."""

from __future__ import annotations

import gzip
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bertsmith.data import prepare as prepare_module
from bertsmith.data.prepare import prepare
from bertsmith.data.selection import is_held_out
from bertsmith.data.shards import TokenStore, open_shards
from bertsmith.errors import InputError, RunError
from bertsmith.files import sha256
from bertsmith.tokenizer.directory import load_tokenizer
from tests.cli.run import bertsmith
from tests.data.shards import documents, hashes, options, stores, text, write


def test_every_document_is_in_exactly_one_split_and_reads_back(
    corpus: Path, tokenizer_dir: Path, tmp_path: Path
) -> None:
    result = prepare(options(corpus, tokenizer_dir, tmp_path / "s", heldout=0.2))
    tokenizer = load_tokenizer(tokenizer_dir)
    expected: dict[str, list[tuple[int, ...]]] = {"train": [], "heldout": []}
    for document in corpus.read_text().strip().split("\n\n"):
        split = "heldout" if is_held_out(document, seed=0, share=0.2) else "train"
        expected[split].append(tuple(token for line in tokenizer.encode_ids(document.split("\n")) for token in line))
    found = stores(tmp_path / "s")
    assert {split: documents(store) for split, store in found.items()} == expected
    assert result["splits"]["train"]["tokens"] == found["train"].tokens
    assert 5 < len(expected["heldout"]) < 50


def test_compressed_text_gives_the_same_shards(corpus: Path, tokenizer_dir: Path, tmp_path: Path) -> None:
    packed = tmp_path / "corpus.txt.gz"
    packed.write_bytes(gzip.compress(corpus.read_bytes()))
    prepare(options(corpus, tokenizer_dir, tmp_path / "a"))
    prepare(options(packed, tokenizer_dir, tmp_path / "b"))
    for name in ("train-00000.arrow", "heldout-00000.arrow"):
        assert sha256(tmp_path / "a" / name) == sha256(tmp_path / "b" / name)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_neither_blocks_nor_workers_change_a_byte(
    corpus: Path, tokenizer_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    flags: dict[str, Any] = {"shard_tokens": 900, "dedup": "both", "heldout": 0.1}
    prepare(options(corpus, tokenizer_dir, tmp_path / "here", **flags))
    monkeypatch.setattr(prepare_module, "SMALL", 0)
    monkeypatch.setattr("bertsmith.data.blocks.BLOCK_DOCUMENTS", 3 + threads)
    prepare(options(corpus, tokenizer_dir, tmp_path / "workers", threads=threads, **flags))
    assert hashes(tmp_path / "here") == hashes(tmp_path / "workers")
    assert len(hashes(tmp_path / "here")) > 6


def test_a_worker_that_dies_ends_the_run_and_leaves_nothing(
    corpus: Path, tokenizer_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare_module, "SMALL", 0)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RunError, match=r"a worker process ended \(exit code 1\)"):
        prepare(options(corpus, tokenizer_dir, tmp_path / "s", threads=2))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", [0.01, 0.3, 0.5, 0.77, 0.99])
def test_any_flipped_bit_of_a_shard_is_noticed(shards_dir: Path, tmp_path: Path, place: float) -> None:
    damaged = tmp_path / "shards"
    shutil.copytree(shards_dir, damaged)
    file = damaged / "train-00000.arrow"
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= 1 << 3
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"train-00000\.arrow.*SHA-256"):
        open_shards(damaged, "train")


def test_shards_of_version_1_are_read(tmp_path: Path) -> None:
    file = tmp_path / "train-00000.arrow"
    schema = pa.schema({"input_ids": pa.list_(pa.uint16()), "sentence_lengths": pa.list_(pa.int32())})
    with pa.ipc.new_file(str(file), schema) as stream:
        for ids in ([[1, 2, 3], [4]], [[5, 6]]):
            stream.write_batch(pa.record_batch([ids, [[len(part)] for part in ids]], schema=schema))
    store = TokenStore([file])
    assert documents(store) == [(1, 2, 3), (4,), (5, 6)]
    assert store.origins.tolist() == [0, 1, 2]


def test_pairs_become_documents_of_two_sentences(tokenizer_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "pairs.tsv"
    file.write_text("".join(f"the cat sees a ball.\ta dog eats {thing}.\n" for thing in ("bread", "fish", "stones")))
    result = prepare(options(file, tokenizer_dir, tmp_path / "s", pairs=True, heldout=0.0))
    assert result["splits"]["train"] == {
        "documents": 3,
        "sentences": 6,
        "tokens": result["splits"]["train"]["tokens"],
        "single_sentence_documents": 0,
        "files": 1,
    }


def test_bad_input_leaves_no_output(tokenizer_dir: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"fine\n\ncaf\xe9\n")
    with pytest.raises(InputError, match=r"bad\.txt:3: .*0xe9"):
        prepare(options(bad, tokenizer_dir, tmp_path / "s"))
    assert [path.name for path in tmp_path.iterdir()] == ["bad.txt"]


def test_a_lone_surrogate_names_the_file(tokenizer_dir: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "fine"}\n{"text": "a \\ud800 b"}\n')
    with pytest.raises(InputError, match=r"bad\.jsonl.*surrogate"):
        prepare(options(bad, tokenizer_dir, tmp_path / "s"))


def test_two_at_once_do_not_write_into_one_place(corpus: Path, tokenizer_dir: Path, tmp_path: Path) -> None:
    import fcntl

    (tmp_path / ".s.partial").mkdir()
    with (tmp_path / ".s.partial" / ".lock").open("wb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another prepare is writing it"):
            prepare(options(corpus, tokenizer_dir, tmp_path / "s"))


# Kinds of text


BAD = {
    "empty": ("", 2, r"a\.txt: is empty"),
    "blank lines": ("\n \n\t\n\n", 2, r"a\.txt: holds no text"),
    "one word": ("cat", 0, "none of the 1 documents fell into the held-out"),
    "one document": (text(0, sentences=300), 0, "none of the 1 documents fell into the held-out"),
    "one line again and again": ("the cat sees a red ball.\n" * 5000, 0, "100 % of the lines repeat one before"),
    "one document again and again": ("the cat\na dog\n\n" * 5000, 0, "100 % of the lines repeat one before"),
    "lines of 1 MB": ("the cat sees a dog " * 55_000 + "\n" + "cat" * 350_000 + "\n\nthe cat", 0, "cut into 2 pieces"),
    "a line too long": ("cat" * 700_000, 2, r"a\.txt:1: a sentence of 2,100,000 characters; at most 2,000,000"),
    "no spaces": ("兰州公交集团明起至八月底三条公交线暂不经过。\n" * 3 + "\n我们在家。\n", 0, ""),
    "control characters only": ("\x01\x02\n\n\x03\n", 2, "no text is left for training"),
}


@pytest.mark.parametrize("kind", BAD)
def test_odd_text_ends_in_shards_or_in_one_clear_line(capsys, tokenizer_dir: Path, tmp_path: Path, kind: str) -> None:
    content, code, message = BAD[kind]
    file = tmp_path / "a.txt"
    file.write_text(content, encoding="utf-8")
    outcome = bertsmith(capsys, "prepare", file, "--tokenizer", tokenizer_dir, "--out", tmp_path / "s")
    assert outcome.code == code, outcome.err
    assert message.replace("\\", "") in outcome.err
    assert (tmp_path / "s" / "bertsmith.json").is_file() == (code == 0)
    assert len(outcome.errors) == (code != 0)
    assert not list(tmp_path.glob(".s*"))


def test_long_documents_are_cut_counted_and_keep_one_origin(tokenizer_dir: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "a.txt", [text(0, sentences=100), text(1), text(2, sentences=50)])
    result = prepare(options(file, tokenizer_dir, tmp_path / "s", max_document=200, dedup="none"))
    whole = prepare(options(file, tokenizer_dir, tmp_path / "t", dedup="none", heldout=0))
    assert result["cut"]["documents"] == 2
    found = stores(tmp_path / "s")
    origins = np.concatenate([store.origins for store in found.values()])
    assert len(origins) == result["cut"]["pieces"] + 1 > 20
    assert set(origins.tolist()) == {0, 1, 2}
    assert sum(store.tokens for store in found.values()) == whole["splits"]["train"]["tokens"]
