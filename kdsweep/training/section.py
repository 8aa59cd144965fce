"""The sections `train` and `teacher.train` of a sweep file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from kdsweep.lazy import nn
from kdsweep.params import Parts, named
from kdsweep.registry import is_user_object
from kdsweep.section import Count, PartName, Rate, Section, Weight
from kdsweep.tasks.losses import LOSSES
from kdsweep.tasks.losses.cross_entropy import CrossEntropy
from kdsweep.training.optimizers import OPTIMIZERS, Optimizer
from kdsweep.training.optimizers.sgd import SGD
from kdsweep.training.schedules import SCHEDULES, Schedule
from kdsweep.training.schedules.step import Step

Precision = Literal["auto", "float32", "bfloat16"]
ADDED_LATER = ("dampening", "nesterov")


class OptimizationSpec(Section):
    """How students are trained, and also a teacher without a checkpoint, which is trained once.

    Attributes:
        epochs: The full budget. It is also the horizon of the learning-rate schedule, even if a trial stops early.
        optimizer: See `kdsweep optimizers`. It receives the keys that it declares as parameters.
        schedule: The learning-rate schedule, see `kdsweep schedules`. It receives the keys that it declares.
        precision: `auto` uses bfloat16 autocast if it is faster on the device.
    """

    epochs: Count = 10
    batch_size: Count = 128
    optimizer: PartName = "adam"
    lr: Rate = Optimizer.lr.default
    weight_decay: Weight = SGD.weight_decay.default
    momentum: Annotated[float, Field(ge=0, lt=1)] = SGD.momentum.default
    dampening: Annotated[float, Field(ge=0, le=1)] = SGD.dampening.default
    nesterov: bool = SGD.nesterov.default
    schedule: PartName = "cosine"
    milestones: list[Count] = Field(default_factory=lambda: list(Step.milestones.default))
    gamma: Annotated[float, Field(gt=0, le=1)] = Step.gamma.default
    precision: Precision = "auto"

    def make_optimizer(self, weights: list[nn.Parameter]) -> Optimizer:
        name, params = self.part(OPTIMIZERS, self.optimizer)
        return OPTIMIZERS.create(name, weights, **params)

    def make_schedule(self) -> Schedule:
        name, params = self.part(SCHEDULES, self.schedule)
        return SCHEDULES.create(name, self.epochs, **params)

    def identity(self) -> dict[str, Any]:
        """Return the settings that identify a trained teacher.

        Keys added in later versions are omitted at their defaults, so that teachers trained by earlier versions are
        still found.
        """
        defaults = type(self).model_fields
        return {
            key: value
            for key, value in self.model_dump().items()
            if key not in ADDED_LATER or value != defaults[key].default
        }

    def with_searched(self, config: Mapping[str, Any]) -> Self:
        """Override settings with a configuration's values. A part named again keeps the parameters given here."""
        drawn = {key: config[key] for key in type(self).model_fields.keys() & config.keys()}
        return self.model_copy(update={key: value for key, value in drawn.items() if not self._names(key, value)})

    def _names(self, key: str, value: object) -> bool:
        written = getattr(self, key)
        return isinstance(written, dict) and named(written)[0] == value


class TrainSpec(OptimizationSpec):
    """How each student is trained. The search space overrides the settings that it searches.

    Attributes:
        task_loss: The loss on the labels, see `kdsweep losses`. It receives the keys that it declares as parameters.
        label_smoothing: Label smoothing of the cross entropy.
    """

    epochs: Count = 20
    task_loss: PartName = "cross_entropy"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = CrossEntropy.label_smoothing.default

    def unused(self) -> set[str]:
        """Return the keys that have no effect, because no part that is named here declares them."""
        kinds: dict[str, Parts[Any]] = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "task_loss": LOSSES}
        unused: set[str] = set()
        for key, parts in kinds.items():
            name, _ = named(getattr(self, key))
            if not is_user_object(name):  # the user's code may not be there any more
                unused |= self._keys_for(parts) - parts.find(name).params().keys()
        return unused
