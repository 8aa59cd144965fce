"""Which runs can train as one cohort. Does not import torch."""

from __future__ import annotations

import json
from collections.abc import Hashable

from kdsweep import methods
from kdsweep.params import named
from kdsweep.tasks.losses import LOSSES
from kdsweep.training.optimizers import OPTIMIZERS
from kdsweep.training.recipe import Recipe

# Settings of the optimization that members may differ in.
FREE = ("lr", "weight_decay", "clip_norm")


def cohort_key(recipe: Recipe) -> Hashable | None:
    """Return what the recipes of a cohort have in common, to group recipes by; None if the run trains alone.

    Members may differ in the learning rate, weight decay and gradient norm, in alpha (unless one has 0), and in the
    parameters of the method that `Method.stacks` names. Whether the model can be stacked is only known once it is
    built.
    """
    method_free = methods.stacks(recipe.method)
    optimizer, _ = named(recipe.optimization.optimizer)
    if method_free is None or not vars(OPTIMIZERS.find(optimizer)).get("stacks"):
        return None
    if "together" not in vars(LOSSES.find(recipe.task_loss)):
        return None
    values = methods.values(recipe.method, recipe.method_params)
    common = {
        term: {name: value for name, value in own.items() if name not in method_free[term]}
        for term, own in values.items()
    }
    settings = recipe.optimization.model_dump(exclude=set(FREE))
    same = {
        **{name: value for name, value in vars(recipe).items() if name not in ("method_params", "alpha")},
        "goal": vars(recipe.goal),
        "options": dict(recipe.options),
        "task_loss_params": dict(recipe.task_loss_params),
        "optimization": settings,
        "method_params": common,
        "distils": recipe.alpha != 0,
    }
    return json.dumps(same, sort_keys=True, default=str)
