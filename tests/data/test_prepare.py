from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from bertsmith.config.prepare import PrepareOptions
from bertsmith.data.prepare import is_held_out, prepare
from bertsmith.data.shards import open_shards
from bertsmith.errors import InputError
from bertsmith.files import sha256
from bertsmith.tokenizer.directory import load_tokenizer


def options(corpus: Path, tokenizer: Path, out: Path, **changes: object) -> PrepareOptions:
    return PrepareOptions(**({"files": (corpus,), "tokenizer": tokenizer, "out": out} | changes))


def test_every_document_is_in_exactly_one_split_and_reads_back(
    corpus: Path, tokenizer_dir: Path, tmp_path: Path
) -> None:
    result = prepare(options(corpus, tokenizer_dir, tmp_path / "s", heldout=0.2))
    tokenizer = load_tokenizer(tokenizer_dir)
    stores = {split: open_shards(tmp_path / "s", split)[0] for split in ("train", "heldout")}
    read = dict.fromkeys(stores, 0)
    for number, text in enumerate(corpus.read_text().strip().split("\n\n")):
        split = "heldout" if is_held_out(number, seed=0, share=0.2) else "train"
        bounds = stores[split].document_bounds
        ids = stores[split].slice(int(bounds[read[split]]), int(bounds[read[split] + 1])).tolist()
        assert ids == [token for line in tokenizer.encode_ids(text.split("\n")) for token in line]
        read[split] += 1
    assert {split: store.documents for split, store in stores.items()} == read
    assert result["splits"]["train"]["tokens"] == stores["train"].tokens
    assert 5 < read["heldout"] < 50


def test_compressed_text_gives_the_same_shards(corpus: Path, tokenizer_dir: Path, tmp_path: Path) -> None:
    packed = tmp_path / "corpus.txt.gz"
    packed.write_bytes(gzip.compress(corpus.read_bytes()))
    prepare(options(corpus, tokenizer_dir, tmp_path / "a"))
    prepare(options(packed, tokenizer_dir, tmp_path / "b"))
    for name in ("train-00000.arrow", "heldout-00000.arrow"):
        assert sha256(tmp_path / "a" / name) == sha256(tmp_path / "b" / name)


@pytest.mark.parametrize("place", [0.01, 0.3, 0.5, 0.77, 0.99])
def test_any_flipped_bit_of_a_shard_is_noticed(shards_dir: Path, tmp_path: Path, place: float) -> None:
    import shutil

    damaged = tmp_path / "shards"
    shutil.copytree(shards_dir, damaged)
    file = damaged / "train-00000.arrow"
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= 1 << 3
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"train-00000\.arrow.*SHA-256"):
        open_shards(damaged, "train")


def test_pairs_become_documents_of_two_sentences(tokenizer_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "pairs.tsv"
    file.write_text("the cat sees a red ball.\ta dog eats some bread.\n" * 3)
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
