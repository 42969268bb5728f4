"""Metrics of written texts are sacrebleu's."""

from __future__ import annotations

import pytest
import sacrebleu

from bertsmith.metrics.translation import translation_metrics


def test_figures_and_signatures_are_those_of_sacrebleu() -> None:
    written = ["the cat sat on the mat", "a dog", "", "Two men, walking."]
    wanted = ["the cat sat on a mat", "a dog", "one bird", "two men are walking ."]
    found = translation_metrics(written, wanted)
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu(written, [wanted]).score, abs=1e-9)
    assert found["chrf"] == pytest.approx(sacrebleu.corpus_chrf(written, [wanted]).score, abs=1e-9)
    assert found["ter"] == pytest.approx(sacrebleu.corpus_ter(written, [wanted]).score, abs=1e-9)
    assert found["exact_match"] == 0.25
    assert "tok:13a" in found["bleu_signature"]
