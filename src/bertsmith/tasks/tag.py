"""Tagging: a label for each word (Devlin et al. 2018, section 5.3). Decisions are about words: none is ever split.

words       Mary        lives in  Wuppertal
pieces      mary        live ##s in  wu ##pper ##tal
loss on     ^           ^        ^   ^                    the first piece of each word
answer      by `aggregation`: of the first piece, the mean or the most certain piece of a word
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bertsmith.batch import Batch
from bertsmith.config.finetune import Aggregation, TagOptions
from bertsmith.data.tagged import TaggedExample, read_tagged
from bertsmith.errors import ErrorCollector, InputError, listing, nearest
from bertsmith.metrics.judgement import Judgement
from bertsmith.metrics.tagging import Scheme, entities, judge_entities, judge_tags
from bertsmith.models.bert import Bert
from bertsmith.models.flops import encoder_flops, token_flops
from bertsmith.models.losses import widened
from bertsmith.tasks.base import Encoded, LossTerm, cross_entropy_term, packed, softmax
from bertsmith.tasks.chain import best_sequence, completed, doubtful, obeys, scheme_of, transitions, violations
from bertsmith.tokenizer.splitting import split_words
from bertsmith.tokenizer.text_tokenizer import TextTokenizer

log = logging.getLogger("bertsmith")


@dataclass(frozen=True)
class TagTask:
    """`Task` for words. `labels` are the tags in the order of their first word in the training file, or in that of the
    start model that had the same ones."""

    labels: tuple[str, ...]
    max_length: int
    scheme: Scheme = "none"
    stride: int = 64
    aggregation: Aggregation = "first"
    constrained: bool = True
    name = "tag"
    heads = ("token_classifier",)

    @classmethod
    def from_rows(cls, options: TagOptions, rows: Sequence[TaggedExample], *, max_length: int) -> TagTask:
        """The task that the training rows define."""
        sentences = [row.tags for row in rows if row.tags is not None]
        labels = tuple(dict.fromkeys(tag for tags in sentences for tag in tags))
        if len(labels) < 2:
            raise InputError(f"every word has the tag {labels[0]!r}", file=options.train, field="tags")
        scheme, constrained = scheme_of(sentences), options.constrained
        if doubt := doubtful(labels):
            log.warning("%s: %s", options.train, doubt)
        if scheme != "none" and not obeys(sentences, scheme):
            log.warning(
                "%s: %d tags cannot follow the one before in %s: another scheme, so answers are not held to it",
                options.train,
                violations(sentences, scheme),
                scheme,
            )
            constrained = False
        elif scheme != "none":  # a class seen only in part must still be answered whole
            labels = completed(labels, scheme)
        return cls(labels, max_length, scheme, options.stride, options.aggregation, constrained)

    @property
    def primary_metric(self) -> str:
        """See `Task`."""
        return "accuracy" if self.scheme == "none" else "f1"

    @property
    def num_labels(self) -> int:
        """See `Task`."""
        return len(self.labels)

    def manifest(self) -> dict[str, Any]:
        """See `Task`."""
        return {"name": self.name, **asdict(self)}

    def read(self, path: Path, *, columns: str | None = None, labelled: bool = True) -> list[TaggedExample]:
        """See `Task`. Unlabelled rows may be texts (.txt, or a column `text`), which are cut into words."""
        if labelled:
            return read_tagged(path, columns=columns)
        from bertsmith.data.archives import TAGGED, format_of
        from bertsmith.data.text import read_all_rows

        if format_of(path)[0] in TAGGED:
            return read_tagged(path, columns=columns, labelled=False)
        rows = read_all_rows(
            path, required=(), optional=("text|sentence", "tokens|words"), columns=columns, text_columns=("text",)
        )
        if any("tokens" in row.values for row in rows):
            return read_tagged(path, columns=columns, labelled=False)
        if rows and "text" not in rows[0].values:
            raise InputError("needed is a column `text` or `tokens`; name it with --columns", file=path, line=1)
        return [self.row_of(row.values["text"], file=row.file, line=row.line) for row in rows]

    def row_of(self, text: str, *, file: Path, line: int) -> TaggedExample:
        """A text as words."""
        words = split_words(text)
        return TaggedExample(
            file, line, tuple(word for word, _, _ in words), None, None, text, tuple((a, b) for _, a, b in words)
        )

    def prepare(
        self, rows: Sequence[TaggedExample], tokenizer: TextTokenizer, *, labelled: bool = True
    ) -> list[Encoded]:
        """Pieces of the words, in windows where a sentence is too long. A word that the tokenizer makes nothing of is
        `[UNK]`; of a word with more pieces than half a window, the first ones are read, and counted in the log.

        `Encoded.origin`: `[pieces]`, the word of each piece, -1 of special tokens.
        """
        if labelled:
            self._check(rows)
        pieces = tokenizer.encode_ids([tokenizer.before_word + word for row in rows for word in row.words])
        room, most = self.max_length - 2, max(1, (self.max_length - 2) // 2)
        numbers = {label: i for i, label in enumerate(self.labels)}
        encoded, at, cut = [], 0, 0
        for number, row in enumerate(rows):
            ids: list[int] = []
            origin: list[int] = []
            for word in range(len(row.words)):
                found = pieces[at] or [tokenizer.unk_id]
                at += 1
                cut += len(found) > most
                ids += found[:most]
                origin += [word] * len(found[:most])
            tags = None if row.tags is None or not labelled else np.array([numbers[tag] for tag in row.tags])
            for start, end in windows(origin, room=room, stride=min(self.stride, room // 2)):
                part = np.array([-1, *origin[start:end], -1])
                sequence = np.array([tokenizer.cls_id, *ids[start:end], tokenizer.sep_id])
                label = None if tags is None else _first_piece_labels(part, tags)
                encoded.append(Encoded((sequence,), (np.zeros(len(sequence), np.int64),), number, label, part))
        if cut:
            log.warning("%d words have more than %d pieces; only these are read", cut, most)
        return encoded

    def _check(self, rows: Sequence[TaggedExample]) -> None:
        errors = ErrorCollector()
        for row in rows:
            for place, tag in enumerate(row.tags or ()):
                if tag not in self.labels:
                    known = f"expected one of: {listing(self.labels)}{nearest(tag, self.labels)}"
                    line = row.line if row.lines is None else row.lines[place]
                    errors.add(InputError(f'unknown tag "{tag}"; {known}', file=row.file, line=line, field="tags"))
        errors.raise_if_any()

    def collate(self, inputs: Sequence[Encoded]) -> Batch:
        """See `Task`. Labels `tag_positions` `[words]`, places in the batch, and `tags` `[words]`."""
        labels: dict[str, torch.Tensor] = {}
        if all(encoded.label is not None for encoded in inputs):
            flat = np.concatenate([encoded.label for encoded in inputs])
            places = np.flatnonzero(flat >= 0)
            labels = {"tag_positions": torch.from_numpy(places), "tags": torch.from_numpy(flat[places])}
        return packed(inputs, labels)

    def counts(self, batch: Batch) -> dict[str, int]:
        """See `Trainable`."""
        return {"tag": len(batch.labels["tags"])}

    def loss(self, model: Bert, batch: Batch) -> dict[str, LossTerm]:
        """See `Trainable`."""
        return self.terms(self.logits(model, batch), batch)

    def logits(self, model: Bert, batch: Batch) -> torch.Tensor:
        """See `Scored`: `[words, labels]`. The head runs on the first pieces only."""
        return widened(model.token_logits(model.encoder(batch)[batch.labels["tag_positions"]]))

    def terms(self, logits: torch.Tensor, batch: Batch) -> dict[str, LossTerm]:
        """See `Scored`."""
        return {"tag": cross_entropy_term(logits, batch.labels["tags"])}

    def flops(self, model: Bert, batch: Batch) -> int:
        """See `Trainable`."""
        words = len(batch.labels["tags"]) if "tags" in batch.labels else batch.total
        return encoder_flops(model.config, batch.lengths) + token_flops(model.config, words, classes=len(self.labels))

    def outputs(self, model: Bert, batch: Batch) -> list[np.ndarray]:
        """Logits of every piece, `[pieces, labels]` per input."""
        logits = model.token_logits(model.encoder(batch)).float().cpu()
        return [part.numpy() for part in batch.split(logits)]

    def join(self, row: TaggedExample, inputs: Sequence[Encoded], outputs: Sequence[np.ndarray]) -> Pieces:
        """The logits of the row's pieces, each from the window in which it has most text around it."""
        if not row.words:
            return Pieces(np.zeros((0, len(self.labels)), np.float32), np.zeros(0, np.int64))
        found: dict[tuple[int, int], tuple[int, np.ndarray]] = {}
        for encoded, logits in zip(inputs, outputs, strict=True):
            origin = encoded.origin
            for place in range(1, len(origin) - 1):
                word = int(origin[place])
                piece = place - int(np.searchsorted(origin[1:-1], word)) - 1
                around = min(place, len(origin) - 1 - place)
                if found.get((word, piece), (-1,))[0] < around:
                    found[word, piece] = (around, logits[place])
        keys = sorted(found)
        return Pieces(np.stack([found[key][1] for key in keys]), np.array([word for word, _ in keys]))

    def word_scores(self, result: Pieces) -> np.ndarray:
        """`[words, labels]`: log-probabilities of each word's tag, from its pieces as `aggregation` says."""
        probabilities = softmax(result.logits)
        starts = result.starts
        if self.aggregation == "average":
            counts = np.diff([*starts, len(result.words)])[:, None]
            chosen = np.add.reduceat(probabilities, starts) / counts
        elif self.aggregation == "max":
            groups = np.split(np.arange(len(result.words)), starts[1:])
            chosen = np.stack([probabilities[group[probabilities[group].max(1).argmax()]] for group in groups])
        else:
            chosen = probabilities[starts]
        return np.asarray(np.log(np.maximum(chosen, 1e-30)))

    def tags(self, result: Pieces) -> tuple[list[str], np.ndarray]:
        """The tag of each word, and the probability of each."""
        if not len(result.words):
            return [], np.zeros(0)
        scores = self.word_scores(result)
        numbers = best_sequence(scores, self._chain) if self._is_constrained else scores.argmax(1)
        return [self.labels[i] for i in numbers], np.exp(scores[np.arange(len(scores)), numbers])

    @property
    def _is_constrained(self) -> bool:
        return self.constrained and self.scheme != "none"

    @cached_property
    def _chain(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return transitions(self.labels, self.scheme)

    def fitted(self, options: object, rows: object, results: object) -> TagTask:  # noqa: ARG002 - nothing is fitted
        """See `Task`."""
        return self

    def decode(self, row: TaggedExample, result: Pieces) -> list[dict[str, Any]]:
        """Entities as transformers' pipeline has them: `[{"entity_group", "score", "word", "start", "end"}]`, where
        `start` and `end` are characters of the text (words given apart are joined by spaces). Of tags without spans,
        and with aggregation none, one entry for each word: `[{"entity", "score", "index", "word", "start", "end"}]`.
        """
        tags, scores = self.tags(result)
        text, spans = row.text, row.spans
        if text is None or spans is None:
            text = " ".join(row.words)
            ends = np.cumsum([len(word) + 1 for word in row.words]).tolist() if row.words else []
            spans = tuple((end - 1 - len(word), end - 1) for word, end in zip(row.words, ends, strict=True))
        if self.scheme == "none" or self.aggregation == "none":
            return [
                {"entity": tag, "score": float(score), "index": i, "word": text[a:b], "start": a, "end": b}
                for i, (tag, score, (a, b)) in enumerate(zip(tags, scores, spans, strict=True), 1)
                if self.scheme == "none" or tag != "O"
            ]
        answers = []
        for kind, first, after in entities(tags):
            start, end = spans[first][0], spans[after - 1][1]
            score = float(scores[first:after].mean())
            answers.append({"entity_group": kind, "score": score, "word": text[start:end], "start": start, "end": end})
        return answers

    def judge(self, rows: Sequence[TaggedExample], results: Sequence[Pieces]) -> Judgement:
        """See `Task`."""
        truth = [list(row.tags or ()) for row in rows]
        answers, scores = zip(*map(self.tags, results), strict=True)
        if self.scheme == "none":
            return judge_tags(truth, answers, scores, self.labels)
        return judge_entities(truth, answers, scores)


@dataclass(frozen=True, eq=False)
class Pieces:
    """The result of a row."""

    logits: np.ndarray
    """`[pieces, labels]`."""
    words: np.ndarray
    """`[pieces]`: the word of each piece."""

    @property
    def starts(self) -> np.ndarray:
        """`[words]`: where the first piece of each word stands."""
        return np.flatnonzero(np.diff(self.words, prepend=-1))


def windows(origin: Sequence[int], *, room: int, stride: int) -> list[tuple[int, int]]:
    """Cut pieces into runs of at most `room` that begin and end between words and share about `stride` pieces.

    `origin` is the word of each piece, and no word has more than half of `room`. `[0, 0, 1, 2, 2], room=3, stride=1` ->
    `[(0, 3), (2, 5)]`
    """
    if len(origin) <= room:
        return [(0, len(origin))]
    begins = [i for i, word in enumerate(origin) if not i or origin[i - 1] != word]
    found: list[tuple[int, int]] = []
    start = 0
    while True:
        end = start + room
        if end >= len(origin):
            return [*found, (start, len(origin))]
        end = max(place for place in begins if place <= end)
        found.append((start, end))
        back = [place for place in begins if start < place <= end and place >= end - stride]
        start = back[0] if back else end


def first_pieces(origin: np.ndarray) -> np.ndarray:
    """`[pieces]`: whether it is the first of a word: `[-1 0 0 1 -1]` -> `[no yes no yes no]`."""
    return np.asarray((origin >= 0) & (np.diff(origin, prepend=-1) != 0))


def _first_piece_labels(origin: np.ndarray, tags: np.ndarray) -> np.ndarray:
    """`[pieces]`: the tag at a word's first piece, -1 elsewhere: `[-1 0 0 1 -1]`, `[5 6]` -> `[-1 5 -1 6 -1]`."""
    return np.where(first_pieces(origin), tags[np.maximum(origin, 0)], -1)
