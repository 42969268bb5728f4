"""Fine-tuned rerankers: equal scores in CrossEncoder, lists and pairs, mined negatives, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
import pytest
from ir_measures import AP, P, Qrel, R, ScoredDoc, nDCG
from scipy.stats import spearmanr
from sentence_transformers import CrossEncoder
from sklearn.metrics import accuracy_score, average_precision_score, f1_score
from torch.nn import Identity, Sigmoid

from bertsmith.bundle import load_bundle
from bertsmith.config.inference import EvaluateOptions
from bertsmith.data.examples import Example
from bertsmith.evaluate import evaluate
from bertsmith.model import load
from bertsmith.tasks.relevance import is_listwise, judge_lists, judge_relevance
from bertsmith.tasks.rerank import RerankTask
from bertsmith.train.finetune import finetune
from tests.cli.run import assert_refused, bertsmith
from tests.tasks.examples import options

PLACE = Path("a.tsv")
PAIRS = [("a cat", "the cat sees a red ball."), ("a dog", "one fish paints the blue sky"), ("a", "")]


def trained(encoder: Path, folder: Path, **changes: Any) -> Any:
    given = options("rerank", encoder, folder, **({"steps": 6} | changes))
    return given, finetune(given)


def lists(path: Path, *, count: int) -> Path:
    """Queries with a relevant text and two others."""
    animals = ("cat", "dog", "bird", "fish")
    lines = ["query\tpositive\tnegative\tnegative_2"]
    for i in range(count):
        first, second, third = (f"the {animals[(i + k) % 4]} sees {i}" for k in range(3))
        lines.append(f"a {animals[i % 4]} {i}\t{first}\t{second}\t{third}")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_cross_encoder_gives_equal_scores(encoder_dir: Path, tmp_path: Path) -> None:
    given, _ = trained(encoder_dir, tmp_path)
    theirs = CrossEncoder(str(given.out), device="cpu", local_files_only=True)
    ours = scores_of(given.out)
    np.testing.assert_allclose(ours, theirs.predict(PAIRS), rtol=0, atol=1e-5)
    assert json.loads((given.out / "config.json").read_text())["id2label"] == {"0": "score"}
    (given.out / "bertsmith.json").unlink()
    again = scores_of(given.out)
    assert again == pytest.approx(ours)


def test_cross_encoder_cuts_where_a_reranker_learnt_to(encoder_dir: Path, tmp_path: Path) -> None:
    given, _ = trained(encoder_dir, tmp_path, max_length=14, long_docs="truncate", steps=1)
    theirs = CrossEncoder(str(given.out), device="cpu", local_files_only=True)
    assert theirs.max_seq_length == load(given.out, device="cpu").task().max_length == 14
    pairs = [("a cat", "the cat sees a red ball. " * 9), ("a cat " * 9, "a dog"), ("a cat " * 9, "a red ball " * 9)]
    np.testing.assert_allclose(scores_of(given.out, pairs), theirs.predict(pairs), rtol=0, atol=1e-5)


def scores_of(model: Path, rows: list[tuple[str, str]] = PAIRS) -> list[float]:
    texts, pairs = (list(column) for column in zip(*rows, strict=True))
    return [answer["score"] for answer in load(model, device="cpu").predict(texts, pairs=pairs)]


def test_a_cross_encoder_of_others_is_read_and_its_head_kept(encoder_dir: Path, tmp_path: Path) -> None:
    given, _ = trained(encoder_dir, tmp_path / "run")
    CrossEncoder(str(given.out), device="cpu", local_files_only=True).save_pretrained(str(tmp_path / "theirs"))
    bundle = load_bundle(tmp_path / "theirs")
    assert bundle.task["name"] == "rerank"
    _, report = trained(tmp_path / "theirs", tmp_path / "more", steps=1, learning_rate=1e-9)
    before = evaluate(EvaluateOptions(model=str(given.out), data=given.dev))
    assert report["dev_average_precision"] == pytest.approx(before["average_precision"], abs=1e-6)


def test_a_cross_encoder_of_others_answers_by_its_own_activation(encoder_dir: Path, tmp_path: Path) -> None:
    given, _ = trained(encoder_dir, tmp_path / "run")
    for name, activation in (("raw", Identity()), ("shares", Sigmoid())):
        theirs = CrossEncoder(str(given.out), device="cpu", local_files_only=True, activation_fn=activation)
        theirs.save_pretrained(str(tmp_path / name))
        np.testing.assert_allclose(scores_of(tmp_path / name), theirs.predict(PAIRS), rtol=0, atol=1e-5)


def test_groups_are_judged_as_lists(encoder_dir: Path, tmp_path: Path) -> None:
    train, dev = lists(tmp_path / "train.tsv", count=40), lists(tmp_path / "dev.tsv", count=12)
    given, report = trained(encoder_dir, tmp_path, train=train, dev=dev)
    assert {"dev_ndcg@10", "dev_mrr@10", "dev_map", "dev_f1"} <= report.keys()
    assert report["best_value"] == report["dev_ndcg@10"]
    found = evaluate(EvaluateOptions(model=str(given.out), data=dev, baseline=train))
    assert (found["rows"], found["queries"]) == (36, 12)
    assert found["tfidf_ndcg@10"] > found["majority_ndcg@10"]


def test_metrics_of_lists_equal_ir_measures() -> None:
    rng = np.random.default_rng(0)
    rows = [Example(PLACE, i, f"q{i % 9}", f"{i:03}", float(rng.integers(2))) for i in range(90)]
    scores = rng.random(90).astype(np.float32).astype(float)
    assert is_listwise(rows)
    expected = ir_measures.calc_aggregate(
        [nDCG @ 10, AP],
        [Qrel(row.text, row.pair, int(row.label)) for row in rows],
        [ScoredDoc(row.text, row.pair, score) for row, score in zip(rows, scores, strict=True)],
    )
    metrics = judge_lists(rows, scores).metrics
    assert [metrics["ndcg@10"], metrics["map"]] == pytest.approx([expected[nDCG @ 10], expected[AP]], abs=1e-9)


def test_grades_are_gains_and_from_the_middle_on_relevant(tmp_path: Path) -> None:
    rng, path = np.random.default_rng(0), tmp_path / "a.tsv"
    grades = rng.integers(0, 4, 180)
    lines = (f"q{i % 9}\td{i:03}\t{grade}\n" for i, grade in enumerate(grades))
    path.write_text("query\tpassage\tlabel\n" + "".join(lines))
    rows = RerankTask(64, score_range=(0.0, 3.0)).read(path)
    scores = rng.integers(0, 12, 180) / 16  # many ties
    run = [ScoredDoc(row.text, row.pair, score) for row, score in zip(rows, scores, strict=True)]
    graded = [Qrel(row.text, row.pair, int(grade)) for row, grade in zip(rows, grades, strict=True)]
    binary = [Qrel(row.text, row.pair, int(grade >= 2)) for row, grade in zip(rows, grades, strict=True)]
    measures = AP, R @ 10, P @ 1
    theirs = ir_measures.calc_aggregate([nDCG @ 10], graded, run) | ir_measures.calc_aggregate(measures, binary, run)
    metrics = judge_lists(rows, scores).metrics
    ours = [metrics[name] for name in ("ndcg@10", "map", "recall@10", "precision@1")]
    assert ours == pytest.approx([theirs[measure] for measure in (nDCG @ 10, *measures)], abs=1e-9)


def test_metrics_of_pairs_equal_scikit_learn_and_those_of_shares_scipy() -> None:
    rng = np.random.default_rng(0)
    rows = [Example(PLACE, i, f"q{i}", "t", float(rng.integers(2))) for i in range(90)]
    scores, truth = rng.random(90), [row.label for row in rows]
    assert not is_listwise(rows)
    metrics = judge_relevance(rows, scores).metrics
    assert metrics["f1"] == pytest.approx(f1_score(truth, scores >= 0.5), abs=1e-9)
    assert metrics["accuracy"] == pytest.approx(accuracy_score(truth, scores >= 0.5), abs=1e-9)
    assert metrics["average_precision"] == pytest.approx(average_precision_score(truth, scores), abs=1e-9)
    shares = [Example(PLACE, i, f"q{i}", "t", float(share)) for i, share in enumerate(rng.random(50))]
    found = judge_relevance(shares, scores[:50]).metrics["spearman"]
    assert found == pytest.approx(spearmanr([row.label for row in shares], scores[:50]).statistic, abs=1e-9)


def test_positives_alone_are_trained_on_with_mined_negatives(
    encoder_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train = tmp_path / "train.tsv"
    train.write_text("query\tpositive\n" + "".join(f"a cat {i}\tthe cat sees {i}\n" for i in range(20)))
    with caplog.at_level("INFO", logger="bertsmith"):
        trained(encoder_dir, tmp_path / "run", train=train, mine=2, mine_with=str(encoder_dir), mine_margin=0.0)
    assert "negatives for 20 rows" in caplog.text


def test_predict_needs_the_pair(encoder_dir: Path, tmp_path: Path, capsys: Any) -> None:
    given, _ = trained(encoder_dir, tmp_path)
    outcome = bertsmith(capsys, "predict", given.out, "--text", "a cat", "--pair", "the cat sees")
    assert 0 < json.loads(outcome.out)["score"] < 1
    assert_refused(bertsmith(capsys, "predict", given.out, "--text", "a"), r'field "--pair": a model for rerank needs')


@pytest.mark.parametrize(
    ("text", "more", "message"),
    [
        ("query\tpositive\na\tb\n", [], r"all 1 rows have the label 1; give texts that are not relevant too"),
        ("text_a\ttext_b\tlabel\na\tb\t2\n", [], r'a.tsv:2: field "label": is 2, outside of 0 to 1'),
        ("text_a\ttext_b\tlabel\na\tb\tyes\n", [], r'a.tsv:2: field "label": .yes. is not a finite number'),
        ("text_a\ttext_b\tlabel\na\tb\t1\nc\td\t0\n", ["--mine", "2"], r"--mine N and --mine-with DIR go together"),
    ],
)
def test_bad_rows_get_one_line_and_leave_nothing(
    text: str, more: list[str], message: str, encoder_dir: Path, tmp_path: Path, capsys: Any
) -> None:
    path, out = tmp_path / "a.tsv", tmp_path / "out"
    path.write_text(text)
    words = ("finetune", "rerank", "--model", encoder_dir, "--train", path, "--out", out, "--steps", 1, "--threads", 1)
    assert_refused(bertsmith(capsys, *words, *more), message, out)
