"""Trackers: MLflow, TensorBoard and Weights & Biases. The driver follows the logs of a sweep and passes them on."""

from __future__ import annotations
