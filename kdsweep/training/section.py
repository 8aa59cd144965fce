"""The sections `train` and `teacher.train` of a sweep file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from kdsweep.lazy import nn
from kdsweep.params import Parts, named
from kdsweep.registry import is_user_object
from kdsweep.section import Count, Epochs, PartName, Rate, Section, Weight
from kdsweep.tasks.losses import LOSSES
from kdsweep.tasks.losses.cross_entropy import CrossEntropy
from kdsweep.training.optimizers import OPTIMIZERS, Optimizer
from kdsweep.training.optimizers.sgd import SGD
from kdsweep.training.schedules import SCHEDULES, Schedule
from kdsweep.training.schedules.decay import Decay
from kdsweep.training.schedules.step import Step

Precision = Literal["auto", "float32", "bfloat16"]
ADDED_LATER = (
    "dampening",
    "nesterov",
    "lr_scaling",
    "warmup_epochs",
    "final_lr_fraction",
    "clip_norm",
    "ema_decay",
    "drop_path",
)
REFERENCE_BATCH = 128
MOST_TOGETHER = 256
# Powers of batch_size / REFERENCE_BATCH that multiply the learning rate.
SCALINGS = {"none": 0.0, "linear": 1.0, "sqrt": 0.5}


class OptimizationSpec(Section):
    """How students are trained, and also a teacher without a checkpoint, which is trained once.

    Attributes:
        epochs: The full budget. It is also the horizon of the learning-rate schedule, even if a trial stops early.
        optimizer: See `kdsweep optimizers`. It receives the keys that it declares as parameters.
        lr: The learning rate, for batches of `REFERENCE_BATCH` samples if `lr_scaling` is on.
        lr_scaling: How the rate follows the batch size: `none`, `linear` (Goyal et al. 2017, arXiv:1706.02677) or
            `sqrt` (Krizhevsky 2014, arXiv:1404.5997).
        schedule: The learning-rate schedule, see `kdsweep schedules`. It receives the keys that it declares.
        clip_norm: Largest L2 norm of all gradients together; larger ones are scaled down to it. 0 means unlimited.
        ema_decay: Decay of the moving average of the weights, which is then what is evaluated, kept and exported; 0
            means none. See `training.averaging`.
        drop_path: Probability of dropping the last residual branch; see `models.drop_paths`.
        precision: `auto` uses bfloat16 autocast if it is faster on the device.
    """

    epochs: Epochs = 10
    batch_size: Annotated[int, Field(ge=1, le=10_000_000)] = 128
    optimizer: PartName = "adam"
    lr: Rate = Optimizer.lr.default
    weight_decay: Weight = SGD.weight_decay.default
    momentum: Annotated[float, Field(ge=0, lt=1)] = SGD.momentum.default
    dampening: Annotated[float, Field(ge=0, le=1)] = SGD.dampening.default
    nesterov: bool = SGD.nesterov.default
    lr_scaling: Literal["none", "linear", "sqrt"] = "none"
    schedule: PartName = "cosine"
    warmup_epochs: Weight = Schedule.warmup_epochs.default
    final_lr_fraction: Annotated[float, Field(ge=0, le=1)] = Decay.final_lr_fraction.default
    milestones: list[Count] = Field(default_factory=lambda: list(Step.milestones.default))
    gamma: Annotated[float, Field(gt=0, le=1)] = Step.gamma.default
    clip_norm: Weight = 0.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    precision: Precision = "auto"

    @property
    def scaled_lr(self) -> float:
        """The learning rate for this batch size, before its schedule."""
        return self.lr * float((self.batch_size / REFERENCE_BATCH) ** SCALINGS[self.lr_scaling])

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
        cohort: Most trials of one shape that a worker trains as one computation, see `training.cohort`; `auto` measures
            which number is fastest.
        capture: Whether the steps of trials that train alone are captured as CUDA graphs, see `training.captured`.
    """

    epochs: Epochs = 20
    task_loss: PartName = "cross_entropy"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = CrossEntropy.label_smoothing.default
    cohort: Literal["auto"] | Annotated[int, Field(ge=1, le=MOST_TOGETHER)] = 1
    capture: bool = False

    def unused(self) -> set[str]:
        """Return the keys that have no effect, because no part that is named here declares them."""
        kinds: dict[str, Parts[Any]] = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "task_loss": LOSSES}
        unused: set[str] = set()
        for key, parts in kinds.items():
            name, _ = named(getattr(self, key))
            if not is_user_object(name):  # the user's code may not be there any more
                unused |= self._keys_for(parts) - parts.find(name).params().keys()
        return unused
