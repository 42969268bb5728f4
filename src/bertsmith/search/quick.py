"""The vector of one query in numpy, for the start alone: `import torch` takes longer than all else that the search of
an unchanged folder does.

Not here: any family but BERT as Hugging Face stores it, many texts, training; the encoder is `models.encoder`. Whether
this gives a model's vectors is tried against it when a store is made (`search.model`), and noted there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from bertsmith.errors import InputError
from bertsmith.files import read_json
from bertsmith.tokenizer.directory import load_tokenizer
from bertsmith.tokenizer.text_tokenizer import TextTokenizer

_erf = np.frompyfunc(math.erf, 1, 1)

POOLINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "cls": lambda states: states[0],
    "mean": lambda states: np.asarray(states.mean(0)),
    "max": lambda states: np.asarray(states.max(0)),
}
"""Name -> `[tokens, hidden_size]` -> `[hidden_size]`: those of `models.pooling` that are common."""

BLOCK = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
    "output_norm": "output.LayerNorm",
}
"""Our name -> Hugging Face's, of the parts of a block that have a weight and a bias."""


class QuickEncoder:
    """A BERT in a directory of Hugging Face, for one short sequence at a time.

    Raises `ValueError` or `KeyError` for a directory that holds anything else, and what reading a file may raise.
    """

    def __init__(self, directory: Path) -> None:
        from safetensors import safe_open

        config = read_json(directory / "config.json")
        if config["model_type"] != "bert" or config["hidden_act"] != "gelu":
            raise ValueError("not a BERT with the exact GELU")
        self.layers, self.heads = config["num_hidden_layers"], config["num_attention_heads"]
        self.eps = config["layer_norm_eps"]
        opened: Any = safe_open  # it has no types
        self._file = opened(directory / "model.safetensors", framework="numpy")
        names = set(self._file.keys())
        self._prefix = "bert." if any(name.startswith("bert.") for name in names) else ""
        missing = {f"{self._prefix}embeddings.LayerNorm.weight", self._block(self.layers - 1, "output")} - names
        if missing or self._block(self.layers, "output") in names:
            raise ValueError("not the tensors of a BERT of this shape")

    def _block(self, layer: int, part: str, kind: str = "weight") -> str:
        return f"{self._prefix}encoder.layer.{layer}.{BLOCK[part]}.{kind}"

    def _tensor(self, name: str) -> np.ndarray:
        return np.asarray(self._file.get_tensor(name), np.float32)

    def _rows(self, table: str, rows: Sequence[int]) -> np.ndarray:
        """Some rows of an embedding table; the rest is not read."""
        values = self._file.get_slice(f"{self._prefix}embeddings.{table}_embeddings.weight")
        return np.concatenate([np.asarray(values[row : row + 1], np.float32) for row in rows])

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + np.float32(self.eps))
        return np.asarray(scaled * self._tensor(f"{name}.weight") + self._tensor(f"{name}.bias"))

    def states(self, ids: Sequence[int]) -> np.ndarray:
        """`[tokens]` -> `[tokens, hidden_size]`, float32: the vectors after the last block."""
        x = self._rows("word", ids) + self._rows("position", range(len(ids))) + self._rows("token_type", [0])
        x = self._norm(x, f"{self._prefix}embeddings.LayerNorm")
        for layer in range(self.layers):
            x = self._through(layer, x)
        return x

    def _through(self, layer: int, x: np.ndarray) -> np.ndarray:
        def linear(part: str, values: np.ndarray) -> np.ndarray:
            weight, bias = (self._tensor(self._block(layer, part, kind)) for kind in ("weight", "bias"))
            return np.asarray(values @ weight.T + bias)

        def norm(part: str, values: np.ndarray) -> np.ndarray:
            return self._norm(values, self._block(layer, part).removesuffix(".weight"))

        query, key, value = (
            linear(part, x).reshape(len(x), self.heads, -1).transpose(1, 0, 2) for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 2, 1) / np.float32(math.sqrt(query.shape[-1]))
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        context = weights / weights.sum(-1, keepdims=True) @ value
        x = norm("attention_norm", x + linear("attention", context.transpose(1, 0, 2).reshape(len(x), -1)))
        inner = linear("intermediate", x)
        erf = np.asarray(_erf(inner / math.sqrt(2)), np.float32)
        inner = inner * (0.5 + 0.5 * erf)
        return norm("output_norm", x + linear("output", inner))


class QuickQuery:
    """Texts to vectors, as a store's head says (`quick`): `{"pooling", "limit", "prompt", "truncate_dim"}`."""

    def __init__(self, directory: Path, settings: Mapping[str, Any], *, tokenizer: TextTokenizer | None = None) -> None:
        self.settings = settings
        self.tokenizer = tokenizer or load_tokenizer(directory)
        self.encoder = QuickEncoder(directory)

    def ids(self, query: str) -> list[int]:
        """`[CLS] prompt query [SEP]`."""
        (ids,) = self.tokenizer.encode_ids([self.settings["prompt"] + query])
        return [self.tokenizer.cls_id, *ids, self.tokenizer.sep_id]

    def vector(self, ids: Sequence[int]) -> np.ndarray:
        """`[size]`, float32; its length means nothing."""
        with threadpool_limits(1, user_api="blas"):  # to start and to wake threads takes longer than these products
            states = self.encoder.states(ids)
        vector = np.concatenate([POOLINGS[kind](states) for kind in self.settings["pooling"]])
        return vector[: self.settings["truncate_dim"]]


def check_query(tokens: int, limit: int) -> None:
    """Raise `InputError` for a query of more than `limit` tokens."""
    if tokens > limit:
        raise InputError(f"{tokens} tokens, the limit is {limit}; shorten it", field="QUERY")
