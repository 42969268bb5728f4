"""The losses of vectors: a pair's cosine against its score, and an anchor's positive against all others of the batch.

    vectors   a p n | a p | a p n n      rows of a batch, `sizes` 3 2 4
    logits    cosine(a, every p and n) / temperature; the right answer of a row is its own p

Both come as sums over rows. Not here: how vectors are made (`models.sentence`), and how rows of several micro-batches
meet (`train.accumulate`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from bertsmith.tasks.base import LossTerm, cross_entropy_term

CLOSE = 0.1
"""A cosine that is no farther from its score counts as right."""


def cosine_loss(vectors: Tensor, scores: Tensor) -> LossTerm:
    """Squared distance of each pair's cosine from its score (Reimers and Gurevych 2019, section 3, regression).

    `vectors`: `[2 * rows, size]`, the two of a pair after each other; `scores`: `[rows]`.
    """
    cosines = F.cosine_similarity(vectors[0::2], vectors[1::2], dim=1)
    error = cosines - scores
    return LossTerm(error.square().sum(), error.detach().abs() < CLOSE)


def in_batch_loss(vectors: Tensor, *, sizes: Tensor, identity: Tensor, temperature: float) -> LossTerm:
    """Cross entropy of each anchor's positive among all positives and negatives of the batch (van den Oord et al. 2018;
    Henderson et al. 2017, section 4).

    `vectors`: `[texts, size]`; `sizes`: `[rows]`, texts of each row: anchor, positive, negatives; `identity`:
    `[texts]`, equal for equal texts. A text that equals the anchor or its positive, or that is the positive of an
    equal anchor, is no negative of it.
    """
    starts = sizes.cumsum(0) - sizes
    is_negative = torch.ones(len(vectors), dtype=torch.bool, device=vectors.device)
    is_negative[starts] = is_negative[starts + 1] = False
    candidates = torch.cat([starts + 1, is_negative.nonzero()[:, 0]])
    unit = F.normalize(vectors, dim=1)
    logits = unit[starts] @ unit[candidates].mT / temperature
    masked = same_texts(identity[starts], identity[starts + 1], identity[candidates])
    return cross_entropy_term(
        logits.masked_fill(masked, float("-inf")), torch.arange(len(sizes), device=vectors.device)
    )


def same_texts(anchors: Tensor, positives: Tensor, candidates: Tensor) -> Tensor:
    """`[rows, candidates]`: which candidates are no negatives of a row's anchor; never its own positive.

    `anchors`, `positives`: `[rows]`; `candidates`: `[candidates]`, the positives in order, then the negatives.
    """
    rows = len(anchors)
    same = (candidates == positives[:, None]) | (candidates == anchors[:, None])
    same[:, :rows] |= anchors == anchors[:, None]
    return same.fill_diagonal_(False)


def over_sizes(vectors: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """The whole vectors, and their first numbers of each size that is smaller (Kusupati et al. 2022, section 3)."""
    return [vectors, *(vectors[:, :size] for size in sizes if size < vectors.shape[1])]


def added(terms: Sequence[LossTerm]) -> LossTerm:
    """The sum of the losses; right is what the first finds right."""
    return LossTerm(torch.stack([term.total for term in terms]).sum(), terms[0].is_right)
