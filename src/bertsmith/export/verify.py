"""Whether a file answers what torch does: nine shapes, ragged rows, random tokens.

The reference is the packed path that `predict` takes, not the padded one that the file was traced from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bertsmith.batch import Batch
from bertsmith.errors import RunError
from bertsmith.export.answers import EncoderGraph
from bertsmith.export.engine import run_session
from bertsmith.models.seq2seq import CausalLM, Seq2Seq

ROWS, LENGTHS = (1, 3, 32), (2, 17, 512)
SHAPES = tuple((rows, length) for rows in ROWS for length in LENGTHS)
"""What is tried; a model with fewer positions than 512 is tried at as many as it has."""

LIMIT = 1e-4
"""Largest difference to torch, divided by the size of the number where that is above 1."""

MOST_NUMBERS = 2**29
"""Numbers of one output that are computed at a time; with more, fewer rows are tried (a large vocabulary)."""


@dataclass(frozen=True)
class Difference:
    """The largest difference at one shape."""

    rows: int
    length: int
    largest: float
    """Of all real tokens and rows of all outputs."""
    relative: float
    """The same, each divided by max(1, |torch's number|): what `LIMIT` is for."""


AT_A_TIME = 512
"""Rows or tokens that are compared at a time."""

Sessions = Mapping[str, Any]
"""Stem of a file -> its session."""

Compare = Callable[[Sessions, "Sample"], list[tuple[np.ndarray, Tensor]]]
"""Pairs of the same shape: what the file says, and what torch says."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Random input of one shape."""

    input_ids: Tensor
    """`[rows, length]`."""
    mask: Tensor
    """`[rows, length]`, int64, ragged: one row has the whole length."""
    token_type_ids: Tensor

    @classmethod
    def draw(cls, rows: int, length: int, *, tokens: int, segments: int, left: bool = False) -> Sample:
        """The same for the same arguments; `left`: padding stands before the tokens."""
        generator = torch.Generator().manual_seed(1000 * rows + length)
        lengths = torch.randint(1, length + 1, (rows,), generator=generator)
        lengths[rows // 2] = length
        columns = torch.arange(length).flip(0) if left else torch.arange(length)
        ids = torch.randint(0, tokens, (rows, length), generator=generator)
        types = torch.randint(0, max(1, segments), (rows, length), generator=generator)
        return cls(ids, (columns < lengths[:, None]).long(), types)


def verify(
    compare: Compare, sessions: Sessions, *, positions: int, tokens: int, segments: int, width: int, left: bool = False
) -> list[Difference]:
    """The differences at every shape. Raises `RunError` for one above `LIMIT`, and for numbers that are not finite.

    `positions`: the longest row; `tokens`, `segments`: how many there are; `width`: numbers of the largest output for
    each token.
    """
    found = []
    for rows, length in SHAPES:
        length = min(length, positions)
        rows = max(1, min(rows, MOST_NUMBERS // (length * width)))
        sample = Sample.draw(rows, length, tokens=tokens, segments=segments, left=left)
        with torch.inference_mode():
            pairs = compare(sessions, sample)
        largest = relative = 0.0
        for theirs, ours in _pieces(pairs):
            apart = (theirs - ours).abs()
            largest = max(largest, _largest(apart))
            relative = max(relative, _largest(apart / ours.abs().clamp(min=1)))
        found.append(Difference(rows, length, largest, relative))
        if not relative <= LIMIT:
            raise RunError(
                f"the graph is not the model: {rows} x {length} tokens differ by {largest:.3g} from torch "
                f"({relative:.3g} of the size, the limit is {LIMIT:g}); nothing was written"
            )
    return found


def _largest(values: Tensor) -> float:
    """The largest number; infinite if one is none."""
    return float(values.max()) if torch.isfinite(values).all() else float("inf")


def _pieces(pairs: list[tuple[np.ndarray, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """The same numbers, some at a time: logits of a large vocabulary fill the memory as they are."""
    for theirs, ours in pairs:
        yield from zip(torch.split(torch.from_numpy(theirs), AT_A_TIME), torch.split(ours, AT_A_TIME), strict=True)


def summary(differences: list[Difference]) -> dict[str, Any]:
    """What the manifest and the printed figures say."""
    return {
        "largest_difference": max(found.largest for found in differences),
        "largest_relative_difference": max(found.relative for found in differences),
        "limit": LIMIT,
        "shapes": [asdict(found) for found in differences],
    }


def compare_encoder(graph: EncoderGraph) -> Compare:
    """Of an encoder with its head."""

    def compare(sessions: Sessions, sample: Sample) -> list[tuple[np.ndarray, Tensor]]:
        session = sessions["model"]
        feeds = {
            "input_ids": sample.input_ids,
            "attention_mask": sample.mask,
            "token_type_ids": sample.token_type_ids,
        }
        wanted = {entry.name for entry in session.get_inputs()}
        if graph.has_choices:  # rows as the choices of a single question
            feeds = {name: values[None] for name, values in feeds.items()}
        found = run_session(session, {name: values.numpy() for name, values in feeds.items() if name in wanted})
        if graph.has_choices:
            found = {name: values[0] for name, values in found.items()}
        types = sample.token_type_ids if "token_type_ids" in wanted else None
        keep = sample.mask.bool().numpy()
        expected = graph.packed(Batch.from_dense(sample.input_ids, sample.mask, types))
        return [
            (found[name][keep] if name in graph.kind.per_token else found[name], values)
            for name, values in expected.items()
        ]

    return compare


def compare_seq2seq(model: Seq2Seq) -> Compare:
    """Of an encoder-decoder: targets of up to six tokens, the last two one at a time from the cache."""

    def compare(sessions: Sessions, sample: Sample) -> list[tuple[np.ndarray, Tensor]]:
        rows = len(sample.input_ids)
        size = model.writer.config.vocab_size
        mask, keep = sample.mask.numpy(), sample.mask.bool().numpy()
        source = Batch.from_dense(sample.input_ids, sample.mask)
        targets = sample.input_ids[:, : min(6, model.writer.config.max_position_embeddings)] % size
        batch = Batch.from_dense(targets)
        expected = model(source, batch).unflatten(0, targets.shape)
        ids = targets.numpy()
        read = run_session(sessions["encoder_model"], {"input_ids": sample.input_ids.numpy(), "attention_mask": mask})
        states = read["last_hidden_state"]
        before = max(1, ids.shape[1] - 2)
        given = {"input_ids": ids[:, :before], "encoder_attention_mask": mask, "encoder_hidden_states": states}
        step = run_session(sessions["decoder_model"], given)
        pairs = [(states[keep], model.encoder(source)), (step["logits"], expected[:, :before])]
        past = _past(step)
        for place in range(before, ids.shape[1]):
            given = {"input_ids": ids[:, place : place + 1], "encoder_attention_mask": mask, **past}
            step = run_session(sessions["decoder_with_past_model"], given)
            past |= _past(step)
            pairs.append((step["logits"], expected[:, place : place + 1]))
        assert len(states) == rows
        return pairs

    return compare


def compare_causal(model: CausalLM) -> Compare:
    """Of a decoder alone: all tokens but the last without a past, then the last one from the cache."""

    def compare(sessions: Sessions, sample: Sample) -> list[tuple[np.ndarray, Tensor]]:
        config, session = model.config, sessions["model"]
        ids, mask = sample.input_ids.numpy(), sample.mask.numpy()
        keep = sample.mask.bool()
        logits = model(Batch.from_dense(sample.input_ids, sample.mask))
        expected = logits.new_zeros(*keep.shape, config.vocab_size)
        expected[keep] = logits
        names = [entry.name for entry in session.get_inputs() if entry.name.startswith("past")]
        sizes = {"key": config.head_size, "value": config.value_size}
        past = {
            name: np.zeros((len(ids), config.num_attention_heads, 0, sizes[name.rpartition(".")[2]]), np.float32)
            for name in names
        }
        pairs = []
        for part in (slice(0, -1), slice(ids.shape[1] - 1, None)):
            end = ids.shape[1] if part.stop is None else ids.shape[1] - 1
            given = {"input_ids": ids[:, part], "attention_mask": mask[:, :end], **past}
            step = run_session(session, given)
            past = _past(step)
            kept = keep[:, part]
            pairs.append((step["logits"][kept.numpy()], expected[:, part][kept]))
        return [(theirs, ours) for theirs, ours in pairs if len(ours)]

    return compare


def _past(step: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`present.…` -> `past_key_values.…`."""
    return {name.replace("present", "past_key_values"): values for name, values in step.items() if name != "logits"}
