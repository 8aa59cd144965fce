"""The contract of a metric, and what it means to be best by one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kdsweep.registry import Registry

if TYPE_CHECKING:
    import torch

Mode = Literal["max", "min"]
Direction = Literal["maximize", "minimize"]
DEFAULT_OBJECTIVE = "val_accuracy"


def mean(sums: torch.Tensor, count: int) -> float:
    """A sum over the samples, divided by their number."""
    return float(sums) / count


@dataclass(frozen=True)
class Metric:
    """A number computed from a model's logits on a whole split.

    A metric is a sum over the samples and a function of that sum, so a split is judged batch by batch, on the device,
    and read once at its end.

    Attributes:
        summary: One line for readers.
        mode: Whether the largest or the smallest value is best.
        sums: `sums(logits [B, C] of float32, labels [B]) -> tensor` of any shape that batches have in common. Batches
            are added up in float64. It must not wait for the device.
        value: `value(sums on the CPU, number of samples) -> float`; by default the mean.
        least_classes: With fewer classes the metric says nothing and is refused.
    """

    summary: str
    mode: Mode
    sums: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    value: Callable[[torch.Tensor, int], float] = mean
    least_classes: int = 2


METRICS: Registry[Metric] = Registry("metric", "kdsweep.tasks.metrics")


def register(name: str, metric: Metric) -> Metric:
    """Declare a metric; its columns are `val_NAME` and `test_NAME`."""
    return METRICS.add(name, metric)


@dataclass(frozen=True)
class Goal:
    """What is best in a sweep.

    Attributes:
        metric: As the sweep file writes it: `val_NAME` or the user's own `package.module:NAME`.
        mode: Whether the largest or the smallest value is best.
    """

    metric: str = DEFAULT_OBJECTIVE
    mode: Mode = "max"

    @property
    def name(self) -> str:
        """Of the metric, without the split."""
        return self.metric.rpartition(":")[2].removeprefix("val_")

    @property
    def column(self) -> str:
        """Its column in the results: `val_NAME`."""
        return f"val_{self.name}"

    @property
    def test_column(self) -> str:
        """The same on the test split."""
        return f"test_{self.name}"

    @property
    def direction(self) -> Direction:
        """The mode as Optuna says it."""
        return "maximize" if self.mode == "max" else "minimize"

    @property
    def worst(self) -> float:
        """What any value is better than."""
        return -math.inf if self.mode == "max" else math.inf

    def score(self, value: float) -> float:
        """The value, or its negative where small values are best: higher is always better."""
        return value if self.mode == "max" else -value

    def better(self, value: float, other: float) -> bool:
        """Whether a value is better than another; one that is no number never is."""
        return self.score(value) > self.score(other)


def shown(name: str, value: float) -> str:
    """A metric's value as people read it.

    Args:
        name: A metric or a column; where it ends in `accuracy` its values are fractions, shown as per cent.
        value: Its value.
    """
    if math.isnan(value):
        return ""
    return f"{value:.2%}" if is_fraction(name) else f"{value:.4g}"


def shown_gain(name: str, value: float) -> str:
    """The difference of two values of a metric, with its sign: points of a percentage for an accuracy."""
    return f"{value * 100:+.2f}" if is_fraction(name) else f"{value:+.4g}"


def is_fraction(name: str) -> bool:
    """Whether a metric's values are shown as per cent."""
    return name.endswith("accuracy")
