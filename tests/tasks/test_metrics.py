"""Each metric, batch by batch, against NumPy on the whole split."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from kdsweep.tasks.arrays import Arrays
from kdsweep.tasks.metrics import METRICS, Goal, shown, shown_gain
from kdsweep.training.evaluate import evaluate

COUNT, CLASSES = 300, 8


@pytest.fixture(scope="module")
def judged():
    """Logits [N, C] and labels [N] of three batches, the last class without a sample."""
    draw = np.random.default_rng(0)
    labels = draw.integers(CLASSES - 1, size=COUNT)
    logits = draw.normal(size=(COUNT, CLASSES)) * 2
    logits[np.arange(COUNT), labels] += 1.5
    return logits.astype(np.float32), labels


def by_kdsweep(logits, labels):
    split = Arrays(torch.from_numpy(logits), torch.from_numpy(labels))
    return evaluate(nn.Identity(), split, {name: METRICS[name] for name in METRICS})


def test_every_metric_is_its_formula_over_the_whole_split(judged):
    logits, labels = judged
    odds = np.exp(logits.astype(np.float64))
    p = odds / odds.sum(1, keepdims=True)
    right = p.argmax(1) == labels
    confidence = p.max(1)
    ece = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            ece += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    expected = {
        "accuracy": right.mean(),
        "top5_accuracy": np.mean([label in row.argsort()[-5:] for row, label in zip(logits, labels, strict=True)]),
        "balanced_accuracy": np.mean([right[labels == c].mean() for c in range(CLASSES - 1)]),
        "loss": -np.log(p[np.arange(COUNT), labels]).mean(),
        "ece": ece,
    }
    assert by_kdsweep(logits, labels) == {name: pytest.approx(value, rel=1e-5) for name, value in expected.items()}


def test_certain_and_right_answers_are_perfect_by_every_metric():
    labels = np.arange(CLASSES).repeat(40)
    found = by_kdsweep(np.eye(CLASSES, dtype=np.float32)[labels] * 100, labels)
    for name, value in found.items():
        assert value == pytest.approx(1.0 if METRICS[name].mode == "max" else 0.0), name


def test_small_values_are_better_where_the_mode_says_so():
    loss, accuracy = Goal("val_loss", "min"), Goal()
    assert (loss.column, loss.test_column) == ("val_loss", "test_loss")
    assert Goal("my_metrics:worst", "max").column == "val_worst"
    assert loss.better(0.5, 1.0)
    assert accuracy.better(1.0, 0.5)
    for goal in (loss, accuracy):
        assert goal.better(0.5, goal.worst)
        assert not goal.better(math.nan, goal.worst)
        assert not goal.better(0.5, 0.5)
    assert (loss.direction, accuracy.direction) == ("minimize", "maximize")


def test_accuracies_are_shown_as_per_cent_and_other_metrics_as_numbers():
    assert (shown("val_top5_accuracy", 0.5), shown("val_loss", 0.5), shown("val_loss", math.nan)) == (
        "50.00%",
        "0.5",
        "",
    )
    assert (shown_gain("test_accuracy", 0.012), shown_gain("test_loss", -0.012)) == ("+1.20", "-0.012")
