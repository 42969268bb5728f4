"""What next sentence and sentence order learn, and what needs no network on the same pairs.

`bertsmith pretrain --recipe fast --objective nsp` (then `sop`) on the novels of $BERTSMITH_DATA, 4 layers of width 256,
sequences of 256. The accuracy is that on held-out documents, whose pairs are drawn several times anew. Beside it, both
trained on the pairs of the training documents: a logistic regression on lengths and cuts alone, which must stay at
chance; and one on the TF-IDF cosine of A and B, which says what counting common words is worth. What is done stands in
DIR and is not done again.

    python benchmarks/objectives.py [--quick] [--minutes 30] [--objectives nsp sop] [--threads 2] [--work DIR]
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler, normalize

from bertsmith.bundle import load_bundle
from bertsmith.data.pretraining import PretrainingData, make_dataset
from bertsmith.data.shards import open_shards
from bertsmith.models.bert import Bert
from bertsmith.tasks.pretrain import PretrainTask
from bertsmith.tokenizer.directory import load_tokenizer
from bertsmith.train.pretrain import pretrain
from novels import begin, done, our_options
from report import finish, row

PAIR_LENGTH, PAIR_BATCH = 256, 16
RATES: dict[str, dict[str, float]] = {"nsp": {}, "sop": {"learning_rate": 5e-4}}
"""Next sentence is learnt at the recipe's rate; sentence order, at that rate, in the last quarter of the run only."""
DRAWS = 8
"""How many times the held-out documents are cut into pairs anew."""
CURVE = 8
"""Points of the learning curve that are printed."""


def main() -> None:
    """Run what is not done yet, print a table and one JSON line."""
    chosen = begin("objectives", minutes=30.0, objectives=("nsp", "sop"))
    rows = []
    for objective in chosen.objectives:
        out = chosen.work / objective
        options = our_options(
            chosen.text,
            out,
            minutes=chosen.minutes,
            threads=chosen.threads,
            objective=objective,
            positions=PAIR_LENGTH,
            max_length=PAIR_LENGTH,
            batch_size=PAIR_BATCH,
            eval_every=10 if chosen.quick else 250,
            **RATES[objective],
        )
        report = done(chosen.work / f"{objective}.json", partial(pretrain, options))
        for step, accuracy in curve(out, objective):
            rows.append(row(f"{objective}, step {step:,} (at most 512 pairs)", "chance", accuracy, 0.5, "accuracy"))
        figures = done(chosen.work / f"{objective}-pairs.json", partial(measure, out, chosen.text, objective))
        case = f"{objective}, {report['training_seconds'] / 60:.1f} minutes, {report['steps']:,} steps"
        case += f" ({figures['pairs']:,} pairs; standard error {figures['error']:.3f})"
        for name in ("logistic regression on lengths and cuts", "logistic regression on TF-IDF cosine"):
            rows.append(row(case, name, figures["accuracy"], figures[name], "accuracy"))
    finish("objectives", rows)


def curve(out: Path, objective: str) -> list[tuple[int, float]]:
    """(step, held-out accuracy) of some evaluations on the way, evenly chosen."""
    lines = [json.loads(line) for line in (out / "train" / "metrics.jsonl").read_text().splitlines()]
    points = [(line["step"], line["eval"][f"{objective}_accuracy"]) for line in lines if "eval" in line]
    return [points[i] for i in np.unique(np.linspace(0, len(points) - 1, CURVE).astype(int))]


def measure(directory: Path, text: dict[str, Path], objective: str) -> dict[str, float]:
    """Accuracy of the model, and of what needs no network, on pairs of held-out documents.

    `error` is its standard error, by bootstrap over documents: the pairs of one, of all draws, are not independent.
    """
    model = load_bundle(directory).model
    drawn = {part: [pairs_of(text, objective, part, seed) for seed in range(DRAWS)] for part in ("train", "heldout")}
    right = np.concatenate([answered(model, data, objective) for data in drawn["heldout"]])
    store = drawn["heldout"][0].store
    starts = np.concatenate([data.plan(0)[:, 0] for data in drawn["heldout"]])
    documents = np.searchsorted(store.document_bounds, starts, side="right") - 1
    train, heldout = (np.concatenate([data.plan(0) for data in drawn[part]]) for part in ("train", "heldout"))
    bounds = drawn["train"][0].store.sentence_bounds, drawn["heldout"][0].store.sentence_bounds
    by_length = probe(lengths(train, bounds[0]), train[:, 4], lengths(heldout, bounds[1]), heldout[:, 4])
    words = TfidfTransformer(sublinear_tf=True)
    counts = [counts_of(data, model.config.vocab_size) for data in (drawn["train"][0], *drawn["heldout"])]
    words.fit(counts[0][0] + counts[0][1])
    cosines = [
        np.asarray(normalize(words.transform(a)).multiply(normalize(words.transform(b))).sum(1)) for a, b in counts
    ]
    by_words = probe(cosines[0], drawn["train"][0].plan(0)[:, 4], np.concatenate(cosines[1:]), heldout[:, 4])
    return {
        "accuracy": float(right.mean()),
        "pairs": len(heldout),
        "error": clustered_error(right, documents),
        "logistic regression on lengths and cuts": by_length,
        "logistic regression on TF-IDF cosine": by_words,
    }


@torch.inference_mode()
def answered(model: Bert, data: PretrainingData, objective: str) -> np.ndarray:
    """Whether each pair is answered rightly: `[pairs]`."""
    task, right = PretrainTask(objective), []
    for index in range(data.size(0)):
        batch = data.batch(0, np.array([index]))
        right.append(task.loss(model, batch)[objective].correct.item())
    return np.array(right)


def clustered_error(values: np.ndarray, clusters: np.ndarray, *, resamples: int = 1000) -> float:
    """Standard error of the mean: its deviation when whole clusters are drawn with replacement."""
    _, numbers = np.unique(clusters, return_inverse=True)
    sums, sizes = np.bincount(numbers, values), np.bincount(numbers)
    drawn = np.random.default_rng(0).integers(0, len(sums), (resamples, len(sums)))
    return float((sums[drawn].sum(1) / sizes[drawn].sum(1)).std(ddof=1))


def pairs_of(text: dict[str, Path], objective: str, part: str, seed: int) -> PretrainingData:
    """The pairs of one draw, unmasked but for the share that evaluation masks."""
    store, _ = open_shards(text["shards"], part)
    tokenizer = load_tokenizer(text["tokenizer"])
    return make_dataset(store, tokenizer, objective=objective, max_length=PAIR_LENGTH, seed=seed)


def lengths(pairs: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """What can be seen of `pairs` without reading them: lengths, their squares, and which ends were cut."""
    sizes = np.stack([pairs[:, 1] - pairs[:, 0], pairs[:, 3] - pairs[:, 2]], 1)
    return np.concatenate([sizes, sizes.sum(1, keepdims=True), sizes**2, np.isin(pairs[:, :4], bounds)], axis=1)


def counts_of(data: PretrainingData, vocab_size: int) -> tuple[Any, Any]:
    """Token counts of A and of B: two sparse matrices `[pairs, vocab_size]`."""
    vectorizer = CountVectorizer(analyzer=lambda ids: ids.tolist(), vocabulary={i: i for i in range(vocab_size)})
    rows = data.plan(0)
    first, second = ([data.store.slice(row[at], row[at + 1]) for row in rows] for at in (0, 2))
    return vectorizer.transform(first), vectorizer.transform(second)


def probe(train: np.ndarray, labels: np.ndarray, test: np.ndarray, truth: np.ndarray) -> float:
    """Test accuracy of a logistic regression."""
    scale = StandardScaler().fit(train)
    found = LogisticRegression(max_iter=2000).fit(scale.transform(train), labels)
    return float(found.score(scale.transform(test), truth))


if __name__ == "__main__":
    main()
