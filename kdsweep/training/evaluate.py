"""Measures a model on a split."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from kdsweep.lazy import nn, torch
from kdsweep.tasks import Metric, Samples
from kdsweep.tasks.metrics.totals import Totals
from kdsweep.training.batches import batch_size


def evaluate(model: nn.Module, samples: Samples, metrics: Mapping[str, Metric]) -> dict[str, float]:
    """Compute a model's metrics in eval mode. Metrics are computed in float32, whatever the training precision.

    Sums accumulate on the device; the host synchronises once per metric, at the end.

    Args:
        model: A model that takes the batches of the split.
        samples: The split.
        metrics: The metrics to compute, by name.

    Returns:
        Metric values by name.

    Raises:
        MetricError: If a metric raises an error or does not return what it should.
    """
    return Evaluation(model, samples, metrics).run()


class Evaluation:
    """A repeated evaluation, for example after each epoch. The batch size is chosen once. See `evaluate`."""

    def __init__(self, model: nn.Module, samples: Samples, metrics: Mapping[str, Metric]):
        self._model, self._samples, self._metrics = model, samples, metrics

    def run(self) -> dict[str, float]:
        """Return the metric values by name."""
        self._model.eval()
        totals = Totals(self._metrics)
        with torch.inference_mode():
            for batch, labels in self._samples.batches(self._batch_size):
                totals.add(self._model(batch).float(), labels)
        return totals.values(len(self._samples))

    @cached_property
    def _batch_size(self) -> int:
        return batch_size(self._model, self._samples)
