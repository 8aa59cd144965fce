"""What determines a run's curve, beside the data and the teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kdsweep import methods
from kdsweep.config.spec import OptimizationSpec, SweepSpec
from kdsweep.search.space import Config, softens
from kdsweep.seeds import derived_seed


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
        augment: How training images are varied.
        method: The distillation method.
        method_params: Its parameters that differ from the defaults.
        alpha: Share of distillation in the loss, 0..1.
        alpha_schedule: How alpha goes from there to 0 over training, one of `schedules.SHAPES`.
        temperature_schedule: How a temperature that softens goes to 1, likewise.
        task_loss: What the labels are learnt with.
        label_smoothing: Of the cross entropy.
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
    label_smoothing: float = 0.0

    @classmethod
    def of_trial(cls, spec: SweepSpec, config: Config, seed: int) -> Recipe:
        """The recipe of one configuration of a sweep."""
        settings = spec.train.model_dump()
        searched = {key: config[key] for key in settings.keys() & config.keys()}
        train = spec.train.model_copy(update=searched)
        return cls(
            model=spec.student.model,
            width=float(config["width"]),
            options=spec.student.options,
            optimization=train,
            seed=seed,
            view_seed=spec.seed,
            augment=spec.dataset.augment,
            method=str(config["method"]),
            method_params=method_params(config),
            alpha=float(config.get("alpha", 0.0)),
            alpha_schedule=str(config.get("alpha_schedule", "constant")),
            temperature_schedule=str(config.get("temperature_schedule", "constant")),
            task_loss=train.task_loss,
            label_smoothing=train.label_smoothing,
        )

    @classmethod
    def of_teacher(cls, spec: SweepSpec) -> Recipe:
        """The recipe of a teacher that is trained."""
        teacher = spec.teacher
        return cls(
            model=teacher.model,
            width=teacher.width,
            options=teacher.options,
            optimization=teacher.train,
            seed=derived_seed(spec.seed, "teacher"),
            view_seed=spec.seed,
            augment=spec.dataset.augment,
        )


def method_params(config: Config) -> dict[str, Any]:
    """What of a configuration goes to `methods.create`: dotted for a sum, bare for a single method."""
    terms = methods.terms(str(config["method"]))
    params: dict[str, Any] = {}
    for key, value in config.items():
        term, dot, name = key.rpartition(".")
        if dot and term in terms:
            params[name if len(terms) == 1 else key] = value
    if "temperature" in config:
        softened = [term for term in terms if softens(term)]
        names = ["temperature"] if len(terms) == 1 else [f"{term}.temperature" for term in softened]
        params = dict.fromkeys(names, config["temperature"]) | params
    return params
