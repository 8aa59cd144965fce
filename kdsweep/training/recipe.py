"""What determines a run's curve, beside the data and the teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kdsweep.tasks import Goal
from kdsweep.training.section import OptimizationSpec


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a run's curve, beside the data and the teacher.

    Attributes:
        model: A model's name.
        width: Multiplies its channels.
        options: Further arguments of the model.
        optimization: Epochs, optimizer, rate, schedule, precision.
        seed: Of weights, order and dropout.
        view_seed: Of the augmentation, one for all trials of a sweep.
        augment: How training samples are varied.
        method: The distillation method.
        method_params: Its parameters that differ from the defaults.
        alpha: Share of distillation in the loss, 0..1.
        alpha_schedule: How alpha goes from there to 0 over training, one of `shapes.SHAPES`.
        temperature_schedule: How a temperature that softens goes to 1, likewise.
        task_loss: What the labels are learnt with.
        task_loss_params: Its parameters that differ from the defaults.
        goal: By which an epoch is the best.
    """

    model: str
    width: float
    options: Mapping[str, Any]
    optimization: OptimizationSpec
    seed: int
    view_seed: int
    augment: str
    method: str = "none"
    method_params: Mapping[str, Any] = field(default_factory=dict)
    alpha: float = 0.0
    alpha_schedule: str = "constant"
    temperature_schedule: str = "constant"
    task_loss: str = "cross_entropy"
    task_loss_params: Mapping[str, Any] = field(default_factory=dict)
    goal: Goal = field(default_factory=Goal)
