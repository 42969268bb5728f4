"""Which documents are held out, and how often a document of a file is drawn."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertsmith.data.prepare import prepare
from bertsmith.errors import InputError
from tests.data.shards import documents, options, stores, text, write


@pytest.mark.parametrize("dedup", ["none", "lines", "documents", "both"])
def test_no_document_is_in_both_splits_whatever_the_flag(tokenizer_dir: Path, tmp_path: Path, dedup: str) -> None:
    texts = [text(number) for number in range(60)] * 4
    random.Random(0).shuffle(texts)
    result = prepare(options(write(tmp_path / "a.txt", texts), tokenizer_dir, tmp_path / "s", dedup=dedup, heldout=0.3))
    train, heldout = (set(documents(store)) for store in stores(tmp_path / "s").values())
    assert train.isdisjoint(heldout)
    assert min(len(train), len(heldout)) > 5
    copies = 1 if dedup != "none" else 4
    assert sum(result["splits"][split]["documents"] for split in ("train", "heldout")) == 60 * copies


def test_a_document_is_held_out_by_its_text_and_not_by_its_place(tokenizer_dir: Path, tmp_path: Path) -> None:
    texts = [text(number) for number in range(80)]
    first = write(tmp_path / "a.txt", texts)
    second = write(tmp_path / "b.txt", [text(1000), *reversed(texts)])
    prepare(options(first, tokenizer_dir, tmp_path / "s", heldout=0.3))
    prepare(options(second, tokenizer_dir, tmp_path / "t", heldout=0.3))
    prepare(options(first, tokenizer_dir, tmp_path / "u", heldout=0.3, seed=1))
    found = [set(documents(stores(tmp_path / out)["heldout"])) for out in "stu"]
    assert found[0] <= found[1]
    assert len(found[1] - found[0]) <= 1
    assert found[2] != found[0]


def test_weights_repeat_and_sample_training_documents_and_the_report_says_so(
    tokenizer_dir: Path, tmp_path: Path
) -> None:
    files = tuple(
        write(tmp_path / f"{name}.txt", [text(1000 * number + i) for i in range(200)])
        for number, name in enumerate("abc")
    )
    flags: dict[str, Any] = {"files": files, "weights": "1,0.5,2.25", "heldout": 0.1}
    result = prepare(options(files[0], tokenizer_dir, tmp_path / "s", **flags))
    found = stores(tmp_path / "s")
    held = documents(found["heldout"])
    assert len(held) == len(set(held))
    times = np.unique(found["train"].origins, return_counts=True)
    per_file = [{}, {}, {}]
    for origin, count in zip(*(part.tolist() for part in times), strict=True):
        per_file[origin // 200].setdefault(count, []).append(origin)
    assert set(per_file[0]) == {1}
    assert set(per_file[1]) == {1}
    assert 60 < len(per_file[1][1]) < 120
    assert set(per_file[2]) == {2, 3}
    assert 20 < len(per_file[2][3]) < 80
    assert [source["weight"] for source in result["sources"]] == [1, 0.5, 2.25]
    assert sum(source["documents"] for source in result["sources"]) == found["train"].documents + len(held)
    assert result["sources"][1]["documents"] + result["sources"][1]["not_drawn"] == 200
    with pytest.raises(InputError, match=r"--weights.*2 for 3 files"):
        prepare(options(files[0], tokenizer_dir, tmp_path / "t", files=files, weights="1,2"))
    with pytest.raises(ValueError, match="numbers above 0"):
        options(files[0], tokenizer_dir, tmp_path / "t", weights="1,0,x")
