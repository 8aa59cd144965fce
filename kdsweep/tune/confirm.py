"""Confirmation: the best configurations again, on fresh seeds, beside plain students, and now on the test split."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import ray

from kdsweep.config.spec import SweepSpec
from kdsweep.distributions import Config
from kdsweep.errors import KdsweepError
from kdsweep.models import count_parameters, size_mb
from kdsweep.results.frames import Results
from kdsweep.search.space import OF_DISTILLATION
from kdsweep.seeds import derived_seed, digest_of
from kdsweep.storage.files import write_json
from kdsweep.storage.paths import SweepDir
from kdsweep.training.evaluate import evaluate
from kdsweep.training.trainer import run_through
from kdsweep.tune.cluster import Share
from kdsweep.tune.lease import warm_workbench
from kdsweep.worker.place import WorkerPlace

Measured = dict[str, float]


@dataclass(frozen=True)
class Run:
    """One training of the confirmation.

    Attributes:
        config: The configuration.
        seed: Of weights, order and dropout.
    """

    config: Config
    seed: int

    @property
    def name(self) -> str:
        """Its folder."""
        return f"{digest_of(self.config)[:12]}-{self.seed}"


@dataclass(frozen=True)
class Chosen:
    """One configuration to confirm.

    Attributes:
        key: Its trial.
        config: The configuration.
        twin: The same settings without distillation.
        tuned: Of the sweep's plain trials of its width, the best; None where there was none.
    """

    key: str
    config: Config
    twin: Config
    tuned: Config | None

    @classmethod
    def of(cls, results: Results, key: str) -> Chosen:
        """A trial of a sweep."""
        config = results.config(key)
        plain = results.plain(width=float(config["width"]))
        tuned = results.config(str(plain["trial"][0])) if len(plain) else None
        return cls(key, config, plain_twin(config), tuned)

    def settings(self) -> list[Config]:
        """What is trained for it."""
        return [self.config, self.twin] + ([self.tuned] if self.tuned else [])


def plain_twin(config: Config) -> Config:
    """The same settings without distillation."""
    kept = {key: value for key, value in config.items() if "." not in key and key not in OF_DISTILLATION}
    return {**kept, "method": "none"}


def confirm(
    spec: SweepSpec,
    sweep: SweepDir,
    place: WorkerPlace,
    chosen: list[Chosen],
    share: Share,
    on_done: Callable[[int, int], None],
) -> pd.DataFrame:
    """Train the chosen configurations and their plain students on fresh seeds, and score each once on the test split.

    Args:
        spec: The sweep.
        sweep: Its directory; runs found there are not repeated.
        place: Where a worker finds it, its data (the test split among it) and the user's code.
        chosen: The best first.
        share: What one run takes of the cluster.
        on_done: Hears how many of the runs are done.

    Returns:
        One row per configuration, as `Results.confirmed` describes it.
    """
    seeds = [derived_seed(spec.seed, "confirm", number) % 2**31 for number in range(spec.confirm.seeds)]
    runs = [Run(config, seed) for one in chosen for config in one.settings() for seed in seeds]
    wanted = {run.name: run for run in runs}
    results = {name: found for name in wanted if (found := _result(sweep, name))}
    on_done(len(results), len(wanted))
    resources: dict[str, Any] = {"num_cpus": share.cpus, "num_gpus": share.gpus, "max_retries": 3}
    train, judge_teacher = ray.remote(**resources)(_train), ray.remote(**resources)(_judge_teacher)
    missing = [(name, run) for name, run in wanted.items() if name not in results]
    pending: dict[Any, str] = {train.remote(place, run.config, run.seed): name for name, run in missing}
    if not sweep.teacher_test.is_file():
        pending[judge_teacher.remote(place)] = ""
    while pending:
        (ready,), _ = ray.wait(list(pending), num_returns=1)
        if name := pending.pop(ready):
            results[name] = ray.get(ready)
            on_done(len(results), len(wanted))
        else:
            ray.get(ready)
    return pd.DataFrame([_row(one, seeds, results) for one in chosen])


def _row(chosen: Chosen, seeds: list[int], results: Mapping[str, Measured]) -> dict[str, Any]:
    def measured(config: Config) -> pd.DataFrame:
        return pd.DataFrame([results[Run(config, seed).name] for seed in seeds])

    ours, plain = measured(chosen.config), measured(chosen.twin)
    row: dict[str, Any] = {
        "trial": chosen.key,
        **chosen.config,
        "seeds": len(seeds),
        "parameters": int(ours["parameters"].iloc[0]),
        "size_mb": float(ours["size_mb"].iloc[0]),
        "first_layer_norm": float(ours["first_layer_norm"].iloc[0]),
        "val_accuracy": ours["val_accuracy"].mean(skipna=False),
    }
    row |= _spread("test_accuracy", ours["test_accuracy"])
    row |= _spread("plain_test_accuracy", plain["test_accuracy"])
    row |= _spread("kd_gain", ours["test_accuracy"] - plain["test_accuracy"])
    row["within_noise"] = _within_noise(row["kd_gain"], row["kd_gain_std"])
    tuned = measured(chosen.tuned)["test_accuracy"] if chosen.tuned else pd.Series(float("nan"), ours.index)
    row["tuned_plain_lr"] = float(chosen.tuned["lr"]) if chosen.tuned and "lr" in chosen.tuned else float("nan")
    row |= _spread("tuned_plain_test_accuracy", tuned)
    row |= _spread("kd_gain_tuned", ours["test_accuracy"] - tuned)
    row["within_noise_tuned"] = _within_noise(row["kd_gain_tuned"], row["kd_gain_tuned_std"])
    return row


def _spread(name: str, values: pd.Series) -> dict[str, float]:
    """Mean and sample standard deviation over seeds; a seed that failed leaves both unknown."""
    std = values.std(ddof=1, skipna=False) if len(values) > 1 else float("nan")
    return {name: float(values.mean(skipna=False)), f"{name}_std": float(std)}


def _within_noise(gain: float, std: float) -> bool:
    """Whether a gain is no larger than its spread over seeds; with one seed nobody knows, so it is."""
    return not abs(gain) > std


def _result(sweep: SweepDir, name: str) -> Measured:
    path = sweep.confirmation(name).result
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def _train(place: WorkerPlace, config: Config, seed: int) -> Measured:
    """One run, and its one look at the test split."""
    sweep, bench = place.sweep, warm_workbench(place)
    folder = sweep.confirmation(Run(config, seed).name)
    training = bench.training(config, seed, folder.state)
    student = training.inference
    measured = {
        "parameters": count_parameters(student),
        "size_mb": size_mb(student),
        "first_layer_norm": training.first_layer_norm,
        "epochs": training.recipe.optimization.epochs,
    }
    try:
        run_through(training, folder.state, lambda metrics: None)
    except KdsweepError:  # it diverged on this seed, which is a result too
        measured |= dict.fromkeys(("val_accuracy", "test_accuracy", "test_loss"), float("nan"))
    else:
        training.restore_best()
        test_accuracy, test_loss = evaluate(student, bench.test)
        measured |= {
            "val_accuracy": training.best_accuracy,
            "test_accuracy": test_accuracy,
            "test_loss": test_loss,
        }
    write_json(folder.result, measured)
    return measured


def _judge_teacher(place: WorkerPlace) -> None:
    """The teacher's one look at the test split."""
    sweep, bench = place.sweep, warm_workbench(place)
    accuracy, loss = evaluate(bench.teacher.model, bench.test)
    write_json(sweep.teacher_test, {"test_accuracy": accuracy, "test_loss": loss})
