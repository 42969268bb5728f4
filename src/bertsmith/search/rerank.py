"""Orders passages anew by a model that reads each beside the query (a cross-encoder: Nogueira and Cho 2019).

Not here: its training, and how pairs become inputs and logits (`tasks.classify`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bertsmith.bundle import Bundle
from bertsmith.config.search import SearchOptions
from bertsmith.data.examples import Example
from bertsmith.errors import InputError
from bertsmith.model import load
from bertsmith.models.surgery import num_labels
from bertsmith.runtime import set_threads
from bertsmith.search.store import Found
from bertsmith.tasks.classify import NUMBER, ClassifyTask
from bertsmith.tasks.inference import results
from bertsmith.tasks.known import check_segments


def load_reranker(name: str, options: SearchOptions) -> Bundle:
    """The model of `--reranker`. Raises `InputError` unless it gives one number for a text or pair."""
    set_threads(options.threads)
    bundle = load(name, device=options.device).bundle
    outputs = num_labels(bundle.model) if bundle.model.classifier is not None else 0
    if outputs != 1:
        has = f"its classifier has {outputs} outputs" if outputs else "it has no classifier"
        raise InputError(
            f"a reranker gives one number for a pair of texts; {has}", file=bundle.path, field="--reranker"
        )
    return bundle


def rerank_scores(bundle: Bundle, options: SearchOptions, found: Sequence[Found]) -> np.ndarray:
    """`[found]`: the model's logit of query and passage.

    Where both are too long together they are cut if the model's task cuts, else it is the mean over windows. Raises
    `InputError` for a query that leaves no room for a passage in a window, or a model that reads no pairs.
    """
    stored, positions = bundle.task, bundle.model.config.max_position_embeddings
    limit = min(bundle.tokenizer.model_max_length, stored.get("max_length", positions))
    long = stored.get("long_docs", "error")
    reads = {"long_docs": "window" if long == "error" else long, "stride": stored.get("stride", ClassifyTask.stride)}
    task = ClassifyTask((NUMBER,), limit, problem="regression", **reads)
    rows = [Example(Path(near.files[0]), near.passage.first, options.query, near.passage.text, None) for near in found]
    inputs = task.prepare(rows, bundle.tokenizer, labelled=False)
    check_segments(rows, inputs, bundle.model.config)
    logits = results(bundle.model, task, rows, inputs, batch_tokens=options.batch_tokens)
    return np.array([float(logit[0]) for logit in logits])
