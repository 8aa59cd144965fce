"""Each metric, batch by batch, against NumPy on the whole split."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from kdsweep.errors import MetricError
from kdsweep.tasks import Metric, Task
from kdsweep.tasks.arrays import Arrays
from kdsweep.tasks.metrics import METRICS, Goal, shown, shown_gain
from kdsweep.tasks.metrics.totals import Totals, fault
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


def test_a_metric_is_its_formula_over_the_whole_split(judged):
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
    found = by_kdsweep(logits, labels)
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-5)


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


def test_metrics_of_four_samples_worked_out_by_hand():
    # Probabilities 0.7, 0.1, 0.1 and 0.05, 0.03, 0.02 in an order that puts the label of the last sample sixth.
    p = np.array([0.7, 0.1, 0.1, 0.05, 0.03, 0.02])
    labels = np.array([0, 0, 0, 5])
    found = by_kdsweep(np.log(np.tile(p, (4, 1))).astype(np.float32), labels)
    assert found["accuracy"] == 0.75
    assert found["top5_accuracy"] == 0.75
    assert found["balanced_accuracy"] == 0.5  # all of class 0, none of class 5, no sample of the others
    assert found["loss"] == pytest.approx(-(3 * math.log(0.7) + math.log(0.02)) / 4, rel=1e-6)  # 1.24551
    assert found["ece"] == pytest.approx(0.05, abs=1e-6)  # one bin: accuracy 0.75, confidence 0.7


def test_metrics_that_need_more_classes_are_left_out_unless_the_sweep_asks_for_them():
    task = Task()
    assert list(task.measured((), 6)) == ["accuracy", "loss", "top5_accuracy", "balanced_accuracy", "ece"]
    assert list(task.measured((), 5)) == ["accuracy", "loss", "balanced_accuracy", "ece"]
    assert "top5_accuracy" in task.measured(("val_top5_accuracy",), 5)


def right(logits, labels):
    return (logits.argmax(dim=1) == labels).sum()


def failing(*_):
    raise RuntimeError("no such\nthing")


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (Metric("", "max", failing), "metric 'own': sums raised RuntimeError: no such thing"),
        (Metric("", "max", lambda logits, labels: 3.0), "metric 'own': sums returned a float; accepted: a tensor"),
        (
            Metric("", "max", lambda logits, labels: logits.argmax(dim=1) == labels),
            "metric 'own': sums returned shapes [20] and [3] for batches of different sizes; accepted: one shape, "
            "summed over the samples",
        ),
        (Metric("", "max", right, failing), "metric 'own': value raised RuntimeError: no such thing"),
        (Metric("", "max", right, lambda sums, count: "x"), "metric 'own': value raised ValueError: could not convert"),
        (
            Metric("", "max", right, lambda sums, count: math.inf),
            "metric 'own': inf for random logits of 10 classes; accepted: a finite number",
        ),
    ],
)
def test_a_metric_of_ones_own_that_cannot_be_computed_is_explained_in_one_line(metric, message):
    found = fault("own", metric, 10)
    assert found.startswith(message)
    assert "\n" not in found
    assert fault("own", Metric("", "max", right), 10) == ""


def test_an_evaluation_names_the_metric_that_fails():
    totals = Totals({"own": Metric("", "max", failing)})
    with pytest.raises(MetricError, match="metric 'own': sums raised RuntimeError: no such thing"):
        totals.add(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long))
