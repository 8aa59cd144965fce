"""Measures a model on a split."""

from __future__ import annotations

from collections.abc import Mapping

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
    model.eval()
    totals = Totals(metrics)
    with torch.inference_mode():
        for batch, labels in samples.batches(batch_size(model, samples)):
            totals.add(model(batch).float(), labels)
    return totals.values(len(samples))
