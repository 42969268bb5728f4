"""What the objectives of `bertsmith pretrain` differ in: the model, what it is given, its figures, its directory.

    Masked     nsp, sop, none   a `Bert` that guesses masked tokens, and perhaps how two parts belong together
    Causal     causal           a `CausalLM` that guesses each next token

Not here: the run itself (`train.pretrain`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bertsmith.bundle import write_bundle
from bertsmith.card import Card
from bertsmith.config.pretrain import PretrainOptions
from bertsmith.data.causal import CausalData
from bertsmith.data.loader import Dataset
from bertsmith.data.ngrams import NGrams
from bertsmith.data.pretraining import PretrainingData, make_dataset
from bertsmith.data.shards import TokenStore
from bertsmith.errors import InputError
from bertsmith.models.bert import Bert
from bertsmith.models.seq2seq import CausalLM
from bertsmith.tasks.base import Trainable
from bertsmith.tasks.causal import CausalTask, evaluate_causal
from bertsmith.tasks.pretrain import PretrainTask, evaluate_pretraining
from bertsmith.tokenizer.text_tokenizer import TextTokenizer
from bertsmith.train.start import starting_decoder, starting_model
from bertsmith.writer import write_writer


class Objective(Protocol):
    """What a run of pretraining needs to know."""

    @property
    def task(self) -> Trainable:
        """What is trained."""
        ...

    @property
    def title(self) -> str:
        """What the card says that was learnt."""
        ...

    def model(self) -> Bert | CausalLM:
        """The model of step 0. Raises `InputError` for one that cannot learn this."""
        ...

    def data(self, store: TokenStore) -> Dataset:
        """What is trained on."""
        ...

    def ngrams(self, store: TokenStore) -> NGrams:
        """The counts of the baselines."""
        ...

    def evaluate(self, model: Any, data: Dataset, ngrams: NGrams, most: int | None = None) -> dict[str, float]:
        """Held-out figures, of the first `most` sequences."""
        ...

    def of_data(self, data: Any) -> dict[str, float | None]:
        """What the report says of the training data."""
        ...

    def write(self, directory: Path, model: Any, *, provenance: dict[str, Any], card: Card) -> None:
        """Write the model directory."""
        ...


@dataclass(frozen=True)
class Masked:
    """`Objective` of masked tokens, and with `nsp` and `sop` of pairs."""

    options: PretrainOptions
    tokenizer: TextTokenizer

    @property
    def task(self) -> PretrainTask:
        """See `Objective`."""
        return PretrainTask(self.options.objective)

    @property
    def title(self) -> str:
        """See `Objective`."""
        return (
            "masked LM" + {"nsp": " and next sentence", "sop": " and sentence order", "none": ""}[self.task.objective]
        )

    def model(self) -> Bert:
        """Raises `InputError` for one that cannot read pairs."""
        model = starting_model(self.options, self.tokenizer, heads=self.task.heads)
        segments = model.config.type_vocab_size - model.config.token_type_offset
        if self.task.pairs and model.config.type_vocab_size and segments == 1:
            raise InputError("the model has one segment and cannot read pairs; use none", field="--objective")
        return model

    def data(self, store: TokenStore) -> PretrainingData:
        """See `Objective`."""
        options = self.options
        return make_dataset(
            store,
            self.tokenizer,
            objective=options.objective,
            max_length=options.max_length,
            seed=options.seed,
            mask_rate=options.mask_rate,
            mask_share=options.mask_share,
            random_share=options.random_share,
            unit=options.masking,
            chinese_words=options.chinese_words,
            static_masks=options.static_masks,
        )

    def ngrams(self, store: TokenStore) -> NGrams:
        """See `Objective`."""
        return NGrams(store, vocab_size=self.tokenizer.vocab_size)

    def evaluate(self, model: Bert, data: Dataset, ngrams: NGrams, most: int | None = None) -> dict[str, float]:
        """See `Objective`."""
        return evaluate_pretraining(model, self.task, data, ngrams=ngrams, most=most)

    def of_data(self, data: Any) -> dict[str, float | None]:
        """`negatives_share`: the share of pairs of epoch 0 whose B is another document's; None without pairs."""
        return {"negatives_share": float(np.mean(data.plan(0)[:, 4])) if self.task.pairs else None}

    def write(self, directory: Path, model: Bert, *, provenance: dict[str, Any], card: Card) -> None:
        """See `Objective`."""
        write_bundle(directory, model, self.tokenizer, task=self.task.manifest(), provenance=provenance, card=card)


@dataclass(frozen=True)
class Causal:
    """`Objective` of each next token."""

    options: PretrainOptions
    tokenizer: TextTokenizer
    title = "each next token"

    @property
    def task(self) -> CausalTask:
        """See `Objective`."""
        return CausalTask(self.options.max_length)

    def model(self) -> CausalLM:
        """See `Objective`."""
        return starting_decoder(self.options, self.tokenizer)

    def data(self, store: TokenStore) -> CausalData:
        """See `Objective`."""
        tokenizer, options = self.tokenizer, self.options
        return CausalData(store, tokenizer.cls_id, tokenizer.sep_id, options.max_length, seed=options.seed)

    def ngrams(self, store: TokenStore) -> NGrams:
        """They know where documents end too."""
        return NGrams(store, vocab_size=self.tokenizer.vocab_size, end=self.tokenizer.sep_id)

    def evaluate(self, model: CausalLM, data: Dataset, ngrams: NGrams, most: int | None = None) -> dict[str, float]:
        """See `Objective`."""
        return evaluate_causal(model, data, ngrams=ngrams, most=most)

    def of_data(self, _data: Any) -> dict[str, float | None]:
        """See `Objective`."""
        return {}

    def write(self, directory: Path, model: CausalLM, *, provenance: dict[str, Any], card: Card) -> None:
        """See `Objective`."""
        write_writer(directory, model, self.tokenizer, task=self.task.manifest(), provenance=provenance, card=card)
