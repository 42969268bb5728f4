"""Which tag may follow which, by the scheme that the tags are written in; and the best sequence that obeys.

BIO    B- begins an entity, I- goes on with one of the same class               Ramshaw and Marcus 1995, as IOB2
IOB1   I- begins and goes on; B- begins where an entity of the same class ended just before
BILOU  B- I- L- begin, go on, end an entity of several words, U- is one word; BIOES says E- and S-
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from bertsmith.errors import listing
from bertsmith.metrics.tagging import Scheme, is_entity_scheme, known_scheme, split_tag

MISTAKES = 0.1
"""Share of a training file's entity tags that may contradict its scheme."""


def scheme_of(sentences: Sequence[Sequence[str]]) -> Scheme:
    """The scheme of the tags, from the tags of a training file; "none" of what has no prefixes.

    With prefixes of ends (L, U, E, S) it is BILOU; without, BIO or IOB1, whichever fewer tags contradict.
    """
    scheme = known_scheme(sorted({tag for tags in sentences for tag in tags}))
    if scheme != "BIO":
        return scheme
    others: tuple[Scheme, ...] = ("BIO", "IOB1")
    return min(others, key=lambda kind: violations(sentences, kind))  # of equal ones the first


def violations(sentences: Sequence[Sequence[str]], scheme: Scheme) -> int:
    """How many tags cannot follow the one before."""
    return sum(not allowed(before, tag, scheme) for tags in sentences for before, tag in pairwise(("", *tags, "")))


def obeys(sentences: Sequence[Sequence[str]], scheme: Scheme) -> bool:
    """Whether so few tags contradict the scheme that they are mistakes; IOE1 and IOE2 look like BIOES and are not."""
    marked = sum(tag != "O" for tags in sentences for tag in tags)
    return violations(sentences, scheme) <= MISTAKES * marked


def doubtful(labels: Sequence[str]) -> str:
    """Why labels that are meant as entities are not read so; "" if they are, or are surely none."""
    others = strays(labels)
    if others:
        return f"no entities, because these tags are neither O nor PREFIX-CLASS: {listing(others, 5)}"
    if all(label.isdecimal() for label in labels):
        return "no entities, because the tags are numbers; write their names, as B-PER"
    return ""


def strays(labels: Sequence[str]) -> list[str]:
    """The labels that are neither `O` nor `PREFIX-CLASS`, where most are one of these."""
    others = [label for label in labels if label != "O" and not is_entity_scheme([label])]
    return others if 2 * len(others) < len(labels) else []


def completed(labels: Sequence[str], scheme: Scheme) -> tuple[str, ...]:
    """The labels with the missing prefixes of their classes: a class must be able to begin and to go on.

    `("O", "I-PER")`, BIO -> `("O", "I-PER", "B-PER")`.
    """
    marked = [label for label in labels if label != "O"]
    ends = {label[0] for label in marked} & set("LEUS")
    prefixes = "BI" if scheme in ("BIO", "IOB1") else "BIES" if ends & set("ES") else "BILU"
    kinds = dict.fromkeys(label[2:] for label in marked)
    every = [f"{prefix}-{kind}" for kind in kinds for prefix in prefixes]
    return tuple(dict.fromkeys([*labels, *(["O"] if "O" not in labels else []), *every]))


def allowed(before: str, tag: str, scheme: Scheme) -> bool:
    """Whether `tag` may follow `before`; "" is the beginning, or the end, of the sentence."""
    (last, last_kind), (prefix, kind) = split_tag(before or "O"), split_tag(tag or "O")
    same = kind == last_kind
    if scheme == "BIO":
        return prefix != "I" or (last in "BI" and same)
    if scheme == "IOB1":
        return prefix != "B" or (last in "BI" and same)
    if scheme == "BILOU":
        if last in "BI":  # an entity that is not over goes on
            return prefix in "IE" and same
        return prefix not in "IE"
    return True


def transitions(labels: Sequence[str], scheme: Scheme) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """0 where allowed and -inf where not: first tag `[labels]`, from one to the next `[labels, labels]`, last tag
    `[labels]`."""

    def cost(before: str, tag: str) -> float:
        return 0.0 if allowed(before, tag, scheme) else -np.inf

    first = np.array([cost("", tag) for tag in labels])
    between = np.array([[cost(before, tag) for tag in labels] for before in labels])
    last = np.array([cost(before, "") for before in labels])
    return first, between, last


def best_sequence(scores: np.ndarray, chain: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    """The numbers of the tags with the highest sum of `scores` `[words, labels]` that `chain` allows (Viterbi 1967).

    If nothing is allowed (labels that no sequence can end with), each word's best tag.
    """
    first, between, last = chain
    total, origins = scores[0] + first, []
    for row in scores[1:]:
        paths = total[:, None] + between
        origins.append(paths.argmax(0))
        total = paths.max(0) + row
    total = total + last
    if not np.isfinite(total).any():
        return np.asarray(scores.argmax(1))
    path = [int(total.argmax())]
    for origin in reversed(origins):
        path.append(int(origin[path[-1]]))
    return np.array(path[::-1])
