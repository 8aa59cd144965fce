"""Build the recipe of one training run from a sweep file."""

from __future__ import annotations

from typing import Any

from kdsweep import methods
from kdsweep.config.spec import SweepSpec
from kdsweep.distributions import Config
from kdsweep.seeds import derived_seed
from kdsweep.tasks.losses import LOSSES
from kdsweep.training.recipe import Recipe


def trial_recipe(spec: SweepSpec, config: Config, seed: int) -> Recipe:
    """Return the recipe of one configuration of a sweep."""
    train = spec.train.with_searched(config)
    student = spec.student_of(config)
    task_loss, task_loss_params = train.part(LOSSES, train.task_loss)
    return Recipe(
        model=student.model,
        width=float(config["width"]),
        options=student.options,
        optimization=train,
        seed=seed,
        view_seed=spec.seed,
        augment=spec.augment_of(config),
        views=spec.dataset.views,
        repeat_labelled=spec.dataset.unlabelled is not None,
        capture=train.capture,
        goal=spec.goal,
        metrics=spec.wanted_metrics,
        method=str(config["method"]),
        method_params=method_params(config),
        alpha=float(config.get("alpha", 0.0)),
        alpha_schedule=str(config.get("alpha_schedule", "constant")),
        temperature_schedule=str(config.get("temperature_schedule", "constant")),
        task_loss=task_loss,
        task_loss_params=task_loss_params,
    )


def teacher_recipe(spec: SweepSpec) -> Recipe:
    """Return the recipe for training the teacher."""
    teacher = spec.teacher
    return Recipe(
        model=teacher.model,
        width=teacher.width,
        options=teacher.options,
        optimization=teacher.train,
        seed=derived_seed(spec.seed, "teacher"),
        view_seed=spec.seed,
        augment=spec.augment,
        goal=spec.goal,
        metrics=spec.wanted_metrics,
    )


def method_params(config: Config) -> dict[str, Any]:
    """Return the parameters for `methods.create`: `term.name` for a sum of methods, `name` for a single one."""
    terms = methods.terms(str(config["method"]))
    params: dict[str, Any] = {}
    for key, value in config.items():
        term, dot, name = key.rpartition(".")
        if dot and term in terms:
            params[name if len(terms) == 1 else key] = value
    if "temperature" in config:
        softened = [term for term in terms if methods.softens(term)]
        names = ["temperature"] if len(terms) == 1 else [f"{term}.temperature" for term in softened]
        params = dict.fromkeys(names, config["temperature"]) | params
    return params
