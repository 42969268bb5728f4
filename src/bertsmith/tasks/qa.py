"""Questions whose answer stands in a text (Devlin et al. 2018, sections 4.2 and 4.3).

    [CLS] question [SEP] a window of the text [SEP]     as many windows as hold the whole text

The best span over all windows is the answer: the highest sum of its start's and its end's logit. Where training has
questions without an answer, [CLS] stands for that; its least logit over the windows decides, as google-research/bert
has it.
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Encoding

from bertsmith.batch import Batch
from bertsmith.config.finetune import QaOptions
from bertsmith.data.questions import Question, read_questions
from bertsmith.errors import ErrorCollector, InputError
from bertsmith.metrics.answers import agreement, judge_answers
from bertsmith.metrics.judgement import Judgement
from bertsmith.models.bert import Bert
from bertsmith.models.flops import encoder_flops, token_flops
from bertsmith.models.losses import answer_loss, widened
from bertsmith.tasks.base import Encoded, LossTerm, packed, softmax
from bertsmith.tokenizer.text_tokenizer import TextTokenizer

log = logging.getLogger("bertsmith")

N_BEST = 20
"""Starts and ends that are combined to spans, and spans that are kept."""


@dataclass(frozen=True)
class Span:
    """A candidate: characters `start` to `end` of the context, and the sum of its logits."""

    start: int
    end: int
    logit: float


@dataclass(frozen=True)
class Candidates:
    """The result of a row: the best spans, the best first, and the logit of no answer."""

    spans: tuple[Span, ...]
    none: float


@dataclass(frozen=True)
class QaTask:
    """`Task` for questions."""

    max_length: int
    stride: int = 128
    max_answer_length: int = 30
    may_have_none: bool = False
    """Whether training had questions without an answer."""
    null_threshold: float = 0.0
    name = "qa"
    primary_metric = "f1"
    heads = ("question_answering",)
    num_labels = 2

    @classmethod
    def from_rows(cls, options: QaOptions, rows: Sequence[Question], *, max_length: int) -> QaTask:
        """The task that the training rows define."""
        may_have_none = any(not row.answers for row in rows)
        if not any(row.answers for row in rows):
            raise InputError("no question has an answer", file=options.train, field="answers")
        if options.null_threshold is not None and not may_have_none:
            raise InputError("every question of --train has an answer; leave it out", field="--null-threshold")
        return cls(max_length, options.stride, options.max_answer_length, may_have_none, options.null_threshold or 0.0)

    def manifest(self) -> dict[str, Any]:
        """See `Task`."""
        return {"name": self.name, **asdict(self)}

    def read(self, path: Path, *, columns: str | None = None, labelled: bool = True) -> list[Question]:
        """See `Task`."""
        return read_questions(path, columns=columns, labelled=labelled)

    def prepare(self, rows: Sequence[Question], tokenizer: TextTokenizer, *, labelled: bool = True) -> list[Encoded]:
        """Windows. `Encoded.label` is (start, end) of the first right answer, places in the window, 0 where it holds
        none; `Encoded.origin` is `[tokens, 2]`, the characters of each token's word in the context, -1 elsewhere."""
        if labelled and (moved := sum(row.moved for row in rows)):
            log.warning("%d answers do not stand where answer_start says; the nearest place is taken", moved)
        errors, encoded, lost = ErrorCollector(), [], 0
        for number, row in enumerate(rows):
            try:
                found = tokenizer.windows(
                    row.question,
                    row.context,
                    max_length=self.max_length,
                    stride=min(self.stride, self.max_length // 4),
                    truncation="only_second",
                )
            except InputError as error:
                length = len(tokenizer.encode(row.question).ids)
                fix = f"the question has {length} tokens, and {error.message}" if error.field else error.message
                errors.add(InputError(fix, **row.place, field="question"))
                continue
            places = answer_places(found, row) if labelled and row.answers is not None else []
            lost += bool(places and row.answers and not any(map(any, places)))
            for window, label in zip_longest(found, places):
                words = word_spans(window, row.context)
                encoded.append(Encoded((np.array(window.ids),), (np.array(window.type_ids),), number, label, words))
        errors.raise_if_any()
        if lost:
            log.warning("%d answers are in no window: too long, or nothing that the tokenizer reads", lost)
        return encoded

    def collate(self, inputs: Sequence[Encoded]) -> Batch:
        """See `Task`. Labels `starts` and `ends`: `[sequences]`."""
        labels: dict[str, torch.Tensor] = {}
        if all(encoded.label is not None for encoded in inputs):
            places = torch.tensor([encoded.label for encoded in inputs])
            labels = {"starts": places[:, 0], "ends": places[:, 1]}
        return packed(inputs, labels)

    def counts(self, batch: Batch) -> dict[str, int]:
        """See `Trainable`."""
        return {"answer": len(batch.lengths)}

    def loss(self, model: Bert, batch: Batch) -> dict[str, LossTerm]:
        """See `Trainable`."""
        return self.terms(self.logits(model, batch), batch)

    def logits(self, model: Bert, batch: Batch) -> torch.Tensor:
        """See `Scored`: `[total, 2]`."""
        return widened(model.answer_logits(model.encoder(batch)))

    def terms(self, logits: torch.Tensor, batch: Batch) -> dict[str, LossTerm]:
        """See `Scored`. An input is right if both its start and its end are."""
        starts, ends = batch.labels["starts"], batch.labels["ends"]
        total = answer_loss(logits, batch.lengths, starts, ends)
        best = torch.stack([part.argmax(0) for part in batch.split(logits.detach())])
        return {"answer": LossTerm(total, (best == torch.stack([starts, ends], 1)).all(1))}

    def flops(self, model: Bert, batch: Batch) -> int:
        """See `Trainable`."""
        return encoder_flops(model.config, batch.lengths) + token_flops(model.config, batch.total, classes=2)

    def outputs(self, model: Bert, batch: Batch) -> list[np.ndarray]:
        """Logits of start and end, `[tokens, 2]` per input."""
        logits = model.answer_logits(model.encoder(batch)).float().cpu()
        return [part.numpy() for part in batch.split(logits)]

    def join(self, row: Question, inputs: Sequence[Encoded], outputs: Sequence[np.ndarray]) -> Candidates:  # noqa: ARG002
        """The best spans of all windows; equal spans count once, with their highest logit."""
        best: dict[tuple[int, int], float] = {}
        for encoded, logits in zip(inputs, outputs, strict=True):
            for start, end, logit in spans_of(encoded.origin, logits, longest=self.max_answer_length):
                if best.get((start, end), -np.inf) < logit:
                    best[start, end] = logit
        ordered = sorted(best.items(), key=lambda item: (-item[1], item[0]))[:N_BEST]
        none = min(float(logits[0].sum()) for logits in outputs)
        return Candidates(tuple(Span(start, end, logit) for (start, end), logit in ordered), none)

    def answer(self, result: Candidates) -> tuple[Span | None, float]:
        """The answer, None for none, and its probability among the candidates."""
        logits = [span.logit for span in result.spans]
        gives_none = not logits or (self.may_have_none and result.none - logits[0] > self.null_threshold)
        every = np.array([*logits, *([result.none] if self.may_have_none or not logits else [])])
        probabilities = softmax(every)
        if gives_none:
            return None, float(probabilities[-1])
        return result.spans[0], float(probabilities[0])

    def decode(self, row: Question, result: Candidates) -> dict[str, Any]:
        """`{"score": 0.9, "start": 12, "end": 17, "answer": "Paris"}`, as transformers' pipeline has it; of no answer
        `start` and `end` are 0 and `answer` is empty."""
        span, score = self.answer(result)
        start, end = (0, 0) if span is None else (span.start, span.end)
        return {"score": score, "start": start, "end": end, "answer": row.context[start:end]}

    def judge(self, rows: Sequence[Question], results: Sequence[Candidates]) -> Judgement:
        """See `Task`."""
        answers = [self.answer(result) for result in results]
        texts = [
            "" if span is None else row.context[span.start : span.end]
            for row, (span, _) in zip(rows, answers, strict=True)
        ]
        truth = [[answer.text for answer in row.answers or ()] for row in rows]
        return judge_answers(truth, texts, [score for _, score in answers])

    def fitted(self, options: QaOptions, rows: Sequence[Question], results: Sequence[Candidates]) -> QaTask:
        """The task with the threshold of no answer that gives the best F1 on these rows."""
        if not self.may_have_none or options.null_threshold is not None:
            return self
        gaps, gains = [], []
        for row, result in zip(rows, results, strict=True):
            if result.spans:
                best, truth = result.spans[0], [answer.text for answer in row.answers or ()]
                gaps.append(result.none - best.logit)
                gains.append(agreement(row.context[best.start : best.end], truth)[1] - agreement("", truth)[1])
        if not gaps:
            return self
        known, places = np.unique(gaps, return_inverse=True)
        sums = np.cumsum([0.0, *np.bincount(places, gains)])  # what F1 gains if the span answers up to the i-th gap
        edges = np.array([known[0] - 1.0, *((known[:-1] + known[1:]) / 2), known[-1] + 1.0])
        return replace(self, null_threshold=float(edges[sums.argmax()]))


def word_spans(window: Encoding, context: str) -> np.ndarray:
    """`[tokens, 2]`: where the word of each token of the second text starts and ends in it; -1 for other tokens.

    An answer is made of whole words: a piece stands for the word that it is part of, without the space that pieces of
    sentencepiece begin with. Marks that the tokenizer drops, as accents, stay with the character before them.
    """
    spans = np.array(window.offsets)
    inside = np.array([number == 1 for number in window.sequence_ids])
    words = np.array([-1 if word is None else word for word in window.word_ids])
    spans[~inside] = -1
    covered = set(spans[inside, 0].tolist())
    for word in np.unique(words[inside]):
        of_word = inside & (words == word)
        start, end = spans[of_word, 0].min(), spans[of_word, 1].max()
        while end < len(context) and unicodedata.category(context[end]) in ("Mn", "Me") and end not in covered:
            end += 1
        word_text = context[start:end]
        spans[of_word] = start + len(word_text) - len(word_text.lstrip()), end
    return spans


def answer_places(windows: Sequence[Encoding], row: Question) -> list[tuple[int, int]]:
    """For each window of the row first and last token of the first right answer; (0, 0) where it is not all there.

    The tokens are those that share a character with it: a tokenizer may drop some at its ends, as accents.
    """
    if not row.answers:
        return [(0, 0)] * len(windows)
    first = row.answers[0]
    text = first.text.rstrip()
    begin, end = first.start + len(text) - len(text.lstrip()), first.start + len(text)
    tokens = []
    for window in windows:
        offsets, inside = np.array(window.offsets), np.array([number == 1 for number in window.sequence_ids])
        places = np.flatnonzero(inside & (offsets[:, 0] < end) & (offsets[:, 1] > begin))
        tokens.append((places, offsets[places]))
    every = np.concatenate([offsets for _, offsets in tokens])
    if not len(every):
        return [(0, 0)] * len(windows)
    whole = every[:, 0].min(), every[:, 1].max()
    return [
        (int(places[0]), int(places[-1]))
        if len(places) and (offsets[:, 0].min(), offsets[:, 1].max()) == whole
        else (0, 0)
        for places, offsets in tokens
    ]


def spans_of(words: np.ndarray, logits: np.ndarray, *, longest: int) -> list[tuple[int, int, float]]:
    """The best spans of one window as (first character, last + 1, logit); at most `longest` tokens each."""
    places = np.flatnonzero(words[:, 0] >= 0)
    if not len(places):
        return []
    first, last = (places[np.argsort(-logits[places, side], kind="stable")[:N_BEST]] for side in (0, 1))
    sums = logits[first, 0][:, None] + logits[last, 1][None, :]
    fits = (last[None, :] >= first[:, None]) & (last[None, :] - first[:, None] < longest)
    if not fits.any():  # none of the best starts and ends go together: try all
        first = last = places
        sums = logits[first, 0][:, None] + logits[last, 1][None, :]
        fits = (last[None, :] >= first[:, None]) & (last[None, :] - first[:, None] < longest)
    rows, columns = np.nonzero(fits)
    order = np.argsort(-sums[rows, columns], kind="stable")[:N_BEST]
    return [
        (int(words[first[r], 0]), int(words[last[c], 1]), float(sums[r, c]))
        for r, c in zip(rows[order], columns[order], strict=True)
    ]
