"""The sections `train` and `teacher.train` of a sweep file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kdsweep.section import Count, Rate, Section, Weight

Optimizer = Literal["adam", "adamw", "amsgrad", "sgd"]
Schedule = Literal["constant", "cosine", "step"]
Precision = Literal["auto", "float32", "bfloat16"]


class OptimizationSpec(Section):
    """How weights are trained; also how a teacher without a checkpoint is, once.

    Attributes:
        epochs: The full budget; also the horizon of the learning-rate schedule, whenever a trial is stopped.
        milestones: Epochs after which `step` multiplies the rate by `gamma`.
        precision: `auto` is bfloat16 autocast where the device is faster with it.
    """

    epochs: Count = 10
    batch_size: Count = 128
    optimizer: Optimizer = "adam"
    lr: Rate = 1e-3
    weight_decay: Weight = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    schedule: Schedule = "cosine"
    milestones: list[Count] = Field(default_factory=list)
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    precision: Precision = "auto"


class TrainSpec(OptimizationSpec):
    """How each student is trained; the space overrides what it searches.

    Attributes:
        task_loss: What the labels are learnt with.
        label_smoothing: Of the cross entropy.
    """

    epochs: Count = 20
    task_loss: Literal["cross_entropy", "multi_margin"] = "cross_entropy"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
