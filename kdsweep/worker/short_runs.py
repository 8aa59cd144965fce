"""Runs of a few steps per epoch, for measurements."""

from __future__ import annotations

import time
from dataclasses import replace

from kdsweep.config.recipes import trial_recipe
from kdsweep.config.spec import SweepSpec
from kdsweep.distributions import Config
from kdsweep.tasks import Samples
from kdsweep.training.cohort import Cohort
from kdsweep.training.recipe import Recipe
from kdsweep.training.teaching import NoTeacher
from kdsweep.training.trainer import Training
from kdsweep.worker.workbench import Workbench

STEPS = 4  # of an epoch
CAPTURED_STEPS = 64  # the same where steps are captured: the first two of an epoch are not replayed
SECONDS = 1.0  # of a measurement


def short(spec: SweepSpec, bench: Workbench, config: Config, val: Samples, teacher: bool = True) -> Training:
    """Create a run with a few steps per epoch, validated on `val`; without a teacher if `teacher` is False."""
    recipe, train = _few_steps(spec, bench, config)
    return Training(
        recipe, bench.data, train, val, bench.source(recipe, config) if teacher else NoTeacher(bench.device)
    )


def short_together(spec: SweepSpec, bench: Workbench, config: Config, val: Samples, size: int) -> Training | Cohort:
    """Create `size` equal runs with a few steps per epoch, which train as one; a single one trains alone."""
    if size == 1:
        return short(spec, bench, config, val)
    recipe, train = _few_steps(spec, bench, config)
    return Cohort([recipe] * size, bench.data, train, val, bench.source(recipe, config))


def steps_of(spec: SweepSpec, bench: Workbench, config: Config) -> int:
    """Return the number of steps of a short epoch."""
    batch_size = trial_recipe(spec, config, seed=0).optimization.batch_size
    return max(1, min(CAPTURED_STEPS if spec.train.capture else STEPS, len(bench.train) // batch_size))


def timed(training: Training | Cohort) -> float:
    """Return the seconds of an epoch."""
    started = time.perf_counter()
    training.run_epoch()
    return time.perf_counter() - started


def _few_steps(spec: SweepSpec, bench: Workbench, config: Config) -> tuple[Recipe, Samples]:
    """Return a configuration's recipe, for many epochs, and the training samples of a short epoch."""
    recipe = trial_recipe(spec, config, seed=0)
    recipe = replace(recipe, optimization=recipe.optimization.model_copy(update={"epochs": 1_000_000}))
    return recipe, bench.train.first(steps_of(spec, bench, config) * recipe.optimization.batch_size)
