"""Measures a model on a split."""

from __future__ import annotations

from collections.abc import Mapping

from kdsweep.lazy import nn, torch
from kdsweep.tasks import Metric, Samples
from kdsweep.tasks.metrics.totals import Totals

# Batch size by device type. A CPU is twice as fast when the activations fit in its caches.
EVALUATION_BATCH = {"cpu": 128, "cuda": 2048}


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
        for batch, labels in samples.batches(EVALUATION_BATCH[samples.device.type]):
            totals.add(model(batch).float(), labels)
    return totals.values(len(samples))
