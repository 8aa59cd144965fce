"""What a worker measures of a student, besides its training."""

from __future__ import annotations

from kdsweep.distributions import Config
from kdsweep.lazy import nn, torch
from kdsweep.models import count_parameters, size_mb
from kdsweep.storage.paths import SweepDir
from kdsweep.tasks import Metric
from kdsweep.tasks.metrics import METRICS
from kdsweep.training.evaluate import evaluate
from kdsweep.training.trainer import Training
from kdsweep.worker import latency
from kdsweep.worker.workbench import Workbench


def sizes(training: Training, bench: Workbench) -> dict[str, float]:
    """Return the size of the model that is evaluated and exported, and its operations for one sample."""
    return {
        "parameters": count_parameters(training.inference),
        "size_mb": size_mb(training.inference),
        "flops": bench.flops(training),
    }


def speed(bench: Workbench, training: Training, sweep: SweepDir) -> dict[str, float]:
    """Return the latency of the student if the sweep has it as an objective."""
    if all(goal.column != "latency_ms" for goal in bench.spec.goals):
        return {}
    sample = bench.val.batch(torch.zeros(1, dtype=torch.long, device=bench.val.device))
    return {"latency_ms": latency.latency_ms(sweep, training.inference, sample)}


def tested(bench: Workbench, model: nn.Module) -> dict[str, float]:
    """Return the model's metrics on the test split; if only that has labels, also the accuracy."""
    measured = evaluate(model, bench.test, metrics_of(bench))
    if bench.data.task.label_free:
        test = bench.data.split("test", bench.device)
        if int(test.labels.min()) >= 0:
            measured |= evaluate(model, test, {"accuracy": METRICS["accuracy"]})
    return {f"test_{name}": value for name, value in measured.items()}


def not_measured(bench: Workbench) -> dict[str, float]:
    """NaN for everything that a confirmation run measures after training."""
    return dict.fromkeys((bench.spec.goal.column, *(f"test_{name}" for name in metrics_of(bench))), float("nan"))


def agreement(bench: Workbench, model: nn.Module, config: Config) -> dict[str, float]:
    """Return the share of test samples that a student classifies as its teacher does, if the sweep has several.

    Of an ensemble, also return its own objective on the validation split. Empty for plain students, and for tasks whose
    logits are no classes.
    """
    if "teacher" not in config or not bench.spec.teachers:
        return {}
    found = {"test_agreement": bench.agreement(model, config)}
    if len(bench.teachers_of(config)) > 1:
        found[f"teacher_{bench.spec.goal.column}"] = bench.ensemble_value(config)
    return found


def metrics_of(bench: Workbench) -> dict[str, Metric]:
    """Return the metrics of the sweep by name."""
    return bench.data.task.measured(bench.spec.wanted_metrics, bench.data.num_classes)
