"""Metrics of written texts against what should have been written: sacrebleu's, with its signatures, and exact match."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bertsmith.errors import import_extra


def translation_metrics(written: Sequence[str], wanted: Sequence[str]) -> dict[str, Any]:
    """`bleu` (Papineni et al. 2002), `chrf` (Popović 2015) and `ter` (Snover et al. 2006) of the whole corpus, 0 to
    100, with `bleu_signature` and so on (Post 2018); `exact_match`, 0 to 1. Raises `InputError` without the extra.
    """
    sacrebleu = import_extra("sacrebleu", extra="seq2seq", field="--data")
    found: dict[str, Any] = {}
    for name, metric in (("bleu", sacrebleu.BLEU()), ("chrf", sacrebleu.CHRF()), ("ter", sacrebleu.TER())):
        found[name] = metric.corpus_score(list(written), [list(wanted)]).score
        found[f"{name}_signature"] = str(metric.get_signature())
    same = sum(one == other for one, other in zip(written, wanted, strict=True))
    return found | {"exact_match": same / len(wanted)}
