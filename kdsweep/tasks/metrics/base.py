"""The metric interface, and comparison of trials by a metric."""

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
HALF_A_POINT = 0.005
# What a student costs, known without training it. Smaller is better.
COSTS = {
    "parameters": "number of parameters",
    "size_mb": "size of parameters and buffers in MiB",
    "latency_ms": "time for one sample in milliseconds, measured on a worker",
}


def mean(sums: torch.Tensor, count: int) -> float:
    """Divide a sum over samples by their number."""
    return float(sums) / count


@dataclass(frozen=True)
class Metric:
    """A number computed from a model's logits on a whole split.

    A metric is a function of a sum over the samples. Batches are summed on the device, and the result is read back
    once per split.

    Attributes:
        summary: One-line description.
        mode: Whether the largest or the smallest value is best.
        sums: `sums(float32 logits [B, C], labels [B]) -> tensor`, with the same shape for every batch. Batches are
            added up in float64. It must not synchronise with the device.
        value: `value(sums on the CPU, number of samples) -> float`; by default the mean.
        least_classes: Minimum number of classes; with fewer, the metric is meaningless and is rejected.
        margin: The largest difference that does not matter when gains are judged; 0 if there is no sensible value.
    """

    summary: str
    mode: Mode
    sums: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    value: Callable[[torch.Tensor, int], float] = mean
    least_classes: int = 2
    margin: float = 0.0


METRICS: Registry[Metric] = Registry("metric", "kdsweep.tasks.metrics")


def register(name: str, metric: Metric) -> Metric:
    """Register a metric; its result columns are `val_NAME` and `test_NAME`."""
    return METRICS.add(name, metric)


@dataclass(frozen=True)
class Goal:
    """The objective of a sweep: a metric and its direction.

    Attributes:
        metric: The metric as written in the sweep file: `val_NAME`, the user's own `package.module:NAME`, or a cost.
        mode: Whether the largest or the smallest value is best.
    """

    metric: str = DEFAULT_OBJECTIVE
    mode: Mode = "max"

    @property
    def name(self) -> str:
        """Name of the metric, without the split."""
        return self.metric.rpartition(":")[2].removeprefix("val_")

    @property
    def is_cost(self) -> bool:
        """Whether it is a cost, which does not depend on training."""
        return self.metric in COSTS

    @property
    def column(self) -> str:
        """Column of the metric in the results: `val_NAME`, or the cost."""
        return self.metric if self.is_cost else f"val_{self.name}"

    @property
    def test_column(self) -> str:
        """Column of the metric on the test split: `test_NAME`."""
        return f"test_{self.name}"

    @property
    def direction(self) -> Direction:
        """The mode in Optuna's terms."""
        return "maximize" if self.mode == "max" else "minimize"

    @property
    def worst(self) -> float:
        """The worst possible value: -inf or inf."""
        return -math.inf if self.mode == "max" else math.inf

    def score(self, value: float) -> float:
        """The value, negated if smaller is better, so that a higher score is always better."""
        return value if self.mode == "max" else -value

    def better(self, value: float, other: float) -> bool:
        """Whether `value` is better than `other`; NaN is never better."""
        return self.score(value) > self.score(other)


def shown(name: str, value: float) -> str:
    """Format a metric's value for display; NaN becomes an empty string.

    Args:
        name: Name of a metric or column; if it ends in `accuracy` or `agreement`, the value is a fraction and is shown
            as per cent.
        value: The value.
    """
    if math.isnan(value):
        return ""
    return f"{value:.2%}" if is_fraction(name) else f"{value:.4g}"


def shown_gain(name: str, value: float) -> str:
    """Format the difference of two values of a metric with its sign, in percentage points for a fraction."""
    return f"{value * 100:+.2f}" if is_fraction(name) else f"{value:+.4g}"


def is_fraction(name: str) -> bool:
    """Whether a metric's values are shown as per cent."""
    return name.endswith(("accuracy", "agreement"))
