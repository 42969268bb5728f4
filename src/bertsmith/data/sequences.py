"""How documents become sequences, anew in every epoch: blocks for plain MLM, pairs for next sentence or sentence order.

A plan is an integer table, one row per sequence, of global token numbers; no token is read to make it.

    pairs   [CLS] A … [SEP] B … [SEP]     a_start a_end b_start b_end label     label 0: B follows A
    ordered [CLS] A … [SEP] B … [SEP]     a_start a_end b_start b_end label     label 1: A and B were exchanged
    blocks  [CLS] A … [SEP]               a_start a_end 0 0 0

Pairs follow google-research/bert `create_instances_from_document`: sentences are gathered up to a target
length, which is shorter than the maximum in 10 % of the cases, and cut at a random sentence end; what is
too long loses tokens of its longer side at a random end. Two things differ, on purpose. A negative's B is
always from another document. And it is the B of another pair of nearly the same length, so that neither
the lengths nor the cut give the label away (with Google's draw a short B means "document end, is next").
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise

import numpy as np

from bertsmith.data.shards import TokenStore
from bertsmith.errors import InputError

SHORT_SHARE = 0.1
"""Share of pairs with a random, shorter target length."""


def generator(*key: int) -> np.random.Generator:
    """A random generator that is a pure function of the numbers in `key`."""
    return np.random.default_rng(list(key))


def plan_blocks(store: TokenStore, *, length: int, rng: np.random.Generator) -> np.ndarray:
    """Cut every document into blocks of `length` tokens: `[blocks, 5]`, int64.

    The first cut of a document longer than that is drawn, so that epochs see other borders.
    """
    rows: list[tuple[int, int, int, int, int]] = []
    bounds = store.document_bounds
    for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        first = start + int(rng.integers(1, length + 1)) if end - start > length else end
        cuts = [start, *range(first, end, length), end]
        rows.extend((a, b, 0, 0, 0) for a, b in pairwise(cuts) if b > a)
    return np.array(rows, np.int64).reshape(-1, 5)


def plan_pairs(store: TokenStore, *, length: int, rng: np.random.Generator) -> np.ndarray:
    """Pair neighbouring spans, half of them with another document's B: `[pairs, 5]`, int64.

    `length` is the most tokens of A and B together. Raises `InputError` when most documents have one
    sentence, or when fewer than two documents have a pair.
    """
    spans = _neighbours(store, length=length, rng=rng)
    document = store.origins[np.searchsorted(store.document_bounds, spans[:, 0], side="right") - 1]
    if len(np.unique(document)) < 2:
        raise InputError(
            "`--objective nsp` draws negatives from another document, and there is only one with two sentences; "
            "part documents by blank lines, or use `--objective none`"
        )
    label = np.zeros(len(spans), np.int64)
    chosen = rng.permutation(len(spans))[: len(spans) // 2]
    second = spans[:, 2:].copy()
    partner = _partners(document[chosen], spans[chosen], rng)
    second[chosen], label[chosen] = spans[chosen][partner, 2:], 1
    keep = label == 0
    keep[chosen] = document[chosen] != document[chosen][partner]
    pairs = np.concatenate([spans[:, :2], second, label[:, None]], axis=1)[keep]
    return _truncate(pairs, length=length, rng=rng)


def plan_ordered(store: TokenStore, *, length: int, rng: np.random.Generator) -> np.ndarray:
    """Pair neighbouring spans, half of them with A and B exchanged: `[pairs, 5]`, int64 (Lan et al. 2020, ALBERT, 3.1).

    Exchanging also exchanges lengths and cuts, and B is the longer one more often than not, so that they would tell the
    label. A pair therefore stays as it is only if another one is its mirror image, of (nearly) the same lengths and
    with the same cuts on the other side; what finds none is cut to equal lengths, at all ends.
    """
    spans = _neighbours(store, length=length, rng=rng)
    pairs = _truncate(np.pad(spans, ((0, 0), (0, 1))), length=length, rng=rng)
    alone = _without_mirror_image(pairs, cut=pairs[:, :4] != spans, length=length, rng=rng)
    pairs[alone] = _equalized(pairs[alone], rng=rng)
    label = rng.integers(0, 2, len(pairs))
    exchanged = label == 1
    pairs[exchanged, :4] = pairs[exchanged][:, [2, 3, 0, 1]]
    pairs[:, 4] = label
    pairs = pairs[pairs[:, 1] > pairs[:, 0]]  # of equalized ones, A and B are empty together
    if not len(pairs):
        raise InputError("too few sentences to pair for `--objective sop`; give more text, or `--objective none`")
    return pairs


def _without_mirror_image(pairs: np.ndarray, *, cut: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers of the pairs for which there is no other one that looks (nearly) like them with A and B exchanged; each
    is the image of one pair at most, and a pair may be its own.

    What can be seen of a part without reading it: its size, and at which ends it was `cut` (`[pairs, 4]`, bool).
    """
    size_a, size_b = pairs[:, 1] - pairs[:, 0], pairs[:, 3] - pairs[:, 2]
    cuts_a, cuts_b = 2 * cut[:, 0] + cut[:, 1], 2 * cut[:, 2] + cut[:, 3]
    view_a, view_b = 4 * size_a + cuts_a, 4 * size_b + cuts_b
    a_leads = view_a > view_b
    lead, other = np.where(a_leads, cuts_a, cuts_b), np.where(a_leads, cuts_b, cuts_a)
    fine, coarse = max(1, length // 32), max(1, length // 8)
    looks = np.stack([np.abs(size_a - size_b) // fine, (size_a + size_b) // coarse, lead, other], axis=1)
    _, group = np.unique(looks, axis=0, return_inverse=True)
    group = group.reshape(-1)
    alone = []
    sides = np.flatnonzero(a_leads), np.flatnonzero(view_a < view_b)
    count = [np.bincount(group[rows], minlength=len(pairs)) for rows in sides]  # there are no more groups than pairs
    for rows in sides:
        ordered = rows[np.lexsort((rng.random(len(rows)), group[rows]))]
        rank = np.arange(len(ordered)) - np.searchsorted(group[ordered], group[ordered])
        alone.append(ordered[rank >= np.minimum(*count)[group[ordered]]])
    return np.concatenate(alone)


def _equalized(pairs: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """The pairs with A and B of one length, and cut at all ends; of too short ones nothing is left."""
    sizes = np.minimum(pairs[:, 1] - pairs[:, 0], pairs[:, 3] - pairs[:, 2]) - 2
    cut = pairs.copy()
    for start in (0, 2):
        lost = np.maximum(pairs[:, start + 1] - pairs[:, start] - sizes, 2)
        front = 1 + rng.binomial(lost - 2, 0.5)
        cut[:, start] += front
        cut[:, start + 1] -= lost - front
    return cut


def _neighbours(store: TokenStore, *, length: int, rng: np.random.Generator) -> np.ndarray:
    """All (A, its true B) of the documents with two sentences or more, not yet truncated: `[pairs, 4]`."""
    bounds = store.sentence_bounds.tolist()
    starts = np.searchsorted(store.sentence_bounds, store.document_bounds).tolist()
    single = sum(end - start == 1 for start, end in pairwise(starts))
    if 2 * single > store.documents:
        raise InputError(
            "`--objective nsp` and `sop` need documents of at least two sentences; "
            f"{single} of {store.documents} have one. Use `--objective none`"
        )
    rows = []
    for first, last in pairwise(starts):
        start = first
        while last - start >= 2:
            short = rng.random() < SHORT_SHARE
            target = int(rng.integers(2, length + 1)) if short else length
            end = min(max(bisect_left(bounds, bounds[start] + target, start + 1, last), start + 2), last)
            if last - end == 1:  # a last sentence alone would have no partner
                end = last
            cut = int(rng.integers(start + 1, end))
            rows.append((bounds[start], bounds[cut], bounds[cut], bounds[end]))
            start = end
    return np.array(rows, np.int64).reshape(-1, 4)


def _partners(document: np.ndarray, spans: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each row another row, of another document, with a B of nearly the same length: `[rows]`.

    Rows are put in order of B's length (ties at random); each takes the next one that is of another document.
    """
    sizes = spans[:, 3] - spans[:, 2]
    order = np.lexsort((rng.random(len(spans)), sizes))
    ordered = document[order]
    changes = np.flatnonzero(ordered != np.roll(ordered, 1))
    if not len(changes):
        return np.arange(len(spans))
    following = changes[np.searchsorted(changes, np.arange(len(order)), side="right") % len(changes)]
    partner = np.empty(len(spans), np.int64)
    partner[order] = order[following]
    return partner


def _truncate(pairs: np.ndarray, *, length: int, rng: np.random.Generator) -> np.ndarray:
    """Take tokens from the longer side, each from a random end, until A and B together have `length`."""
    size_a, size_b = pairs[:, 1] - pairs[:, 0], pairs[:, 3] - pairs[:, 2]
    half_up, half = length - length // 2, length // 2
    keep_a = np.minimum(size_a, np.maximum(half_up, length - size_b))
    keep_b = np.minimum(size_b, np.maximum(half, length - size_a))
    cut = pairs.copy()
    for start, lost in ((0, size_a - keep_a), (2, size_b - keep_b)):
        front = rng.binomial(lost, 0.5)
        cut[:, start] += front
        cut[:, start + 1] -= lost - front
    return cut
