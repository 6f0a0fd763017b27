"""What a head is worth on samples that it has not learnt from: accuracy and calibration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BINS = 10


def calibration_error(chances: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """ECE = sum_b |B_b| / n |accuracy(B_b) - confidence(B_b)|; nan of no sample.

    Confidence is the chance f[n, C] of the class that is said, accuracy whether that is
    the label; bins are of equal width and hold their upper end.
    Source: arXiv:1706.04599, eq. 3.
    """
    if not len(labels):
        return float("nan")
    confidence = chances.max(axis=1).astype(np.float64)
    right = chances.argmax(axis=1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = [
        abs(float(right[place == i].sum()) - float(confidence[place == i].sum()))
        for i in np.unique(place)
    ]
    return sum(gaps) / len(labels)


def measure(
    chances: np.ndarray, labels: Sequence[int], groups: Sequence[str]
) -> dict[str, float]:
    """Accuracy, of all and by group, how many each has, and `calibration_error`."""
    truth, names = np.asarray(labels), np.asarray(groups)
    right = chances.argmax(axis=1) == truth
    found = {"samples": float(len(truth)), "accuracy": float(right.mean())}
    for name in dict.fromkeys(sorted(groups)):
        chosen = names == name
        found |= {
            f"accuracy/{name}": float(right[chosen].mean()),
            f"samples/{name}": float(chosen.sum()),
        }
    # what saying the most frequent label always would get
    most = float(np.bincount(truth).max() / len(truth))
    return found | {"majority": most, "ece": calibration_error(chances, truth)}
