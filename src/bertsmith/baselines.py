"""What needs no network, on the same rows and by the same metrics: the floor that a fine-tuned model must leave.

classify   the commonest label; TF-IDF with a logistic regression (of numbers: the mean; TF-IDF with a ridge regression)
tag        each word's commonest tag in training, of a new word the commonest of all
choice     the choice that shares the most TF-IDF weight with the text
embed      cosines of TF-IDF
rerank     the commonest label; a logistic regression on the cosine of TF-IDF
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

from bertsmith.data.choices import ChoiceExample
from bertsmith.data.examples import Example
from bertsmith.data.tagged import TaggedExample
from bertsmith.errors import InputError, listing
from bertsmith.metrics.classification import judge_classes, judge_label_sets, judge_numbers
from bertsmith.metrics.judgement import Judgement
from bertsmith.metrics.tagging import judge_entities, judge_tags
from bertsmith.tasks.base import Task
from bertsmith.tasks.choice import ChoiceTask
from bertsmith.tasks.classify import ClassifyTask
from bertsmith.tasks.embed import EmbedTask
from bertsmith.tasks.relevance import RELEVANT, is_listwise, judge_lists, judge_relevance
from bertsmith.tasks.rerank import RerankTask
from bertsmith.tasks.similarity import cosine_of, judge_vectors
from bertsmith.tasks.tag import TagTask


def baseline_metrics(task: Task, train: Sequence[Any], test: Sequence[Any]) -> dict[str, float]:
    """Metrics as `majority_accuracy`, `tfidf_accuracy` …; there are none for questions about texts."""
    if isinstance(task, ClassifyTask):
        found = _classify(task, train, test)
    elif isinstance(task, TagTask):
        found = {"word_majority": _tag(task, train, test)}
    elif isinstance(task, ChoiceTask):
        found = {"tfidf": _choice(train, test)}
    elif isinstance(task, EmbedTask):
        words = _words([text for row in train for text in row.texts])
        vectors = words.transform([text for row in test for text in row.texts])
        found = {"tfidf": judge_vectors(test, {"": vectors})}
    elif isinstance(task, RerankTask):
        found = _rerank(train, test)
    else:
        raise TypeError(f"no baseline is for {task.name}")
    return {
        f"{name}_{metric}": value
        for name, judgement in found.items()
        for metric, value in judgement.metrics.items()
        if metric not in ("calibration_error", "chance_accuracy")
    }


def _classify(task: ClassifyTask, train: Sequence[Example], test: Sequence[Example]) -> dict[str, Judgement]:
    texts, heldout = ([" ".join(row.content) for row in rows] for rows in (train, test))
    numbers = {label: i for i, label in enumerate(task.labels)}
    _refuse_unknown(task, train)
    words = _words(texts)
    features, seen = words.transform(texts), words.transform(heldout)
    if task.problem == "regression":
        scores, truth = (np.array([float(row.label) for row in rows]) for rows in (train, test))  # type: ignore[arg-type]
        ridge = Ridge(alpha=1.0).fit(features, scores).predict(seen)
        mean = np.full(len(test), scores.mean())
        return {"majority": judge_numbers(truth, mean), "tfidf": judge_numbers(truth, ridge)}
    if task.problem == "multi":
        targets, truths = (_sets(rows, numbers) for rows in (train, test))
        likely = np.stack([_likelihoods(features, target, seen) for target in targets.T], 1)
        common = np.tile((targets.mean(0) >= 0.5).astype(float), (len(test), 1))
        return {
            "majority": judge_label_sets(truths, common, task.labels, np.full(len(numbers), 0.5)),
            "tfidf": judge_label_sets(truths, likely, task.labels, np.full(len(numbers), 0.5)),
        }
    labels, truth = (np.array([numbers[str(row.label)] for row in rows]) for rows in (train, test))
    every = np.eye(len(numbers))
    commonest = every[np.full(len(test), np.bincount(labels).argmax())]
    probabilities = commonest
    if len(np.unique(labels)) > 1:
        logistic = LogisticRegression(max_iter=1000, C=10.0).fit(features, labels)
        probabilities = np.zeros((len(test), len(numbers)))
        probabilities[:, logistic.classes_] = logistic.predict_proba(seen)
    return {
        "majority": judge_classes(truth, commonest, task.labels),
        "tfidf": judge_classes(truth, probabilities, task.labels),
    }


def _likelihoods(features: Any, target: np.ndarray, seen: Any) -> np.ndarray:
    """`[rows of seen]`: the probability of a label; `target`: `[rows]`, 0 or 1, which may be all the same."""
    if np.ptp(target) == 0:
        return np.full(seen.shape[0], float(target[0]))
    model = LogisticRegression(max_iter=1000, C=10.0).fit(features, target)
    return np.asarray(model.predict_proba(seen)[:, 1])


def _words(texts: Sequence[str]) -> TfidfVectorizer:
    """TF-IDF of scikit-learn's words, and single Chinese characters."""
    words = TfidfVectorizer(sublinear_tf=True, token_pattern="[\u3400-\u9fff]|[^\\W\u3400-\u9fff]{2,}")
    try:
        return words.fit(texts)
    except ValueError:  # no word of two letters in all the texts
        return TfidfVectorizer(analyzer="char").fit([*texts, "."])


def _refuse_unknown(task: ClassifyTask, rows: Sequence[Example]) -> None:
    """Raise `InputError` for a label that the model does not have."""
    for row in rows if task.problem != "regression" else ():
        for name in row.label if isinstance(row.label, tuple) else (str(row.label),):
            if name not in task.labels:
                message = f'unknown label "{name}"; expected one of: {listing(task.labels)}'
                raise InputError(message, file=row.file, line=row.line, field="label")


def _sets(rows: Sequence[Example], numbers: dict[str, int]) -> np.ndarray:
    found = np.zeros((len(rows), len(numbers)), int)
    for i, row in enumerate(rows):
        for name in row.label if isinstance(row.label, tuple) else (str(row.label),):
            found[i, numbers[name]] = 1
    return found


def _tag(task: TagTask, train: Sequence[TaggedExample], test: Sequence[TaggedExample]) -> Judgement:
    tags: dict[str, Counter[str]] = {}
    every: Counter[str] = Counter()
    for row in train:
        for word, tag in zip(row.words, row.tags or (), strict=True):
            tags.setdefault(word, Counter())[tag] += 1
            every[tag] += 1
    common = every.most_common(1)[0][0]
    best = {word: counts.most_common(1)[0][0] for word, counts in tags.items()}
    answers = [[best.get(word, common) for word in row.words] for row in test]
    truth = [list(row.tags or ()) for row in test]
    sure = [np.ones(len(row.words)) for row in test]
    if task.scheme == "none":
        return judge_tags(truth, answers, sure, task.labels)
    return judge_entities(truth, answers, sure)


def _rerank(train: Sequence[Example], test: Sequence[Example]) -> dict[str, Judgement]:
    words = _words([text for row in train for text in row.content])

    def cosines(rows: Sequence[Example]) -> np.ndarray:
        return cosine_of(*(words.transform([row.content[i] for row in rows]) for i in (0, 1)))[:, None]

    labels = np.array([float(row.label) >= RELEVANT for row in train])  # type: ignore[arg-type]
    common = np.full(len(test), float(labels.mean() >= 0.5))
    judge = judge_lists if is_listwise(test) else judge_relevance
    found = {"majority": judge(test, common)}
    if labels.any() and not labels.all():
        logistic = LogisticRegression(max_iter=1000, C=10.0).fit(cosines(train), labels)
        found["tfidf"] = judge(test, logistic.predict_proba(cosines(test))[:, 1])
    return found


def _choice(train: Sequence[ChoiceExample], test: Sequence[ChoiceExample]) -> Judgement:
    words = _words([text for row in train for text in row.content])
    right = []
    for row in test:
        shared = words.transform(row.choices) @ words.transform([row.text]).T
        right.append(int(np.asarray(shared.todense()).ravel().argmax()) == row.label)
    found = np.array(right)
    return Judgement(len(test), lambda rows: {"accuracy": float(found[rows].mean())})
