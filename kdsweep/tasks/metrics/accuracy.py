"""Accuracy metrics."""

from __future__ import annotations

from kdsweep.lazy import F, torch
from kdsweep.tasks.metrics.base import HALF_A_POINT, Metric, register


def _correct(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return (logits.argmax(dim=1) == labels).sum()


def _among_five(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return (logits.topk(5, dim=1).indices == labels[:, None]).sum()


def _by_class(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Correct samples and all samples per class: [2, C]."""
    of_class = F.one_hot(labels, logits.shape[1])
    correct = logits.argmax(dim=1) == labels
    return torch.stack([(of_class * correct[:, None]).sum(dim=0), of_class.sum(dim=0)])


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
