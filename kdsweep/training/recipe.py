"""The settings of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kdsweep.tasks import Goal
from kdsweep.training.section import OptimizationSpec


def view_number(epoch: int, views: int) -> int:
    """Return the number of an epoch's view, both counted from 1, in a pool of `views`; 0 stands for no limit."""
    return (epoch - 1) % views + 1 if views else epoch


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a run's learning curve, apart from the data and the teacher.

    Attributes:
        model: The model's name.
        width: Multiplier of the model's channels.
        options: Further arguments of the model.
        optimization: Epochs, optimizer, learning rate, schedule and precision.
        seed: Seed of the initial weights, the sample order and dropout.
        view_seed: Seed of the augmentation, shared by all trials of a sweep.
        augment: The augmentation of the training samples, as text.
        views: Number of views that the epochs cycle through; 0 draws a new one in every epoch.
        repeat_labelled: Whether a run without distillation repeats the samples with labels, so that it takes as many
            steps per epoch as one that also distils from unlabelled samples.
        capture: Whether the steps are captured where that is possible; see `training.captured`.
        method: The distillation method.
        method_params: The method's parameters that differ from the defaults.
        alpha: Share of distillation in the loss, 0..1.
        alpha_schedule: How alpha decays to 0 during training, one of `shapes.SHAPES`.
        temperature_schedule: How a softening temperature decays to 1 during training, one of `shapes.SHAPES`.
        task_loss: The loss on the labels.
        task_loss_params: The task loss's parameters that differ from the defaults.
        goal: The objective that picks the best epoch.
        metrics: Further metrics to measure, as written in the sweep file.
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
    metrics: tuple[str, ...] = ()
    views: int = 0
    repeat_labelled: bool = False
    capture: bool = False
