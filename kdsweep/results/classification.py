"""Numbers behind the charts of predictions: confusion matrix, accuracy by class, calibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdsweep.tasks.metrics.likelihood import BINS

Ints = NDArray[np.integer]
Floats = NDArray[np.floating]


def confusion(labels: Ints, answers: Ints, classes: int) -> NDArray[np.int64]:
    """Number of samples of class i that were classified as j: [classes, classes].

    Args:
        labels: [N].
        answers: [N].
        classes: Number of classes.
    """
    flat = labels.astype(np.int64) * classes + answers
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes)


def shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Each row of a confusion matrix divided by its sum; NaN for classes without samples."""
    totals = counts.sum(axis=1, keepdims=True)
    found = np.full(counts.shape, np.nan)
    np.divide(counts, totals, out=found, where=totals > 0)
    return found


def most_confused(counts: NDArray[np.int64], most: int) -> list[tuple[int, int, int]]:
    """The most frequent errors: (class, answer, number of samples), the most frequent first."""
    errors = counts.copy()
    np.fill_diagonal(errors, 0)
    order = np.argsort(-errors, axis=None, kind="stable")[:most]
    places = [(int(place) // len(errors), int(place) % len(errors)) for place in order]
    return [(label, answer, int(errors[label, answer])) for label, answer in places if errors[label, answer]]


@dataclass(frozen=True)
class Calibration:
    """Confidence and accuracy by confidence, in bins of equal width.

    Attributes:
        counts: Samples per bin: [BINS].
        confidence: Mean confidence per bin; NaN without samples.
        accuracy: Share of right answers per bin; NaN without samples.
        ece: Expected calibration error.
    """

    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    ece: float


def calibration(confidences: Floats, right: NDArray[np.bool_]) -> Calibration:
    """Calibration of predictions, in `BINS` bins of confidence; bins are open below and closed above.

    Source: Guo et al. 2017, arXiv:1706.04599, equation 3.

    Args:
        confidences: Probabilities of the predicted classes: [N].
        right: Whether the predicted classes are right: [N].
    """
    known = np.nan_to_num(confidences)
    place = np.clip(np.ceil(known * BINS).astype(np.int64), 1, BINS) - 1
    counts = np.bincount(place, minlength=BINS)
    sums = np.bincount(place, weights=known, minlength=BINS), np.bincount(place, weights=right, minlength=BINS)
    confidence, accuracy = (
        np.divide(total, counts, out=np.full(BINS, np.nan), where=counts > 0) for total in sums
    )  # fmt: skip
    ece = float(np.abs(sums[0] - sums[1]).sum() / max(1, len(known)))
    return Calibration(counts, confidence, accuracy, ece)
