"""Multiple choice: which of several texts goes with the first (Devlin et al. 2018, section 4.4).

Each choice is an input of its own, `[CLS] text [SEP] choice [SEP]`; a softmax runs over the choices of a row.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bertsmith.batch import Batch
from bertsmith.config.finetune import ChoiceOptions, LongDocs
from bertsmith.data.choices import ChoiceExample, read_choices
from bertsmith.errors import ErrorCollector, InputError
from bertsmith.metrics.classification import calibration_error
from bertsmith.metrics.judgement import Judgement, Mistake, surest
from bertsmith.models.bert import Bert
from bertsmith.models.flops import pooled_encoder_flops, pooled_flops
from bertsmith.models.losses import choice_loss, widened
from bertsmith.tasks.base import Encoded, LossTerm, packed, softmax
from bertsmith.tasks.long_texts import shorten
from bertsmith.tokenizer.text_tokenizer import TextTokenizer

log = logging.getLogger("bertsmith")


@dataclass(frozen=True)
class ChoiceTask:
    """`Task` for multiple choice; rows may have different numbers of choices."""

    max_length: int
    long_docs: LongDocs = "error"
    name = "choice"
    primary_metric = "accuracy"
    heads = ("pooler", "multiple_choice")
    num_labels = 2

    @classmethod
    def from_rows(cls, options: ChoiceOptions, rows: Sequence[ChoiceExample], *, max_length: int) -> ChoiceTask:  # noqa: ARG003
        """The task that the training rows define."""
        return cls(max_length, options.long_docs)

    def manifest(self) -> dict[str, Any]:
        """See `Task`."""
        return {"name": self.name, **asdict(self)}

    def read(self, path: Path, *, columns: str | None = None, labelled: bool = True) -> list[ChoiceExample]:
        """See `Task`."""
        return read_choices(path, columns=columns, labelled=labelled)

    def prepare(
        self, rows: Sequence[ChoiceExample], tokenizer: TextTokenizer, *, labelled: bool = True
    ) -> list[Encoded]:
        """One input a row, with a sequence for each choice."""
        texts = [row.text for row in rows for _ in row.choices]
        encodings = iter(tokenizer.encode_batch(texts, [choice for row in rows for choice in row.choices]))
        errors, cut, encoded = ErrorCollector(), 0, []
        for number, row in enumerate(rows):
            sequences: list[np.ndarray] = []
            types: list[np.ndarray] = []
            is_reported = False
            for i, _ in enumerate(row.choices):
                encoding = next(encodings)
                size = len(encoding.ids)
                if size > self.max_length:
                    cut += 1
                    if self.long_docs == "error" and not is_reported:
                        is_reported = True
                        message = f"with choice {i} it has {size} tokens, the limit is {self.max_length}; shorten it"
                        fix = f"{message}, or train with --long-docs truncate"
                        errors.add(InputError(fix, file=row.file, line=row.line, field="text"))
                ids, kinds = shorten(encoding, self.max_length)
                sequences.append(ids)
                types.append(kinds)
            encoded.append(Encoded(tuple(sequences), tuple(types), number, row.label if labelled else None))
        errors.raise_if_any()
        if cut:
            log.warning("%d of %d choices were cut to %d tokens", cut, len(texts), self.max_length)
        return encoded

    def collate(self, inputs: Sequence[Encoded]) -> Batch:
        """See `Task`. Labels `choices` `[rows]`, how many each has, and `label` `[rows]`, which is right."""
        labels = {"choices": torch.tensor([len(encoded.sequences) for encoded in inputs])}
        if all(encoded.label is not None for encoded in inputs):
            labels["label"] = torch.tensor([encoded.label for encoded in inputs])
        return packed(inputs, labels)

    def counts(self, batch: Batch) -> dict[str, int]:
        """See `Trainable`."""
        return {"choice": len(batch.labels["choices"])}

    def loss(self, model: Bert, batch: Batch) -> dict[str, LossTerm]:
        """See `Trainable`."""
        return self.terms(self.logits(model, batch), batch)

    def logits(self, model: Bert, batch: Batch) -> Tensor:
        """See `Scored`: `[sequences]`."""
        return widened(model.choice_logits(model.pooled(batch)))

    def terms(self, logits: Tensor, batch: Batch) -> dict[str, LossTerm]:
        """See `Scored`."""
        labels = batch.labels["label"]
        sizes = tuple(batch.labels["choices"].tolist())
        best = torch.stack([part.argmax() for part in torch.split(logits.detach(), list(sizes))])
        return {"choice": LossTerm(choice_loss(logits, sizes, labels), best == labels)}

    def flops(self, model: Bert, batch: Batch) -> int:
        """See `Trainable`."""
        pooled = pooled_flops(model.config, len(batch.lengths), classes=1)
        return pooled_encoder_flops(model.config, batch.lengths) + pooled

    def outputs(self, model: Bert, batch: Batch) -> list[np.ndarray]:
        """Logits, `[choices]` per row."""
        logits = self.logits(model, batch).float().cpu()
        return [part.numpy() for part in torch.split(logits, batch.labels["choices"].tolist())]

    def join(
        self,
        row: ChoiceExample,  # noqa: ARG002
        inputs: Sequence[Encoded],  # noqa: ARG002
        outputs: Sequence[np.ndarray],
    ) -> np.ndarray:
        """Logits of the row, `[choices]`."""
        return outputs[0]

    def fitted(self, options: object, rows: object, results: object) -> ChoiceTask:  # noqa: ARG002 - nothing is fitted
        """See `Task`."""
        return self

    def decode(self, row: ChoiceExample, result: np.ndarray) -> dict[str, Any]:
        """`{"choice": 2, "text": "the third", "score": 0.7, "scores": [0.1, 0.2, 0.7]}`."""
        scores, best = softmax(result), int(result.argmax())
        return {"choice": best, "text": row.choices[best], "score": float(scores[best]), "scores": scores.tolist()}

    def judge(self, rows: Sequence[ChoiceExample], results: Sequence[np.ndarray]) -> Judgement:
        """See `Task`. `chance_accuracy` is what guessing gives."""
        truth = np.array([row.label for row in rows])
        answers = np.array([int(result.argmax()) for result in results])
        sure = np.array([float(softmax(result).max()) for result in results])
        chance = np.array([1 / len(result) for result in results])
        is_right = truth == answers

        def score(chosen: np.ndarray) -> dict[str, float]:
            return {
                "accuracy": float(is_right[chosen].mean()),
                "calibration_error": calibration_error(sure[chosen], is_right[chosen]),
                "chance_accuracy": float(chance[chosen].mean()),
            }

        wrong = [
            Mistake(i, rows[i].choices[truth[i]], rows[i].choices[answers[i]], float(sure[i]))
            for i in np.flatnonzero(~is_right).tolist()
        ]
        return Judgement(len(rows), score, mistakes=surest(wrong), confidences=sure, is_right=is_right)
