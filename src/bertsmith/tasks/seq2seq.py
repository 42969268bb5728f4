"""Writing a target from a source: translation, summaries, any rewriting (Sutskever et al. 2014; Vaswani et al. 2017).

    source   [CLS] a dog [SEP]                        what the encoder reads
    target   [CLS] ein hund  ->  ein hund [SEP]       what the decoder reads, and what it shall write next

Not here: how tokens are chosen when it writes (`models.generate`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bertsmith.batch import Batch
from bertsmith.config.finetune import LongDocs
from bertsmith.data.parallel import ParallelExample
from bertsmith.errors import ErrorCollector, InputError
from bertsmith.models.flops import encoder_flops, linear_flops, masked_lm_flops
from bertsmith.models.seq2seq import Seq2Seq
from bertsmith.tasks.base import Encoded, LossTerm
from bertsmith.tokenizer.text_tokenizer import TextTokenizer

log = logging.getLogger("bertsmith")


@dataclass(frozen=True)
class Seq2SeqTask:
    """`Trainable` for a `Seq2Seq`."""

    max_length: int
    """Most tokens of a source, special tokens included."""
    max_target_length: int
    """The same of a target."""
    long_docs: LongDocs = "error"
    label_smoothing: float = field(default=0.0, compare=False)
    name = "seq2seq"
    heads = ()

    def manifest(self) -> dict[str, Any]:
        """What is stored with the model."""
        return {
            "name": self.name,
            "max_length": self.max_length,
            "max_target_length": self.max_target_length,
            "long_docs": self.long_docs,
        }

    def prepare(
        self, rows: Sequence[ParallelExample], tokenizer: TextTokenizer, targets: TextTokenizer | None = None
    ) -> list[Encoded]:
        """One input a row. Raises `InputError`s for longer ones, unless they are cut (then counted in the log), and for
        texts of which the tokenizer makes nothing, or that are nothing but special tokens.
        """
        errors, found, cut = ErrorCollector(), [], 0
        own = targets or tokenizer
        special = set(own.special_tokens.values()) | set(tokenizer.special_tokens.values())
        sources = tokenizer.encode_ids([row.source for row in rows])
        written = own.encode_ids([row.target for row in rows])
        for number, (row, source, target) in enumerate(zip(rows, sources, written, strict=True)):
            place: dict[str, Any] = {"file": row.file, "line": row.line}
            for side, ids, limit in (("source", source, self.max_length), ("target", target, self.max_target_length)):
                cut += len(ids) + 2 > limit
                if len(ids) + 2 > limit and self.long_docs == "error":
                    message = (
                        f"{len(ids) + 2} tokens, the limit is {limit}; shorten it, or train with --long-docs truncate"
                    )
                    errors.add(InputError(message, **place, field=side))
                if not ids:
                    errors.add(InputError("the tokenizer makes nothing of it", **place, field=side))
                elif special.issuperset(getattr(row, side).split()):
                    errors.add(InputError("holds special tokens and nothing else", **place, field=side))
            whole = np.array([tokenizer.cls_id, *source[: self.max_length - 2], tokenizer.sep_id])
            label = np.array([own.cls_id, *target[: self.max_target_length - 2], own.sep_id])
            found.append(Encoded((whole,), (np.zeros_like(whole),), number, label))
        errors.raise_if_any()
        if cut:
            log.warning("%d sources and targets of %d rows were cut", cut, len(rows))
        return found

    def collate(self, inputs: Sequence[Encoded]) -> Batch:
        """The sources. Labels `target_ids` and `target_labels` `[total of the targets]`: what the decoder reads, and
        what it shall write next; `target_lengths` `[rows]`.
        """
        targets = [encoded.label for encoded in inputs]
        labels = {
            "target_ids": np.concatenate([target[:-1] for target in targets]),
            "target_labels": np.concatenate([target[1:] for target in targets]),
            "target_lengths": np.array([len(target) - 1 for target in targets]),
        }
        sources = [encoded.sequences[0] for encoded in inputs]
        return Batch.from_sequences(sources, labels={name: torch.from_numpy(part) for name, part in labels.items()})

    def counts(self, batch: Batch) -> dict[str, int]:
        """See `Trainable`."""
        return {"token": len(batch.labels["target_ids"])}

    def loss(self, model: Seq2Seq, batch: Batch) -> dict[str, LossTerm]:
        """Cross entropy of each next token (teacher forcing), with a share of it spread over all tokens if asked for
        (Szegedy et al. 2016)."""
        logits = model(batch, targets_of(batch)).float()
        labels = batch.labels["target_labels"]
        is_right = logits.detach().argmax(-1) == labels
        logits = logits[:, : model.writer.config.vocab_size]
        total = F.cross_entropy(logits, labels, reduction="sum", label_smoothing=self.label_smoothing)
        return {"token": LossTerm(total, is_right)}

    def flops(self, model: Seq2Seq, batch: Batch) -> int:
        """See `Trainable`: the encoder, the decoder's own part, its reading of the sources, and the vocabulary."""
        config = model.writer.config
        lengths: list[int] = batch.labels["target_lengths"].tolist()
        width = config.num_attention_heads * config.head_size
        pairs = sum(source * target for source, target in zip(batch.lengths, lengths, strict=True))
        cross = linear_flops(config, sum(lengths), outputs=2 * width) + 4 * pairs * width
        cross += 2 * batch.total * (config.source_size or config.hidden_size) * 2 * width
        own = encoder_flops(model.encoder.config, batch.lengths) + encoder_flops(config, lengths)
        return own + config.num_hidden_layers * cross + masked_lm_flops(config, sum(lengths))


def targets_of(batch: Batch) -> Batch:
    """The targets of a batch as a batch of their own."""
    ids, lengths = batch.labels["target_ids"], batch.labels["target_lengths"]
    ends = torch.cumsum(lengths, 0)
    bounds = torch.cat([ends.new_zeros(1), ends])
    sizes = tuple(lengths.tolist())
    places = torch.arange(len(ids), device=ids.device) - torch.repeat_interleave(bounds[:-1], lengths)
    return Batch(ids, places, torch.zeros_like(ids), bounds.to(torch.int32), sizes)


def log_likelihood(model: Seq2Seq, batch: Batch) -> Tensor:
    """Sum of the log-probabilities of the targets' tokens, scalar, float64."""
    logits = model(batch, targets_of(batch)).float()[:, : model.writer.config.vocab_size]
    return -F.cross_entropy(logits, batch.labels["target_labels"], reduction="sum").double()
