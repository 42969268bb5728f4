"""Embedders: vectors whose cosine says how similar two texts are (Reimers and Gurevych 2019).

Each text of a row is a sequence of its own. Rows of pairs learn from in-batch negatives, scored pairs by their cosine,
texts alone as pairs with themselves (Gao et al. 2021, SimCSE, section 3). Before an anchor stands the model's prompt
for queries, before positives and negatives the one for passages, as in `search`; before all other texts the default.
Not here: the losses (`tasks.contrastive`), metrics (`tasks.similarity`), vectors of a user's texts (`tasks.embedding`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bertsmith.batch import Batch
from bertsmith.config.finetune import EmbedderOptions, LongDocs
from bertsmith.data.similar import COSINES, Kind, ScoreRange, SimilarityExample, parse_score_range, read_similar
from bertsmith.errors import InputError, RunError
from bertsmith.metrics.judgement import Judgement
from bertsmith.models.bert import Bert
from bertsmith.models.flops import encoder_flops
from bertsmith.models.losses import widened
from bertsmith.models.sentence import PASSAGE_PROMPTS, QUERY_PROMPTS, SentenceModules
from bertsmith.tasks.base import Encoded, LossTerm
from bertsmith.tasks.contrastive import added, cosine_loss, in_batch_loss, over_sizes
from bertsmith.tasks.embedding import sentence_inputs, warn_of_cuts
from bertsmith.tasks.similarity import MEASURES, cosine_of, judge_vectors
from bertsmith.tokenizer.text_tokenizer import TextTokenizer

STORED = ("max_length", "kind", "long_docs", "score_range", "matryoshka", "primary_metric")


@dataclass(frozen=True)
class EmbedTask:
    """`Task` for embedders. `modules` stand in the directory's sentence-transformers files, not in its manifest;
    `temperature` concerns training only.
    """

    max_length: int
    kind: Kind = "pairs"
    """Of the training rows; others may be evaluated."""
    long_docs: LongDocs = "error"
    score_range: ScoreRange = ()
    matryoshka: tuple[int, ...] = ()
    primary_metric: str = MEASURES["pairs"]
    modules: SentenceModules = field(default_factory=SentenceModules, compare=False)
    temperature: float = field(default=0.05, compare=False)
    name = "embed"
    heads = ()
    num_labels = 2

    @classmethod
    def from_rows(
        cls,
        options: EmbedderOptions,
        rows: Sequence[SimilarityExample],
        *,
        max_length: int,
        modules: SentenceModules,
        hidden_size: int,
    ) -> EmbedTask:
        """The task that the training rows define. `modules` are those of the start model."""
        kind = rows[0].kind
        changes: dict[str, Any] = {"max_seq_length": max_length, "similarity": "cosine"}
        changes |= {} if options.pooling is None else {"pooling": (options.pooling,)}
        changes |= {} if options.normalize is None else {"normalize": options.normalize}
        modules = replace(modules, **changes)
        size = modules.size(hidden_size)
        _check_options(options, kind)
        (_check_scores if kind == "scores" else _check_negatives)(options, rows)
        return cls(
            max_length,
            kind,
            options.long_docs,
            parse_score_range(options.score_range, default=COSINES) if kind == "scores" else (),
            parse_sizes(options.matryoshka, most=size),
            MEASURES.get(kind, MEASURES["pairs"]),
            modules,
            options.temperature,
        )

    def judged_by(self, rows: Sequence[SimilarityExample]) -> EmbedTask:
        """The task with the primary metric of dev rows, which may be of another kind than the training rows."""
        return replace(self, primary_metric=MEASURES[rows[0].kind]) if rows[0].kind in MEASURES else self

    @property
    def couples(self) -> bool:
        """See `Coupled`."""
        return self.kind != "scores"

    def manifest(self) -> dict[str, Any]:
        """See `Task`."""
        return {"name": self.name} | {name: getattr(self, name) for name in STORED}

    def read(self, path: Path, *, columns: str | None = None, labelled: bool = True) -> list[SimilarityExample]:
        """See `Task`. Labelled rows are those that can be judged."""
        rows = read_similar(path, columns=columns, labelled=labelled, score_range=self.score_range)
        if labelled and rows[0].kind == "texts":
            fix = "give pairs (`anchor`, `positive`) or scored pairs (`text_a`, `text_b`, `score`)"
            raise InputError(f"has texts alone, by which nothing can be judged; {fix}", file=path)
        return rows

    def prepare(
        self, rows: Sequence[SimilarityExample], tokenizer: TextTokenizer, *, labelled: bool = True
    ) -> list[Encoded]:
        """One input a row, with a sequence for each text; to learn from it, a text alone comes twice.

        Where prompts differ, `origin` has what tells equal texts: a number for each, the prompt left out.
        """
        places = [{"file": row.file, "line": row.line, "field": name} for row in rows for name in row.fields]
        whole = [text for row in rows for text in row.texts]
        prompts = [prompt for row in rows for prompt in self._prompts(row)]

        def encode(texts: Sequence[str]) -> tuple[list[np.ndarray], int]:
            return sentence_inputs(
                texts,
                tokenizer=tokenizer,
                modules=self.modules,
                limit=self.max_length,
                cuts=self.long_docs == "truncate",
                place=places.__getitem__,
                prompt="",
            )

        sequences, cut = encode([prompt + text for prompt, text in zip(prompts, whole, strict=True)])
        warn_of_cuts(cut, len(sequences), self.max_length)
        bare = [_digest(ids) for ids in encode(whole)[0]] if len(set(prompts)) > 1 else None
        encoded, start = [], 0
        for number, row in enumerate(rows):
            own = slice(start, start + len(row.texts))
            texts, start = tuple(sequences[own]), own.stop
            if labelled and row.kind == "texts":
                texts *= 2
            types = tuple(np.zeros_like(ids) for ids in texts)
            label, origin = row.score if labelled else None, None if bare is None else bare[own]
            encoded.append(Encoded(texts, types, number, label, origin))
        return encoded

    def _prompts(self, row: SimilarityExample) -> tuple[str, ...]:
        """What is put before each text of the row."""
        modules, others = self.modules, len(row.texts) - 1
        if row.kind != "pairs":
            return (modules.prompt(),) * (1 + others)
        query, passage = (modules.prompt(modules.prompt_named(names)) for names in (QUERY_PROMPTS, PASSAGE_PROMPTS))
        return (query, *(passage,) * others)

    def collate(self, inputs: Sequence[Encoded]) -> Batch:
        """See `Task`. The sequences stand in order of length, as attention wants them. Labels `place` `[sequences]`,
        where the texts of the rows, in order, stand among them; `texts` `[rows]`, how many each has; `identity`
        `[sequences]`, int64, equal for equal texts; `score` `[rows]`, float32, if there are scores.
        """
        identity = [d for encoded in inputs for d in encoded.origin or map(_digest, encoded.sequences)]
        sequences = [ids for encoded in inputs for ids in encoded.sequences]
        order = np.argsort([len(ids) for ids in sequences], kind="stable")
        labels = {
            "place": torch.from_numpy(np.argsort(order)),
            "texts": torch.tensor([len(encoded.sequences) for encoded in inputs]),
            "identity": torch.tensor(identity),
        }
        if all(encoded.label is not None for encoded in inputs):
            labels["score"] = torch.tensor([encoded.label for encoded in inputs], dtype=torch.float32)
        return Batch.from_sequences([sequences[i] for i in order], labels=labels)

    def counts(self, batch: Batch) -> dict[str, int]:
        """See `Trainable`."""
        return {"row": len(batch.labels["texts"])}

    def vectors(self, model: Bert, batch: Batch) -> Tensor:
        """See `Coupled`."""
        return widened(self.modules.vectors(model.encoder(batch), batch)[batch.labels["place"]])

    def vector_loss(self, vectors: Tensor, labels: Mapping[str, Tensor]) -> dict[str, LossTerm]:
        """See `Coupled`."""
        with torch.autocast(vectors.device.type, enabled=False):
            parts = over_sizes(vectors, self.matryoshka)
            if self.kind == "scores":
                return {"row": added([cosine_loss(part, labels["score"]) for part in parts])}
            known: dict[str, Any] = {"sizes": labels["texts"], "identity": labels["identity"]}
            return {"row": added([in_batch_loss(part, **known, temperature=self.temperature) for part in parts])}

    def loss(self, model: Bert, batch: Batch) -> dict[str, LossTerm]:
        """See `Trainable`."""
        return self.vector_loss(self.vectors(model, batch), batch.labels)

    def flops(self, model: Bert, batch: Batch) -> int:
        """See `Trainable`."""
        return encoder_flops(model.config, batch.lengths)

    def outputs(self, model: Bert, batch: Batch) -> list[np.ndarray]:
        """Vectors, `[texts, size]` per row."""
        vectors = self.vectors(model, batch).cpu()
        return [part.numpy() for part in torch.split(vectors, batch.labels["texts"].tolist())]

    def join(
        self,
        row: SimilarityExample,  # noqa: ARG002
        inputs: Sequence[Encoded],  # noqa: ARG002
        outputs: Sequence[np.ndarray],
    ) -> np.ndarray:
        """Vectors of the row, `[texts, size]`."""
        return outputs[0]

    def decode(self, row: SimilarityExample, result: np.ndarray) -> dict[str, Any]:
        """`{"score": 0.83}`, the cosine of two texts; of an anchor with several others `{"scores": [0.8, 0.1]}`, of
        a text alone `{"embedding": […]}`.
        """
        if len(row.texts) == 1:
            return {"embedding": result[0].tolist()}
        scores = cosine_of(result[:1], result[1:]).tolist()
        return {"score": scores[0]} if len(scores) == 1 else {"scores": scores}

    def judge(self, rows: Sequence[SimilarityExample], results: Sequence[np.ndarray]) -> Judgement:
        """See `Task`. Of each size of `matryoshka` too: `spearman_64`."""
        vectors = np.concatenate(results)
        if not np.isfinite(vectors).all():
            raise RunError("the model's vectors are not finite; its training diverged")
        sizes = [size for size in self.matryoshka if size < vectors.shape[1]]
        return judge_vectors(rows, {"": vectors} | {f"_{size}": vectors[:, :size] for size in sizes})

    def fitted(self, options: object, rows: object, results: object) -> EmbedTask:  # noqa: ARG002 - nothing is fitted
        """See `Task`."""
        return self


def parse_sizes(text: str | None, *, most: int) -> tuple[int, ...]:
    """`"64,128"` -> `(128, 64)`, the largest first. Raises `InputError` about `--matryoshka`."""
    if text is None:
        return ()
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise InputError(f"{text!r} is no list of sizes, for example 64,128,256", field="--matryoshka")
    sizes = sorted({int(part) for part in parts}, reverse=True)
    if sizes[0] > most:
        raise InputError(f"{sizes[0]} is more than the {most} numbers of a vector", field="--matryoshka")
    return tuple(sizes)


def _digest(ids: np.ndarray) -> int:
    return int.from_bytes(blake2b(ids.tobytes(), digest_size=8).digest(), "little", signed=True)


def _check_options(options: EmbedderOptions, kind: Kind) -> None:
    """Raise `InputError` for a flag that rows of this kind have no use for."""
    if options.score_range is not None and kind != "scores":
        raise InputError("the rows have no scores; leave it out", field="--score-range")
    if "temperature" in options.model_fields_set and kind == "scores":
        raise InputError("is for in-batch negatives, and the rows have scores; leave it out", field="--temperature")
    if options.mine and kind != "pairs":
        raise InputError("is for rows with `anchor` and `positive`; leave it out", field="--mine")
    if kind == "texts" and not options.dropout:
        raise InputError(
            "is 0, and dropout alone makes the two vectors of a text differ; leave it out", field="--dropout"
        )


def _check_scores(options: EmbedderOptions, rows: Sequence[SimilarityExample]) -> None:
    if len({row.score for row in rows}) < 2:
        raise InputError(f"all {len(rows)} rows have the same score", file=options.train, field="score")


def _check_negatives(options: EmbedderOptions, rows: Sequence[SimilarityExample]) -> None:
    """Raise `InputError` if no batch can hold a negative."""
    if all(len(row.texts) > 2 for row in rows):
        return
    anchors, positives = {row.texts[0] for row in rows}, {row.texts[-1] for row in rows if len(row.texts) < 3}
    if min(len(anchors), len(positives)) < 2 and not any(len(row.texts) > 2 for row in rows):
        raise InputError(
            f"no two of its {len(rows)} row(s) differ in anchor and positive; in-batch negatives need at least two "
            "different rows",
            file=options.train,
        )
    if options.batch_size == 1 and not options.mine:
        raise InputError("is 1; in-batch negatives need at least two different rows in a batch", field="--batch-size")
