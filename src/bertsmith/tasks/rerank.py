"""Rerankers: query and text are read together, and one number says how relevant the text is (Nogueira and Cho 2019).

`[CLS] query [SEP] text [SEP]`, one logit, its sigmoid is the answer. Inputs are those of a classifier of pairs
(`tasks.classify`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from bertsmith.batch import Batch
from bertsmith.config.finetune import LongDocs, RerankerOptions
from bertsmith.data.examples import Example
from bertsmith.data.similar import SHARES, ScoreRange, parse_score_range, read_relevance
from bertsmith.errors import InputError
from bertsmith.metrics.judgement import Judgement
from bertsmith.metrics.retrieval import CUTOFF
from bertsmith.models.bert import Bert
from bertsmith.models.losses import binary_cross_entropy
from bertsmith.tasks.base import Encoded, LossTerm
from bertsmith.tasks.classify import NUMBER, ClassifyTask
from bertsmith.tasks.relevance import is_listwise, judge_lists, judge_relevance
from bertsmith.tokenizer.text_tokenizer import TextTokenizer


@dataclass(frozen=True)
class RerankTask:
    """`Task` for rerankers."""

    max_length: int
    long_docs: LongDocs = "error"
    score_range: ScoreRange = ()
    primary_metric: str = "f1"
    """`ndcg@10` if the dev rows (or those of training) have several texts for most queries; else `f1`, or `spearman`
    where labels are shares."""
    name = "rerank"
    heads = ("pooler", "classifier")
    num_labels = 1
    labels = (NUMBER,)

    @classmethod
    def from_rows(cls, options: RerankerOptions, rows: Sequence[Example], *, max_length: int) -> RerankTask:
        """The task that the training rows define."""
        if len({row.label for row in rows}) < 2 and not options.mine:
            fix = "give texts that are not relevant too, or let --mine N --mine-with DIR find some"
            raise InputError(f"all {len(rows)} rows have the label {rows[0].label:g}; {fix}", file=options.train)
        score_range = parse_score_range(options.score_range, default=SHARES)
        return cls(max_length, options.long_docs, score_range).judged_by(rows)

    def judged_by(self, rows: Sequence[Example]) -> RerankTask:
        """The task with the primary metric of dev rows."""
        of_pairs = next(iter(judge_relevance(rows, np.zeros(len(rows))).metrics))
        return replace(self, primary_metric=f"ndcg@{CUTOFF}" if is_listwise(rows) else of_pairs)

    @property
    def pairs(self) -> ClassifyTask:
        """The task whose inputs are the same."""
        return ClassifyTask(self.labels, self.max_length, self.long_docs, "regression")

    def manifest(self) -> dict[str, Any]:
        """See `Task`."""
        return {
            "name": self.name,
            "labels": self.labels,
            "max_length": self.max_length,
            "long_docs": self.long_docs,
            "score_range": self.score_range,
            "primary_metric": self.primary_metric,
        }

    def read(self, path: Path, *, columns: str | None = None, labelled: bool = True) -> list[Example]:
        """See `Task`."""
        return read_relevance(path, columns=columns, labelled=labelled, score_range=self.score_range)

    def prepare(self, rows: Sequence[Example], tokenizer: TextTokenizer, *, labelled: bool = True) -> list[Encoded]:
        """See `Task`."""
        return self.pairs.prepare(rows, tokenizer, labelled=labelled)

    def collate(self, inputs: Sequence[Encoded]) -> Batch:
        """See `Task`. Label `label` `[sequences]`, float32."""
        return self.pairs.collate(inputs)

    def counts(self, batch: Batch) -> dict[str, int]:
        """See `Trainable`."""
        return {"pair": len(batch.lengths)}

    def loss(self, model: Bert, batch: Batch) -> dict[str, LossTerm]:
        """See `Trainable`."""
        return self.terms(self.logits(model, batch), batch)

    def logits(self, model: Bert, batch: Batch) -> Tensor:
        """See `Scored`: `[sequences, 1]`."""
        return self.pairs.logits(model, batch)

    def terms(self, logits: Tensor, batch: Batch) -> dict[str, LossTerm]:
        """See `Scored`."""
        relevance, labels = logits[:, 0], batch.labels["label"]
        right = (relevance.detach() > 0) == (labels >= 0.5)
        return {"pair": LossTerm(binary_cross_entropy(relevance, labels), right)}

    def flops(self, model: Bert, batch: Batch) -> int:
        """See `Trainable`."""
        return self.pairs.flops(model, batch)

    def outputs(self, model: Bert, batch: Batch) -> list[np.ndarray]:
        """Logits, `[1]` per input."""
        return self.pairs.outputs(model, batch)

    def join(self, row: Example, inputs: Sequence[Encoded], outputs: Sequence[np.ndarray]) -> np.ndarray:
        """Logit of the row, `[1]`."""
        return self.pairs.join(row, inputs, outputs)

    def decode(self, row: Example, result: np.ndarray) -> dict[str, Any]:  # noqa: ARG002
        """`{"score": 0.93}`: between 0 and 1."""
        return {"score": float(probability(result)[0])}

    def judge(self, rows: Sequence[Example], results: Sequence[np.ndarray]) -> Judgement:
        """See `Task`. Of lists the metrics of `metrics.retrieval` too."""
        logits = np.concatenate(results).astype(np.float64)
        return (judge_lists if is_listwise(rows) else judge_relevance)(rows, probability(logits))

    def fitted(self, options: object, rows: object, results: object) -> RerankTask:  # noqa: ARG002 - nothing is fitted
        """See `Task`."""
        return self


def probability(logits: np.ndarray) -> np.ndarray:
    """The sigmoid, in float64."""
    from scipy.special import expit

    return np.asarray(expit(logits.astype(np.float64)))
