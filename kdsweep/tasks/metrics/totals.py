"""Adds up metrics over batches. A metric may be the user's own code, so its faults become errors of one line."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from kdsweep.errors import MetricError
from kdsweep.lazy import torch
from kdsweep.tasks.metrics.base import Metric
from kdsweep.words import kind_of

SEED = 0


class Totals:
    """Sums of metrics over the batches of one split. They stay on the device until `values` reads them.

    Args:
        metrics: The metrics, by name.
    """

    def __init__(self, metrics: Mapping[str, Metric]):
        self._metrics = metrics
        self._sums: dict[str, torch.Tensor] = {}

    def add(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Add one batch: float32 logits [B, C] and labels [B].

        Raises:
            MetricError: If `sums` raises an error or returns no tensor, or one of another shape than before.
        """
        for name, metric in self._metrics.items():
            with _blamed(name, "sums"):
                added = metric.sums(logits, labels)
            if not isinstance(added, torch.Tensor):
                raise MetricError(f"metric {name!r}: sums returned {kind_of(added)}; accepted: a tensor")
            total = self._sums.get(name)
            if total is not None and total.shape != added.shape:
                raise MetricError(
                    f"metric {name!r}: sums returned shapes {list(total.shape)} and {list(added.shape)} for batches "
                    "of different sizes; accepted: one shape, summed over the samples"
                )
            self._sums[name] = added.double() if total is None else total + added

    def values(self, count: int) -> dict[str, float]:
        """Return the value of each metric. The host synchronises once per metric.

        Args:
            count: Number of samples.

        Raises:
            MetricError: If `value` raises an error or does not return a number.
        """
        found: dict[str, float] = {}
        for name, metric in self._metrics.items():
            sums = self._sums[name].cpu()
            with _blamed(name, "value"):
                found[name] = float(metric.value(sums, count))
        return found


def fault(name: str, metric: Metric, num_classes: int) -> str:
    """Compute a metric on random logits in two batches of different sizes; return what is wrong, or an empty string.

    Args:
        name: Name of the metric.
        metric: The metric.
        num_classes: Number of classes; each has at least two samples.
    """
    generator = torch.Generator().manual_seed(SEED)
    labels = torch.arange(2 * num_classes + 3) % num_classes
    logits = torch.randn(len(labels), num_classes, generator=generator)
    totals = Totals({name: metric})
    try:
        for batch in (slice(0, -3), slice(-3, None)):
            totals.add(logits[batch], labels[batch])
        value = totals.values(len(labels))[name]
    except MetricError as error:
        return str(error)
    if not math.isfinite(value):
        return f"metric {name!r}: {value} for random logits of {num_classes} classes; accepted: a finite number"
    return ""


@contextmanager
def _blamed(name: str, function: str) -> Iterator[None]:
    """Report an error of a metric's function in one line; out of memory is not its fault."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # the user's code may raise anything
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise MetricError(f"metric {name!r}: {function} raised {what}") from error
