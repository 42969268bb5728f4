"""Causal language modelling: each next token of a text, by a decoder alone (Radford et al. 2018, section 3.1).

Not here: masked tokens (`tasks.pretrain`), writing (`models.generate`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bertsmith.batch import Batch
from bertsmith.data.loader import Dataset
from bertsmith.data.ngrams import NGrams
from bertsmith.models.flops import encoder_flops, masked_lm_flops
from bertsmith.models.losses import vocabulary_cross_entropy
from bertsmith.models.seq2seq import CausalLM
from bertsmith.tasks.base import LossTerm
from bertsmith.tasks.pretrain import Guesses


@dataclass(frozen=True)
class CausalTask:
    """`Trainable` with the term `token`."""

    max_length: int
    """Longest block; places after it are never learnt."""
    objective = "causal"
    name = "pretrain"
    heads = ()

    def counts(self, batch: Batch) -> dict[str, int]:
        """See `Trainable`."""
        return {"token": batch.total}

    def loss(self, model: CausalLM, batch: Batch) -> dict[str, LossTerm]:
        """See `Trainable`."""
        return {"token": LossTerm(*vocabulary_cross_entropy(model(batch), batch.labels["next_tokens"]))}

    def flops(self, model: CausalLM, batch: Batch) -> int:
        """See `Trainable`."""
        return encoder_flops(model.config, batch.lengths) + masked_lm_flops(model.config, batch.total)

    def manifest(self) -> dict[str, Any]:
        """What is stored with the model."""
        return {"name": self.name, "objective": self.objective, "max_length": self.max_length}


@torch.inference_mode()
def evaluate_causal(
    model: CausalLM, data: Dataset, *, ngrams: NGrams | None = None, most: int | None = None, batch_size: int = 32
) -> dict[str, float]:
    """Figures on epoch 0 of `data`, of which `most` bounds the number of blocks (the first ones).

    Returns `heldout_token_loss` (nats), `perplexity`, with `ngrams` also `unigram_loss` and `bigram_loss` on the same
    tokens, `token_accuracy`, and `top_prediction_share` (how often the commonest prediction was made).
    """
    was_training = model.training
    model.eval()
    size = min(data.size(0), most or data.size(0))
    loss, right, tokens = 0.0, 0, 0
    guesses = Guesses(model.config.vocab_size)
    for start in range(0, size, batch_size):
        batch = data.batch(0, np.arange(start, min(start + batch_size, size)))
        truth, before = batch.labels["next_tokens"].numpy(), batch.input_ids.numpy()
        batch = batch.to(model.device)
        logits = model(batch)
        guesses.add(logits.argmax(-1), truth, before)
        total, is_right = vocabulary_cross_entropy(logits, batch.labels["next_tokens"])
        loss, right, tokens = loss + float(total), right + int(is_right.sum()), tokens + batch.total
    model.train(was_training)
    return {
        "heldout_token_loss": loss / tokens,
        "perplexity": math.exp(min(loss / tokens, 700.0)),
        **({} if ngrams is None else guesses.baselines(ngrams)),
        "token_accuracy": right / tokens,
        "top_prediction_share": guesses.top_share,
    }
