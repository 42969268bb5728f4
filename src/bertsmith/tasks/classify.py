"""Classification: one label for a text or a pair of texts (Devlin et al. 2018, section 4.1), several, or a number."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bertsmith.batch import Batch
from bertsmith.config.finetune import ClassifyOptions, LongTexts
from bertsmith.data.examples import Example, LabelFormat, read_examples
from bertsmith.errors import ErrorCollector, InputError, listing, nearest
from bertsmith.metrics.classification import judge_classes, judge_label_sets, judge_numbers
from bertsmith.metrics.judgement import Judgement
from bertsmith.models.bert import Bert
from bertsmith.models.flops import pooled_encoder_flops, pooled_flops
from bertsmith.models.losses import widened
from bertsmith.tasks.base import Encoded, LossTerm, packed, softmax
from bertsmith.tasks.calibration import best_temperature, best_threshold
from bertsmith.tasks.label_numbers import label_numbers
from bertsmith.tasks.long_texts import inputs_of, joined_windows
from bertsmith.tokenizer.text_tokenizer import TextTokenizer

log = logging.getLogger("bertsmith")

PRIMARY = {"single": "accuracy", "multi": "micro_f1", "regression": "pearson"}

NUMBER = "score"
"""What the one output of a regression is called."""


@dataclass(frozen=True)
class ClassifyTask:
    """`Task` for texts. `labels` are in the order of their first row in training, or in that of the start model that
    had the same ones; of a regression `("score",)`.

    `class_weights` and `label_smoothing` concern training only and are not stored. A weight multiplies the loss of a
    label's rows (problem multi: of the rows that have it).
    """

    labels: tuple[str, ...]
    max_length: int
    long_docs: LongTexts = "error"
    problem: Literal["single", "multi", "regression"] = "single"
    stride: int = 64
    separator: str | None = None
    """What parts the labels of a cell in a file."""
    temperature: float = 1.0
    """Logits are divided by it before they become probabilities."""
    thresholds: tuple[float, ...] = ()
    """Of problem multi: the probability of each label from which on it is answered; empty: 0.5."""
    class_weights: tuple[float, ...] = ()
    label_smoothing: float = 0.0
    pairs: bool | None = None
    """Whether the rows of training were pairs of texts, which all others must be like then; None: not known."""
    sigmoid: bool = False
    """Of one output: whether its sigmoid is the answer, as of others' directories without `problem_type`."""
    name = "classify"
    heads = ("pooler", "classifier")

    @classmethod
    def from_rows(cls, options: ClassifyOptions, rows: Sequence[Example], *, max_length: int) -> ClassifyTask:
        """The task that the training rows define."""
        first = rows[0].label
        problem: Literal["single", "multi", "regression"] = (
            "multi" if isinstance(first, tuple) else "regression" if isinstance(first, float) else "single"
        )
        names = [label for row in rows for label in _names(row.label)]
        labels = tuple(dict.fromkeys(names)) if problem != "regression" else (NUMBER,)
        if problem == "single" and len(labels) < 2:
            raise InputError(
                f"all {len(rows)} rows have the label {labels[0]!r}; a classifier needs at least two labels",
                file=options.train,
                field="label",
            )
        if problem == "regression" and len({row.label for row in rows}) < 2:
            raise InputError(f"all {len(rows)} rows have the score {first}", file=options.train, field="score")
        if not labels:
            raise InputError("no row has a label", file=options.train, field="label")
        if problem != "multi" and options.thresholds is not None:
            raise InputError(
                f"the problem is {problem}; thresholds are for several labels a text", field="--thresholds"
            )
        if problem == "regression":
            for flag in ("class_weights", "label_smoothing", "calibrate"):
                if getattr(options, flag):
                    raise InputError("the problem is a regression; leave it out", field="--" + flag.replace("_", "-"))
        if problem == "multi" and options.label_smoothing:
            raise InputError("is for one label a text; leave it out", field="--label-smoothing")
        if problem == "multi" and options.calibrate:
            raise InputError("is for one label a text; --thresholds auto fits several", field="--calibrate")
        task = cls(labels, max_length, options.long_docs, problem, options.stride, options.separator)
        weights = _weights(options.class_weights, task, rows)
        fixed = options.thresholds if options.thresholds != "auto" else None
        return replace(
            task,
            pairs=rows[0].pair is not None,
            class_weights=weights,
            label_smoothing=options.label_smoothing,
            thresholds=label_numbers(fixed, labels, field="--thresholds", default=0.5, most=1.0) if fixed else (),
        )

    @property
    def primary_metric(self) -> str:
        """See `Task`."""
        return PRIMARY[self.problem]

    @property
    def num_labels(self) -> int:
        """See `Task`."""
        return len(self.labels)

    def manifest(self) -> dict[str, Any]:
        """See `Task`."""
        stored = {key: value for key, value in asdict(self).items() if key not in ("class_weights", "label_smoothing")}
        return {"name": self.name, **stored}

    def read(self, path: Path, *, columns: str | None = None, labelled: bool = True) -> list[Example]:
        """See `Task`."""
        labels = LabelFormat(self.problem, self.separator if self.problem == "multi" else None)
        return read_examples(path, columns=columns, labelled=labelled, labels=labels)

    def prepare(self, rows: Sequence[Example], tokenizer: TextTokenizer, *, labelled: bool = True) -> list[Encoded]:
        """Token ids and label numbers. Raises `InputError`s for unknown labels and, with `long_docs` "error", for
        texts longer than `max_length`; the cut ones are counted in the log.
        """
        self._refuse_unlike(rows)
        pairs = [row.pair for row in rows]
        errors, long, encoded = ErrorCollector(), 0, []
        encodings = tokenizer.encode_batch(
            [row.text for row in rows], pairs if any(pair is not None for pair in pairs) else None
        )
        for number, (row, encoding) in enumerate(zip(rows, encodings, strict=True)):
            place: dict[str, Any] = {"file": row.file, "line": row.line}
            label = None
            if labelled:
                try:
                    label = self._target(row)
                except InputError as error:
                    errors.add(InputError(error.message, **place, field="label"))
            if len(encoding.ids) > self.max_length:
                long += 1
                if self.long_docs == "error":
                    errors.add(
                        InputError(
                            f"{len(encoding.ids)} tokens, the limit is {self.max_length}; "
                            "shorten it, or train with --long-docs truncate, head-tail or window",
                            **place,
                            field="text",
                        )
                    )
                    continue
            parts = inputs_of(
                encoding,
                text=row.text,
                pair=row.pair,
                tokenizer=tokenizer,
                limit=self.max_length,
                long_texts=self.long_docs,
                stride=self.stride,
            )
            encoded += [Encoded((ids,), (types,), number, label) for ids, types in parts]
        errors.raise_if_any()
        if long and self.long_docs == "window":
            log.info("%d of %d texts are read in windows of %d tokens", long, len(rows), self.max_length)
        elif long:
            log.warning("%d of %d texts were cut to %d tokens", long, len(rows), self.max_length)
        return encoded

    def _refuse_unlike(self, rows: Sequence[Example]) -> None:
        """Raise `InputError` for a single text where training had pairs, or a pair where it had single texts."""
        odd = next((row for row in rows if self.pairs not in (None, row.pair is not None)), None)
        if odd is not None:
            learnt, fix = ("pairs", "is missing; give it") if self.pairs else ("single texts", "is there; leave it out")
            message = f"{fix}, the model learns from {learnt}"
            raise InputError(message, file=odd.file, line=odd.line, field="text_b")

    def _target(self, row: Example) -> Any:
        """What the loss compares with: a number of a label, 0 and 1 for each, or the score."""
        if self.problem == "regression":
            return float(row.label)  # type: ignore[arg-type]  # `read` made sure of it
        names = _names(row.label)
        for name in names:
            if name not in self.labels:
                known = f"expected one of: {listing(self.labels)}{nearest(name, self.labels)}"
                raise InputError(f'unknown label "{name}"; {known}')
        if self.problem == "single":
            return self.labels.index(names[0])
        return np.array([label in names for label in self.labels], np.float32)

    def collate(self, inputs: Sequence[Encoded]) -> Batch:
        """See `Task`. Label `label`: `[sequences]` int64 or float32, or `[sequences, labels]` float32."""
        labels = {}
        if all(encoded.label is not None for encoded in inputs):
            values = np.stack([encoded.label for encoded in inputs])
            labels["label"] = torch.from_numpy(values if values.dtype.kind == "i" else values.astype(np.float32))
        return packed(inputs, labels)

    def counts(self, batch: Batch) -> dict[str, int]:
        """See `Trainable`."""
        return {"label": len(batch.lengths)}

    def loss(self, model: Bert, batch: Batch) -> dict[str, LossTerm]:
        """See `Trainable`."""
        return self.terms(self.logits(model, batch), batch)

    def logits(self, model: Bert, batch: Batch) -> Tensor:
        """See `Scored`: `[sequences, labels]`."""
        return widened(model.classification_logits(model.pooled(batch)))

    def terms(self, logits: Tensor, batch: Batch) -> dict[str, LossTerm]:
        """See `Scored`."""
        labels = batch.labels["label"]
        weights = logits.new_tensor(self.class_weights) if self.class_weights else None
        if self.problem == "regression":
            error = logits[:, 0] - labels
            return {"label": LossTerm(error.square().sum(), error.detach().abs() < 0.5)}
        if self.problem == "multi":
            total = F.binary_cross_entropy_with_logits(logits, labels, pos_weight=weights, reduction="sum")
            right = ((logits.detach() > 0) == (labels > 0.5)).all(1)
            return {"label": LossTerm(total / len(self.labels), right)}
        total = F.cross_entropy(logits, labels, weight=weights, label_smoothing=self.label_smoothing, reduction="sum")
        return {"label": LossTerm(total, logits.detach().argmax(-1) == labels)}

    def flops(self, model: Bert, batch: Batch) -> int:
        """See `Trainable`."""
        pooled = pooled_flops(model.config, len(batch.lengths), classes=len(self.labels))
        return pooled_encoder_flops(model.config, batch.lengths) + pooled

    def outputs(self, model: Bert, batch: Batch) -> list[np.ndarray]:
        """Logits, `[labels]` per input."""
        return list(self.logits(model, batch).float().cpu().numpy())

    def join(self, row: Example, inputs: Sequence[Encoded], outputs: Sequence[np.ndarray]) -> np.ndarray:  # noqa: ARG002
        """Logits of the row, `[labels]`: of several windows their mean."""
        return joined_windows(outputs, [encoded.sequences for encoded in inputs]) if len(outputs) > 1 else outputs[0]

    def probabilities(self, results: np.ndarray) -> np.ndarray:
        """`[…, labels]` logits -> probabilities; of a regression, without `sigmoid`, the numbers themselves."""
        scaled = results / self.temperature
        if self.problem == "multi" or self.sigmoid:
            return np.asarray(1 / (1 + np.exp(-scaled.astype(np.float64))))
        return softmax(scaled) if self.problem == "single" else results.astype(np.float64)

    def decode(self, row: Example, result: np.ndarray) -> Any:  # noqa: ARG002
        """`{"label": "positive", "score": 0.98}`: the likeliest label and its probability; of problem multi a list of
        the labels that reach their thresholds, the likeliest first; of a regression `{"label": "score", "score": 3.2}`.
        """
        scores = self.probabilities(result)
        answers = [{"label": label, "score": float(score)} for label, score in zip(self.labels, scores, strict=True)]
        if self.problem != "multi":
            return answers[int(scores.argmax())]
        reached = [answer for answer, limit in zip(answers, self.limits, strict=True) if answer["score"] >= limit]
        return sorted(reached, key=lambda answer: -answer["score"])

    @property
    def limits(self) -> np.ndarray:
        """`[labels]`: the threshold of each label."""
        return np.array(self.thresholds or (0.5,) * len(self.labels))

    def judge(self, rows: Sequence[Example], results: Sequence[np.ndarray]) -> Judgement:
        """See `Task`."""
        scores = self.probabilities(np.stack(results))
        truth = np.stack([self._target(row) for row in rows])
        if self.problem == "regression":
            return judge_numbers(truth, scores[:, 0])
        if self.problem == "multi":
            return judge_label_sets(truth, scores, self.labels, self.limits)
        return judge_classes(truth, scores, self.labels)

    @torch.no_grad()
    def start(self, model: Bert, rows: Sequence[Example], fresh: Sequence[str]) -> None:
        """A fresh head of a regression starts at the mean of the scores: it need not learn their scale first."""
        if self.problem == "regression" and model.classifier is not None and "classifier" in fresh:
            model.classifier.linear.bias.fill_(float(np.mean([row.label for row in rows if row.label is not None])))

    def fitted(self, options: ClassifyOptions, rows: Sequence[Example], results: Sequence[np.ndarray]) -> ClassifyTask:
        """The task with temperature and thresholds that suit these rows, as the options ask for."""
        logits, truth = np.stack(results), np.stack([self._target(row) for row in rows])
        if options.calibrate:
            return replace(self, temperature=best_temperature(torch.from_numpy(logits), torch.from_numpy(truth)))
        if options.thresholds == "auto":
            scores = self.probabilities(logits)
            best = tuple(best_threshold(truth[:, i] > 0.5, scores[:, i]) for i in range(len(self.labels)))
            return replace(self, thresholds=best)
        return self


def _names(label: Any) -> tuple[str, ...]:
    return label if isinstance(label, tuple) else (str(label),)


def _weights(text: str | None, task: ClassifyTask, rows: Sequence[Example]) -> tuple[float, ...]:
    """One weight for each label; of single labels they average 1 over the rows, so that the learning rate keeps its
    meaning."""
    if text is None:
        return ()
    count = dict.fromkeys(task.labels, 0)
    for row in rows:
        for name in _names(row.label):
            count[name] += 1
    if text == "auto":
        if task.problem == "multi":
            return tuple((len(rows) - n) / n if n < len(rows) else 1.0 for n in count.values())
        return tuple(len(rows) / (len(count) * n) for n in count.values())
    given = label_numbers(text, task.labels, field="--class-weights", default=1.0)
    if task.problem == "multi":
        return given
    mean = sum(weight * n for weight, n in zip(given, count.values(), strict=True)) / len(rows)
    return tuple(weight / mean for weight in given)
