"""What is fitted on dev rows once a classifier has learnt: temperature of its logits, thresholds of its labels."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor


def best_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature with the lowest cross entropy (Guo et al. 2017, section 4.2), between 0.05 and 20."""
    from scipy.optimize import minimize_scalar

    wide = logits.double()
    found = minimize_scalar(
        lambda power: float(F.cross_entropy(wide / np.exp(power), labels)), bounds=(-3.0, 3.0), method="bounded"
    )
    return float(np.exp(found.x))


def best_threshold(truth: np.ndarray, scores: np.ndarray) -> float:
    """The threshold with the best F1, halfway between the scores that it parts; 0.5 if no row has the label."""
    if not truth.any():
        return 0.5
    order = np.argsort(-scores, kind="stable")
    right = np.cumsum(truth[order])
    f1 = 2 * right / (np.arange(1, len(truth) + 1) + truth.sum())
    ordered = scores[order]
    f1[:-1][ordered[:-1] == ordered[1:]] = -1.0  # no threshold parts equal scores
    place = int(f1.argmax())
    below = ordered[place + 1] if place + 1 < len(ordered) else 0.0
    return float((ordered[place] + below) / 2)
