"""Images without labels: a student is measured by how well it agrees with its teacher.

The label of a validation or test image is what the teacher says of it: its logits, [B, C].
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from kdsweep.errors import UnknownNameError, did_you_mean
from kdsweep.lazy import F, torch
from kdsweep.tasks.base import register
from kdsweep.tasks.image.task import ImageTask
from kdsweep.tasks.metrics import HALF_A_POINT, Metric


def _same_class(logits: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    return (logits.argmax(dim=1) == teacher.argmax(dim=1)).sum()


def _divergence(logits: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    ours, theirs = logits.log_softmax(dim=1), teacher.float().log_softmax(dim=1)
    return F.kl_div(ours, theirs, reduction="sum", log_target=True)


@register
class AgreementTask(ImageTask):
    """Images that have no labels, but a teacher."""

    name = "image_agreement"
    label_free = True
    default_metric = "val_agreement"
    metrics: ClassVar[Mapping[str, Metric]] = MappingProxyType({
        "agreement": Metric(
            "share of images that student and teacher put into the same class", "max", _same_class, margin=HALF_A_POINT
        ),
        "divergence": Metric(
            "mean Kullback-Leibler divergence of the student's probabilities from the teacher's, in nats", "min",
            _divergence,
        ),
    })  # fmt: skip
    always = ("agreement", "divergence")

    def metric(self, written: str) -> Metric:
        """The metric for an objective; metrics that read labels are refused.

        Raises:
            UnknownNameError: If it is neither `val_agreement` nor `val_divergence`.
        """
        known = {f"val_{name}": metric for name, metric in self.metrics.items()}
        if written not in known:
            why = f"unknown metric {written!r} of images without labels"
            raise UnknownNameError(f"{why}; {did_you_mean(written, known)}")
        return known[written]

    def teacher_fault(self, measured: Mapping[str, float], num_classes: int) -> str:
        """No teacher is refused: without labels, nothing tells how good it is."""
        return ""
