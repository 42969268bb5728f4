"""Pretraining: masked tokens, and beside them whether B follows A (Devlin et al. 2018, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bertsmith.batch import Batch
from bertsmith.data.loader import Dataset
from bertsmith.data.ngrams import NGrams
from bertsmith.models.bert import Bert
from bertsmith.models.flops import encoder_flops, masked_lm_flops, pooled_flops
from bertsmith.models.losses import vocabulary_cross_entropy
from bertsmith.tasks.base import LossTerm, cross_entropy_term

COLLAPSE_SHARE = 0.5
"""If one token makes up more than this share of the predictions, the run warns."""


@dataclass(frozen=True)
class PretrainTask:
    """`Trainable` with the term `mlm` and, with the objectives `nsp` and `sop`, a term of that name."""

    objective: str
    name = "pretrain"

    @property
    def heads(self) -> tuple[str, ...]:
        """Masked LM; with pairs also pooler and next sentence, whose head serves sentence order too."""
        return ("pooler", "masked_lm", "next_sentence") if self.pairs else ("masked_lm",)

    @property
    def pairs(self) -> bool:
        """Whether two parts of each sequence are judged."""
        return self.objective != "none"

    def counts(self, batch: Batch) -> dict[str, int]:
        """See `Trainable`."""
        counts = {"mlm": len(batch.labels["mlm_positions"])}
        if self.pairs:
            counts[self.objective] = len(batch.lengths)
        return counts

    def loss(self, model: Bert, batch: Batch) -> dict[str, LossTerm]:
        """See `Trainable`. Each term has its own labels, so no index is ignored by accident."""
        return self.terms(batch, *self.logits(model, batch))

    def logits(self, model: Bert, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Masked-LM logits `[selected, vocabulary]` and, with pairs, `[sequences, 2]`; the last block computes what
        these read and no more."""
        positions = batch.labels["mlm_positions"]
        if not self.pairs:
            return model.masked_lm_logits(model.encoder(batch, rows=positions)), None
        pooled, selected = model.pooled_and_selected(batch, positions)
        return model.masked_lm_logits(selected), model.next_sentence_logits(pooled)

    def terms(self, batch: Batch, masked: Tensor, follows: Tensor | None) -> dict[str, LossTerm]:
        """The loss terms from the two of `logits`; the first are used up."""
        terms = {"mlm": LossTerm(*vocabulary_cross_entropy(masked, batch.labels["mlm_labels"]))}
        if follows is not None:
            terms[self.objective] = cross_entropy_term(follows, batch.labels["next_sentence"])
        return terms

    def flops(self, model: Bert, batch: Batch) -> int:
        """See `Trainable`."""
        selected = len(batch.labels["mlm_positions"])
        pairs = len(batch.lengths) if self.pairs else 0
        reads_all = self.pairs and model.config.pooler_input != "cls"
        encoder = encoder_flops(model.config, batch.lengths, rows=None if reads_all else selected + pairs)
        return encoder + masked_lm_flops(model.config, selected) + pooled_flops(model.config, pairs, classes=2)

    def manifest(self) -> dict[str, Any]:
        """See `Task`."""
        return {"name": self.name, "objective": self.objective}


class Guesses:
    """What a model guessed, and what it should have: for the baselines, and to see whether it collapsed."""

    def __init__(self, vocab_size: int) -> None:
        self.predictions = np.zeros(vocab_size, np.int64)
        """`[vocab_size]`: how often each token was guessed."""
        self.truth: list[np.ndarray] = []
        self.before: list[np.ndarray] = []

    def add(self, guessed: Tensor, truth: np.ndarray, before: np.ndarray) -> None:
        """`[items]` each: the guesses, the right tokens, and those that stand before them."""
        self.predictions += np.bincount(guessed.cpu().numpy(), minlength=len(self.predictions))
        self.truth.append(truth)
        self.before.append(before)

    def baselines(self, ngrams: NGrams) -> dict[str, float]:
        """`unigram_loss` and `bigram_loss` on the same items."""
        truth, before = np.concatenate(self.truth), np.concatenate(self.before)
        return {
            "unigram_loss": float(-np.log(ngrams.unigram_probabilities(truth)).mean()),
            "bigram_loss": float(-np.log(ngrams.bigram_probabilities(before, truth)).mean()),
        }

    @property
    def top_share(self) -> float:
        """How often the commonest guess was made, of all."""
        return float(self.predictions.max() / self.predictions.sum())


@torch.inference_mode()
def evaluate_pretraining(
    model: Bert,
    task: PretrainTask,
    data: Dataset,
    *,
    ngrams: NGrams,
    most: int | None = None,
    batch_size: int = 32,
) -> dict[str, float]:
    """Held-out figures on epoch 0 of `data`, whose masks are drawn once: the same every time.

    `most` bounds the number of sequences (the first ones). Returns `heldout_mlm_loss` (nats per selected
    token), `unigram_loss` and `bigram_loss` on the same positions, `mlm_accuracy`, `top_prediction_share` (how
    often the commonest prediction was made), and with pairs `nsp_loss` and `nsp_accuracy`, or `sop_…` (chance: 0.5).
    """
    was_training = model.training
    model.eval()
    size = min(data.size(0), most or data.size(0))
    sums: dict[str, float] = {}
    guesses = Guesses(model.config.vocab_size)
    for start in range(0, size, batch_size):
        batch = data.batch(0, np.arange(start, min(start + batch_size, size)))
        truth, positions = batch.labels["mlm_labels"].numpy(), batch.labels["mlm_positions"].numpy()
        whole = batch.input_ids.numpy().copy()
        whole[positions] = truth
        before = whole[positions - 1]  # never selected: the first token, [CLS]
        batch = batch.to(model.device)
        logits, follows = task.logits(model, batch)
        guesses.add(logits.argmax(-1), truth, before)
        terms = task.terms(batch, logits, follows)
        for name, count in task.counts(batch).items():
            term = terms[name]
            for key, value in ((name, count), (f"{name}_loss", term.total), (f"{name}_right", term.correct)):
                sums[key] = sums.get(key, 0.0) + float(value)
    model.train(was_training)
    result = {
        "heldout_mlm_loss": sums["mlm_loss"] / sums["mlm"],
        **guesses.baselines(ngrams),
        "mlm_accuracy": sums["mlm_right"] / sums["mlm"],
        "top_prediction_share": guesses.top_share,
    }
    if task.pairs:
        name = task.objective
        result[f"{name}_loss"] = sums[f"{name}_loss"] / sums[name]
        result[f"{name}_accuracy"] = sums[f"{name}_right"] / sums[name]
    return result
