"""Accuracy metrics."""

from __future__ import annotations

from kdsweep.lazy import torch
from kdsweep.tasks.metrics.base import HALF_A_POINT, Metric, register


def _correct(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return (logits.argmax(dim=1) == labels).sum()


def _among_five(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return (logits.topk(5, dim=1).indices == labels[:, None]).sum()


def _by_class(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Correct samples and all samples per class: [2, C]."""
    correct = logits.argmax(dim=1) == labels
    counted = torch.stack([correct, torch.ones_like(correct)]).double()
    # Unlike bincount, this does not synchronise with the device.
    return torch.zeros(2, logits.shape[1], dtype=torch.float64, device=logits.device).index_add_(1, labels, counted)


def _mean_recall(sums: torch.Tensor, count: int) -> float:
    """Mean recall over the classes that occur in the split."""
    correct, total = sums
    there = total > 0
    return float((correct[there] / total[there]).mean())


register("accuracy", Metric("share of samples classified correctly", "max", _correct, margin=HALF_A_POINT))
register(
    "top5_accuracy",
    Metric("share of samples whose right class is among the five likeliest", "max", _among_five, least_classes=6,
           margin=HALF_A_POINT),
)  # fmt: skip
register(
    "balanced_accuracy",
    Metric("mean over the classes of their accuracy", "max", _by_class, _mean_recall, margin=HALF_A_POINT),
)
