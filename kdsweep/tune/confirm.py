"""Confirmation: the best configurations again, on fresh seeds, beside plain students, and now on the test split."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import ray
import torch

from kdsweep import tasks
from kdsweep.config.spec import SweepSpec, read_spec
from kdsweep.distributions import Config
from kdsweep.errors import KdsweepError
from kdsweep.models import count_parameters, size_mb
from kdsweep.registry import import_from
from kdsweep.results.frames import Results
from kdsweep.search.space import OF_DISTILLATION
from kdsweep.seeds import derived_seed, digest_of
from kdsweep.storage.files import write_json
from kdsweep.storage.paths import SweepDir
from kdsweep.tasks import Goal
from kdsweep.training.evaluate import evaluate
from kdsweep.training.trainer import run_through
from kdsweep.tune.cluster import Share
from kdsweep.worker import process
from kdsweep.worker.workbench import Workbench, open_workbench

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
    places: dict[str, str],
    chosen: list[Chosen],
    share: Share,
    on_done: Callable[[int, int], None],
) -> pd.DataFrame:
    """Train the chosen configurations and their plain students on fresh seeds, and score each once on the test split.

    Args:
        spec: The sweep.
        sweep: Its directory; runs found there are not repeated.
        places: Where a worker finds it, its data (the test split among it) and the user's code.
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
    pending: dict[Any, str] = {train.remote(places, run.config, run.seed): name for name, run in missing}
    if not sweep.teacher_test.is_file():
        pending[judge_teacher.remote(places)] = ""
    while pending:
        (ready,), _ = ray.wait(list(pending), num_returns=1)
        if name := pending.pop(ready):
            results[name] = ray.get(ready)
            on_done(len(results), len(wanted))
        else:
            ray.get(ready)
    return pd.DataFrame([_row(one, seeds, results, spec.goal) for one in chosen])


def _row(chosen: Chosen, seeds: list[int], results: Mapping[str, Measured], goal: Goal) -> dict[str, Any]:
    def measured(config: Config) -> pd.DataFrame:
        return pd.DataFrame([results[Run(config, seed).name] for seed in seeds])

    test = goal.test_column
    ours, plain = measured(chosen.config), measured(chosen.twin)
    row: dict[str, Any] = {
        "trial": chosen.key,
        **chosen.config,
        "seeds": len(seeds),
        "parameters": int(ours["parameters"].iloc[0]),
        "size_mb": float(ours["size_mb"].iloc[0]),
        "first_layer_norm": float(ours["first_layer_norm"].iloc[0]),
        goal.column: ours[goal.column].mean(skipna=False),
    }
    row |= _spread(test, ours[test])
    row |= _spread(f"plain_{test}", plain[test])
    row |= _spread("kd_gain", goal.score(1.0) * (ours[test] - plain[test]))
    row["within_noise"] = _within_noise(row["kd_gain"], row["kd_gain_std"])
    tuned = measured(chosen.tuned)[test] if chosen.tuned else pd.Series(float("nan"), ours.index)
    row["tuned_plain_lr"] = float(chosen.tuned["lr"]) if chosen.tuned and "lr" in chosen.tuned else float("nan")
    row |= _spread(f"tuned_plain_{test}", tuned)
    row |= _spread("kd_gain_tuned", goal.score(1.0) * (ours[test] - tuned))
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


_open: dict[str, Workbench] = {}


def _bench(places: dict[str, str]) -> tuple[SweepDir, Workbench]:
    """The sweep's workbench, in a worker that keeps it between runs."""
    import_from(places["code"])
    sweep = SweepDir(Path(places["sweep"]))
    if places["sweep"] not in _open:
        spec = read_spec(sweep)
        process.set_up(spec.resources.cpus_per_trial)
        gpu = ray.get_gpu_ids() and torch.cuda.is_available()
        data = tasks.of(spec.dataset).load(Path(places["data"]))
        _open[places["sweep"]] = open_workbench(spec, sweep, data, torch.device("cuda" if gpu else "cpu"))
    return sweep, _open[places["sweep"]]


def _train(places: dict[str, str], config: Config, seed: int) -> Measured:
    """One run, and its one look at the test split."""
    sweep, bench = _bench(places)
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
        metrics = bench.data.task.measured(bench.spec.goal)
        measured |= dict.fromkeys((bench.spec.goal.column, *(f"test_{name}" for name in metrics)), float("nan"))
    else:
        training.restore_best()
        measured |= {bench.spec.goal.column: training.best_value} | _tested(bench, student)
    write_json(folder.result, measured)
    return measured


def _judge_teacher(places: dict[str, str]) -> None:
    """The teacher's one look at the test split."""
    sweep, bench = _bench(places)
    write_json(sweep.teacher_test, _tested(bench, bench.teacher.model))


def _tested(bench: Workbench, model: torch.nn.Module) -> Measured:
    """A model's metrics on the test split."""
    measured = evaluate(model, bench.test, bench.data.task.measured(bench.spec.goal))
    return {f"test_{name}": value for name, value in measured.items()}
