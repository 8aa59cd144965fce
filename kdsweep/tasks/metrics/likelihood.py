"""Metrics of predicted probabilities: cross entropy and calibration error."""

from __future__ import annotations

from kdsweep.lazy import F, torch
from kdsweep.tasks.metrics.base import HALF_A_POINT, Metric, register

BINS = 15


def _cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits, labels, reduction="sum")


def _by_confidence(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Total confidence and number of correct samples per confidence bin: [2, BINS]."""
    confidence, predicted = logits.softmax(dim=1).max(dim=1)
    # Bins are open below and closed above, as in the paper.
    place = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
    sums = torch.zeros(2, BINS, dtype=torch.float64, device=logits.device)
    sums[0].index_add_(0, place, confidence.double())
    sums[1].index_add_(0, place, (predicted == labels).double())
    return sums


def _calibration_error(sums: torch.Tensor, count: int) -> float:
    """Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv:1706.04599, equation 3."""
    confidence, correct = sums
    return float((confidence - correct).abs().sum()) / count


register("loss", Metric("negative log-likelihood: mean cross entropy in nats", "min", _cross_entropy))
register(
    "ece",
    Metric(
        "expected calibration error, 15 bins of equal width",
        "min",
        _by_confidence,
        _calibration_error,
        margin=HALF_A_POINT,
    ),
)
