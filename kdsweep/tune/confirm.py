"""Confirmation: the best configurations trained again from fresh seeds, each beside its plain twin."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import ray
import torch

from kdsweep.arrays import write_json
from kdsweep.data import PreparedData
from kdsweep.layout import SweepDir
from kdsweep.models import count_parameters, size_mb
from kdsweep.registry import import_from
from kdsweep.seeds import derived_seed, digest_of
from kdsweep.space import Config
from kdsweep.spec import SweepSpec, read_spec
from kdsweep.training import evaluate, run_through
from kdsweep.tune.cluster import Share
from kdsweep.workbench import Workbench, open_workbench


@dataclass(frozen=True)
class Run:
    """One training of the confirmation.

    Attributes:
        name: Its folder.
        config: The configuration.
        seed: Of weights, order and dropout.
    """

    name: str
    config: Config
    seed: int


def plain_twin(config: Config) -> Config:
    """The same settings without distillation."""
    kept = {key: value for key, value in config.items() if "." not in key and key not in ("alpha", "temperature")}
    return {**kept, "method": "none"}


def confirm(
    spec: SweepSpec,
    sweep: SweepDir,
    places: dict[str, str],
    chosen: Mapping[str, Config],
    share: Share,
    on_done: Callable[[int, int], None],
) -> pd.DataFrame:
    """Train the chosen configurations and their plain twins on fresh seeds, and score each once on the test split.

    Args:
        spec: The sweep.
        sweep: Its directory; runs found there are not repeated.
        places: Where a worker finds it, its data (the test split among it) and the user's code.
        chosen: Configurations by trial key, the best first.
        share: What one run takes of the cluster.
        on_done: Hears how many of the runs are done.

    Returns:
        One row per chosen trial; accuracies are means over seeds, `_std` their spread, `kd_gain` is paired by seed.
    """
    seeds = [derived_seed(spec.seed, "confirm", number) % 2**31 for number in range(spec.confirm.seeds)]
    wanted: dict[str, Run] = {}
    for config in chosen.values():
        for settings in (config, plain_twin(config)):
            for seed in seeds:
                run = Run(f"{digest_of(settings)[:12]}-{seed}", settings, seed)
                wanted[run.name] = run
    results = {name: found for name in wanted if (found := _result(sweep, name))}
    on_done(len(results), len(wanted))
    train = ray.remote(num_cpus=share.cpus, num_gpus=share.gpus, max_retries=3)(_train)
    pending = {
        train.remote(places, run.name, run.config, run.seed): run.name
        for run in wanted.values()
        if run.name not in results
    }
    while pending:
        (ready,), _ = ray.wait(list(pending), num_returns=1)
        results[pending.pop(ready)] = ray.get(ready)
        on_done(len(results), len(wanted))
    return pd.DataFrame([_row(key, config, seeds, results) for key, config in chosen.items()])


def _row(key: str, config: Config, seeds: list[int], results: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    ours = pd.DataFrame([results[f"{digest_of(config)[:12]}-{seed}"] for seed in seeds])
    plain = pd.DataFrame([results[f"{digest_of(plain_twin(config))[:12]}-{seed}"] for seed in seeds])
    gain = ours["test_accuracy"] - plain["test_accuracy"]
    return {
        "trial": key,
        **config,
        "seeds": len(seeds),
        "parameters": int(ours["parameters"].iloc[0]),
        "size_mb": float(ours["size_mb"].iloc[0]),
        "val_accuracy": ours["val_accuracy"].mean(),
        "test_accuracy": ours["test_accuracy"].mean(),
        "test_accuracy_std": ours["test_accuracy"].std(ddof=1) if len(seeds) > 1 else float("nan"),
        "plain_test_accuracy": plain["test_accuracy"].mean(),
        "plain_test_accuracy_std": plain["test_accuracy"].std(ddof=1) if len(seeds) > 1 else float("nan"),
        "kd_gain": gain.mean(),
        "kd_gain_std": gain.std(ddof=1) if len(seeds) > 1 else float("nan"),
    }


def _result(sweep: SweepDir, name: str) -> dict[str, float]:
    path = sweep.confirmation(name).result
    return dict(json.loads(path.read_text())) if path.is_file() else {}


_open: dict[str, Workbench] = {}


def _train(places: dict[str, str], name: str, config: Config, seed: int) -> dict[str, float]:
    """One run, in a worker that keeps the data between runs."""
    import_from(places["code"])
    sweep = SweepDir(Path(places["sweep"]))
    spec = read_spec(sweep)
    torch.set_num_threads(spec.resources.cpus_per_trial)
    if places["sweep"] not in _open:
        gpu = ray.get_gpu_ids() and torch.cuda.is_available()
        data = PreparedData.load(Path(places["data"]))
        _open[places["sweep"]] = open_workbench(spec, sweep, data, torch.device("cuda" if gpu else "cpu"))
    bench = _open[places["sweep"]]
    state = sweep.confirmation(name).state
    training = bench.training(config, seed, state)
    run_through(training, state, lambda metrics: None)
    training.restore_best()
    test_accuracy, test_loss = evaluate(training.inference, bench.test)
    result = {
        "val_accuracy": training.best_accuracy,
        "test_accuracy": test_accuracy,
        "test_loss": test_loss,
        "parameters": count_parameters(training.inference),
        "size_mb": size_mb(training.inference),
    }
    write_json(sweep.confirmation(name).result, result)
    return result
