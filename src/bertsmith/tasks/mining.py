"""Hard negatives: for each anchor the texts that an embedder finds most similar, and that are not known to be its own.

    most similar first   [skipped …] [too similar: right answers that nobody marked] [taken …]

The margin is that of de Souza et al. 2024 (NV-Retriever, section 4.1): a negative is less similar than 95 % of the
positive's similarity. Not here: training with them.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from bertsmith.bundle import Bundle
from bertsmith.config.finetune import SimilarityOptions
from bertsmith.data.examples import Example
from bertsmith.data.similar import SimilarityExample
from bertsmith.models.sentence import PASSAGE_PROMPTS, QUERY_PROMPTS
from bertsmith.tasks.embedding import embed_texts
from bertsmith.tasks.similarity import BLOCK, unit

log = logging.getLogger("bertsmith")


def mined_similar(
    rows: Sequence[SimilarityExample], options: SimilarityOptions, bundle: Bundle
) -> list[SimilarityExample]:
    """Rows of anchor and positive with `--mine` further negatives from among the texts of all rows."""
    known: dict[str, set[str]] = {}
    for row in rows:
        known.setdefault(row.texts[0], set()).update(row.texts[1:])
    texts = list(dict.fromkeys(text for row in rows for text in row.texts[1:]))
    found = mine([(row.texts[0], row.texts[1]) for row in rows], texts, options, bundle, known=known)
    return [replace(row, texts=(*row.texts, *more)) for row, more in zip(rows, found, strict=True)]


def mined_relevance(rows: Sequence[Example], options: SimilarityOptions, bundle: Bundle) -> list[Example]:
    """Rows of query and text, with `--mine` negatives of label 0 after each relevant one (label 0.5 or more)."""
    known: dict[str, set[str]] = {}
    for row in rows:
        known.setdefault(row.text, set()).add(row.pair or "")
    relevant = [row for row in rows if isinstance(row.label, float) and row.label >= 0.5]
    texts = list(dict.fromkeys(row.pair or "" for row in rows))
    pairs = [(row.text, row.pair or "") for row in relevant]
    found = mine(pairs, texts, options, bundle, known=known)
    more: dict[tuple[str, str], None] = {}
    for row, negatives in zip(relevant, found, strict=True):
        more |= dict.fromkeys((row.text, text) for text in negatives)
    file, line = rows[0].file, {row.text: row.line for row in reversed(rows)}
    return [*rows, *(Example(file, line[query], query, text, 0.0) for query, text in more)]


def mine(
    pairs: Sequence[tuple[str, str]],
    texts: Sequence[str],
    options: SimilarityOptions,
    bundle: Bundle,
    *,
    known: Mapping[str, Collection[str]],
) -> list[list[str]]:
    """For each pair of anchor and positive up to `options.mine` of `texts`; `known` are those of each anchor."""
    anchors = _vectors([anchor for anchor, _ in pairs], options, bundle, prompts=QUERY_PROMPTS)
    passages = _vectors([*texts, *(positive for _, positive in pairs)], options, bundle, prompts=PASSAGE_PROMPTS)
    place = {text: i for i, text in enumerate(texts)}
    excluded = [[place[text] for text in (anchor, *known[anchor]) if text in place] for anchor, _ in pairs]
    found = hard_negatives(
        anchors,
        passages[: len(texts)],
        passages[len(texts) :],
        excluded,
        count=options.mine,
        skip=options.mine_skip,
        margin=options.mine_margin,
    )
    mined = sum(map(len, found))
    log.info("mined %d negatives for %d rows, %.2f each", mined, len(pairs), mined / max(len(pairs), 1))
    if mined < options.mine * len(pairs) / 2:
        log.warning("that is less than half of --mine %d: lower --mine-margin or --mine-skip", options.mine)
    return [[texts[i] for i in chosen] for chosen in found]


def _vectors(texts: Sequence[str], options: SimilarityOptions, bundle: Bundle, *, prompts: Sequence[str]) -> np.ndarray:
    """Of length 1, `[texts, size]`, with the first of `prompts` that the model has; each text is read once."""
    once = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    prompt = None if bundle.sentence is None else bundle.sentence.prompt_named(prompts)
    vectors = unit(embed_texts(bundle, list(once), long_docs=options.long_docs, prompt=prompt).vectors)
    return np.asarray(vectors[[once[text] for text in texts]])


def hard_negatives(
    anchors: np.ndarray,
    texts: np.ndarray,
    positives: np.ndarray,
    excluded: Sequence[Sequence[int]],
    *,
    count: int,
    skip: int,
    margin: float,
) -> list[list[int]]:
    """Numbers of the `count` texts most similar to each anchor, the most similar first; fewer if there are not as many.

    `anchors`, `positives` `[rows, size]` and `texts` `[texts, size]` have length 1; `excluded` are numbers of texts
    that are no negatives of a row. The first `skip` of the others are left out, and those whose cosine is above the
    positive's by more than `-margin` of its size.
    """
    found: list[list[int]] = []
    for start in range(0, len(anchors), BLOCK):
        block = anchors[start : start + BLOCK] @ texts.T
        own = (anchors[start : start + BLOCK] * positives[start : start + BLOCK]).sum(1)
        limits = own - margin * np.abs(own)
        for i, (scores, limit) in enumerate(zip(block, limits, strict=True), start):
            scores[list(excluded[i])] = -np.inf
            most = min(len(scores), skip + count + int((scores > limit).sum()))
            nearest = np.argpartition(-scores, most - 1)[:most] if most else np.zeros(0, int)
            order = nearest[np.lexsort((nearest, -scores[nearest]))][skip:]
            kept = [int(j) for j in order if np.isfinite(scores[j]) and scores[j] <= limit]
            found.append(kept[:count])
    return found
