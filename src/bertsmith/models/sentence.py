"""From the token vectors of a text to its embedding, as a sentence model is described: prompts, pooling, projections,
length 1. Not here: the poolings themselves (`models.pooling`), and the files that say all this
(`interop.sentence_transformers`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor

from bertsmith.batch import Batch
from bertsmith.errors import InputError, listing, nearest
from bertsmith.models.pooling import POOLINGS, Projection, pool

QUERY_PROMPTS, PASSAGE_PROMPTS = ("query",), ("document", "passage", "corpus")
"""Names of the prompts that sentence-transformers puts before queries and passages, if a model has them."""


@dataclass(frozen=True)
class SentenceModules:
    """How texts become vectors; the defaults are what sentence-transformers does with a plain BERT."""

    pooling: tuple[str, ...] = ("mean",)
    """Names of `POOLINGS`; several are laid end to end."""
    dense: tuple[Projection, ...] = ()
    """Linear maps after pooling, in order."""
    normalize: bool = False
    """Whether vectors get Euclidean length 1."""
    max_seq_length: int | None = None
    """Most tokens of a text, special tokens included; beyond it texts are cut. None: as many as the model reads."""
    do_lower_case: bool = False
    """Whether texts are lower-cased before the tokenizer sees them."""
    prompts: Mapping[str, str] = field(default_factory=dict)
    """Name -> text that is put before each text."""
    default_prompt_name: str | None = None
    """The prompt that is taken if none is named."""
    similarity: str | None = None
    """The function that compares two vectors ("cosine", "dot", …); only kept."""
    truncate_dim: int | None = None
    """How many of the vector's first numbers are kept."""

    def prompt(self, name: str | None = None) -> str:
        """The text of a prompt, by default of the default one; `""` names none. Raises `InputError` if unknown."""
        chosen = self.default_prompt_name if name is None else name
        if not chosen:
            return ""
        if chosen not in self.prompts:
            known = f"it has: {listing(self.prompts)}" if self.prompts else "it has none"
            raise InputError(
                f'the model has no prompt "{chosen}"{nearest(chosen, self.prompts)}; {known}', field="--prompt"
            )
        return self.prompts[chosen]

    def prompt_named(self, names: Sequence[str]) -> str | None:
        """The first of `names` that is a prompt of the model, else None: its default one."""
        return next((name for name in names if name in self.prompts), None)

    def size(self, hidden_size: int, *, pooling: Sequence[str] | None = None) -> int:
        """Numbers of a vector. Raises `InputError` for a `pooling` that is unknown, or too wide for the dense layer."""
        kinds = self.pooling if pooling is None else pooling
        for kind in kinds:
            if kind not in POOLINGS:
                raise InputError(
                    f'unknown pooling "{kind}"{nearest(kind, POOLINGS)}; expected one of: {listing(POOLINGS)}',
                    field="--pooling",
                )
        if not kinds:
            raise InputError("no pooling is named", field="--pooling")
        width = hidden_size * len(kinds)
        for projection in self.dense:
            outputs, inputs = projection.weight.shape
            if inputs != width:
                raise InputError(f"gives {width} numbers, the dense layer takes {inputs}", field="--pooling")
            width = outputs
        return width if self.truncate_dim is None else min(width, self.truncate_dim)

    def vectors(
        self, states: Tensor, batch: Batch, *, pooling: Sequence[str] | None = None, normalize: bool | None = None
    ) -> Tensor:
        """`[total, hidden_size]` -> `[sequences, size]`; `pooling` and `normalize` override the fields.

        As sentence-transformers has it, `truncate_dim` shortens vectors of length 1 and leaves them shorter, but a
        `normalize` that was asked for comes after it.
        """
        vectors = pool(states, batch, kinds=self.pooling if pooling is None else pooling)
        for projection in self.dense:
            vectors = projection(vectors)
        if self.normalize and normalize is None:
            vectors = F.normalize(vectors, dim=1)
        vectors = vectors[:, : self.truncate_dim]
        return F.normalize(vectors, dim=1) if normalize else vectors
