"""Opens the sweeps of the benchmarks in this process, and makes runs of a few steps of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sweeps
import torch

from kdsweep import tasks
from kdsweep.config.recipes import trial_recipe
from kdsweep.distributions import Config
from kdsweep.training.cohort import Cohort
from kdsweep.training.trainer import Training
from kdsweep.worker.workbench import Workbench, provide_teacher

SEED = 0


def opened(values: Mapping[str, Any], folder: Path, device: torch.device) -> Workbench:
    """Prepare the data and the teacher of a sweep, unless that is done, and open it on a device."""
    spec = sweeps.spec_of(values, folder)
    data = tasks.of(spec.dataset).prepare(spec.dataset, spec.seed, spec.sweep_dir.store)
    provide_teacher(spec, spec.sweep_dir, data, device, lambda metrics: None)
    return Workbench.of(spec, spec.sweep_dir, data, device)


def training(bench: Workbench, config: Config, steps: int, val: int = 2) -> Training:
    """Create a run of a few steps per epoch that validates on a few images."""
    recipe = trial_recipe(bench.spec, config, SEED)
    train = bench.train.first(steps * recipe.optimization.batch_size)
    return Training(recipe, bench.data, train, bench.val.first(val), bench.source(recipe, config))


def cohort(bench: Workbench, configs: Sequence[Config], steps: int, val: int = 2) -> Cohort:
    """Create such runs as one computation."""
    recipes = [trial_recipe(bench.spec, config, SEED) for config in configs]
    train = bench.train.first(steps * recipes[0].optimization.batch_size)
    source = bench.source(recipes[0], configs[0])
    return Cohort(recipes, bench.data, train, bench.val.first(val), source)


def members(count: int, **shared: Any) -> list[dict[str, Any]]:
    """Configurations of kd that differ as trials of a search do."""
    return [{"method": "kd", **values, **shared} for values in sweeps.configurations(count)]
