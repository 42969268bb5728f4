"""`--reranker`: the order of a model with one output; any such directory, ours or transformers'."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from scipy.special import logit

from bertsmith.data.examples import Example
from bertsmith.model import load
from bertsmith.tasks.classify import ClassifyTask
from bertsmith.tasks.inference import results
from tests.cli.run import assert_refused, bertsmith
from tests.parity.reference import SHAPE, redraw
from tests.search.folders import find, texts, write
from tests.tasks.examples import write_model

QUERY = "the cat sees a red ball"


@pytest.fixture(scope="module")
def cross_encoder(tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier(tmp_path_factory.mktemp("reranker") / "reranker", tokenizer_dir, outputs=1)


def classifier(out: Path, tokenizer_dir: Path, *, outputs: int, **changes: int) -> Path:
    shutil.copytree(tokenizer_dir, out)
    (out / "bertsmith.json").unlink()
    vocabulary = len((tokenizer_dir / "vocab.txt").read_text().splitlines())
    shape = SHAPE | {"vocab_size": vocabulary, "max_position_embeddings": 64, "num_labels": outputs} | changes
    model = transformers.BertForSequenceClassification(transformers.BertConfig(**shape))
    redraw(model)
    model.save_pretrained(out)
    return out


def theirs(directory: Path, passages: list[str]) -> np.ndarray:
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(directory).eval()
    inputs = tokenizer([QUERY] * len(passages), passages, return_tensors="pt", padding=True)
    with torch.no_grad():
        return np.asarray(model(**inputs).logits[:, 0])


def test_passages_stand_in_the_order_of_transformers_logits(
    encoder_dir: Path, cross_encoder: Path, tmp_path: Path
) -> None:
    folder = texts(tmp_path / "texts", 24)
    every = find(folder, encoder_dir, QUERY, top_k=24)["hits"]
    near = [hit["passage"] for hit in every[:8]]
    logits = theirs(cross_encoder, near)
    expected = [near[i] for i in np.argsort(-logits)[:5]]
    result = find(folder, encoder_dir, QUERY, top_k=5, candidates=8, reranker=str(cross_encoder))
    assert [hit["passage"] for hit in result["hits"]] == expected
    assert expected != near[:5]
    scores = [hit["rerank_score"] for hit in result["hits"]]
    np.testing.assert_allclose(scores, np.sort(logits)[::-1][:5], rtol=0, atol=1e-4)
    cosines = {hit["passage"]: hit["score"] for hit in every}
    assert [hit["score"] for hit in result["hits"]] == pytest.approx([cosines[text] for text in expected], abs=1e-6)


def test_at_least_top_k_passages_are_read_and_long_ones_in_windows(
    encoder_dir: Path, cross_encoder: Path, tmp_path: Path
) -> None:
    for i in range(6):
        write(tmp_path / f"{i}.txt", f"{i} the cat sees a dog near the river today again and again in the garden")
    result = find(tmp_path, encoder_dir, QUERY + " near the river", top_k=6, candidates=1, reranker=str(cross_encoder))
    assert len(result["hits"]) >= 6
    assert all(np.isfinite(hit["rerank_score"]) for hit in result["hits"])


@pytest.mark.parametrize("long_docs", ["truncate", "error"])
def test_a_reranker_reads_no_more_than_its_task(
    long_docs: str, encoder_dir: Path, tokenizer_dir: Path, tmp_path: Path
) -> None:
    """It cuts where `predict` cuts; one that was never trained on longer pairs reads them in windows."""
    task = {"name": "rerank", "labels": ["score"], "max_length": 16, "long_docs": long_docs}
    model = write_model(tmp_path / "model", tokenizer_dir, task=task, heads=("pooler", "classifier"), labels=1)
    passage = "the old man paints a small house near the river again and again in the garden"
    folder = tmp_path / "texts"
    write(folder / "a.txt", passage)
    (hit,) = find(folder, encoder_dir, QUERY, reranker=str(model))["hits"]
    loaded = load(model, device="cpu")
    if long_docs == "truncate":
        (answer,) = loaded.predict([QUERY], pairs=[passage])
        assert hit["rerank_score"] == pytest.approx(logit(answer["score"]), abs=1e-4)
    else:
        windows = ClassifyTask(("score",), 16, "window", "regression")
        rows = [Example(Path("x"), 1, QUERY, passage, None)]
        inputs = windows.prepare(rows, loaded.bundle.tokenizer, labelled=False)
        assert len(inputs) > 1
        (expected,) = results(loaded.bundle.model, windows, rows, inputs)
        assert hit["rerank_score"] == pytest.approx(float(expected[0]), abs=1e-4)


def test_a_model_that_is_no_reranker(
    capsys, encoder_dir: Path, classifier_dir: Path, tokenizer_dir: Path, tmp_path: Path
) -> None:
    folder = texts(tmp_path / "texts", 3)
    words = ("search", folder, QUERY, "--model", encoder_dir, "--reranker")
    reason = r'field "--reranker": a reranker gives one number for a pair of texts; its classifier has 2 outputs'
    assert_refused(bertsmith(capsys, *words, classifier_dir), reason)
    assert_refused(bertsmith(capsys, *words, encoder_dir), r"a reranker gives one number .*; it has no classifier")
    assert_refused(bertsmith(capsys, *words, tmp_path / "nothing"), r"nothing: no such model directory")
    assert not (folder / ".bertsmith").exists()
    single = classifier(tmp_path / "single", tokenizer_dir, outputs=1, type_vocab_size=1)
    assert_refused(bertsmith(capsys, *words, single), r"one segment and cannot read pairs")


def test_the_console_shows_both_scores(capsys, encoder_dir: Path, cross_encoder: Path, tmp_path: Path) -> None:
    folder = texts(tmp_path / "texts", 3)
    outcome = bertsmith(capsys, "search", folder, QUERY, "--model", encoder_dir, "--reranker", cross_encoder)
    hit = find(folder, encoder_dir, QUERY, reranker=str(cross_encoder))["hits"][0]
    assert f"  1  {hit['score']:.4f}  reranked {hit['rerank_score']:.4f}  {hit['file']}:1" in outcome.out
