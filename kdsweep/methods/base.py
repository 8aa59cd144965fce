"""The contract of a distillation method: what it declares, what it needs and what it computes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, cast, overload

from kdsweep.distributions import Distribution, Uniform
from kdsweep.errors import MethodError
from kdsweep.lazy import nn, torch
from kdsweep.params import Declared, Parts
from kdsweep.params import Param as Param

TEMPERATURE = Uniform(1e-3, 1e3)
WEIGHT = Uniform(0.0, 1e9)
FRACTION = Uniform(0.0, 1.0)


class Outputs(NamedTuple):
    """What a student or a teacher shows a method for one batch.

    What a method did not ask of the teacher (`Method.needs`) is an empty tensor there.

    Attributes:
        logits: [B, C].
        embedding: [B, D], the input of the last linear layer.
        features: Stage maps [B, C_i, H_i, W_i] after the activation, from shallow to deep.
        classifier: Weight [C, D] and bias [C] of the last linear layer; empty when the model has none.
    """

    logits: torch.Tensor
    embedding: torch.Tensor
    features: tuple[torch.Tensor, ...] = ()
    classifier: tuple[torch.Tensor, ...] = ()


class Temperature(Param[float]):
    """The temperature that softens class probabilities: the one that a sweep searches and schedules for all methods.

    Read from an instance as what it is at this point of training: a number, or where a schedule takes it to 1 a
    float32 scalar on the device.

    Args:
        default: The value when nothing is said.
        search: What a sweep draws it from when the method is only named; None if it keeps its default.
        meaning: One line for the reader.
    """

    def __init__(self, default: float, search: Distribution | None = None, meaning: str = "softens both distributions"):
        super().__init__(default, meaning, search, valid=TEMPERATURE)

    @overload
    def __get__(self, instance: None, owner: type[Declared]) -> Temperature: ...
    @overload
    def __get__(self, instance: Declared, owner: type[Declared]) -> float: ...
    def __get__(self, instance: Declared | None, owner: type[Declared]) -> Temperature | float:
        if instance is None:
            return self
        assert isinstance(instance, Method)
        # At a share of 1 this is the value itself, to the last bit.
        return cast(float, instance.cooling * instance.__dict__[self.name] + (1 - instance.cooling))


class Method(Declared):
    """A distillation term between a student and a teacher, with the adapters it trains.

    A subclass declares its parameters as `Param` attributes, says in `needs` which of the teacher's outputs
    suffice, and computes `term`. It is declared without torch (see `kdsweep.lazy`), so it holds its adapters
    rather than being a module itself.

    `needs` is a set of: `logits`, `embedding`, `features` (every stage map), `stage:I` (one, counted as
    Python does) and `attention` (every stage map F reduced by `attention_map` to [B, 1, H, W]).

    Args:
        student: Example outputs of the student, for their shapes.
        teacher: Example outputs of the teacher, for their shapes and its classifier.
        params: Values of the declared parameters.

    Raises:
        MethodError: If a parameter is unknown or out of range, or the shapes cannot be bridged.
    """

    kind = "method"
    error = MethodError
    formula: ClassVar[str] = ""
    source: ClassVar[str] = ""
    needs: ClassVar[frozenset[str]] = frozenset({"logits"})
    weight = Param(1.0, "scale of the term", valid=WEIGHT)
    cooling: float | torch.Tensor = 1.0

    def __init__(self, student: Outputs, teacher: Outputs, **params: Any):
        super().__init__(**params)
        self.adapters: nn.Module = self.build(student, teacher)

    @classmethod
    def params(cls) -> dict[str, Param[Any]]:
        """The declared parameters by name, `weight` last."""
        return dict(sorted(super().params().items(), key=lambda item: item[0] == "weight"))

    @classmethod
    def teacher_needs(cls, params: Mapping[str, Any]) -> frozenset[str]:
        """`needs` for these parameter values; a method whose stage is a parameter overrides it."""
        return cls.needs

    def build(self, student: Outputs, teacher: Outputs) -> nn.Module:
        """The adapters to train and the buffers to keep, made for these shapes.

        A part that is kept but not trained has `requires_grad` off.
        """
        return nn.Module()

    def prepare(self, num_samples: int) -> None:
        """Hear how many samples the training split holds; called once, before any state is loaded."""

    def term(self, student: Outputs, teacher: Outputs, labels: torch.Tensor) -> torch.Tensor:
        """The unweighted distillation term, called with autocast off.

        What may come in half precision is taken as `.float()` before it is used.

        Args:
            student: The student's outputs, with gradient.
            teacher: The teacher's outputs, without.
            labels: [B], class indices.

        Returns:
            A float32 scalar.
        """
        raise NotImplementedError

    def advance(self, progress: float, index: torch.Tensor) -> None:
        """Hear before each step how far training is and which samples come; must not wait for the device.

        Never called, a schedule that depends on it is at its end.

        Args:
            progress: Share of all steps already done, 0..1.
            index: [B], positions of the batch's samples in the training split.
        """

    def cool(self, share: float | torch.Tensor) -> None:
        """Hear how far the temperature (see `Temperature`) is from 1, as a share of its distance at the start.

        Args:
            share: 1 where nothing is scheduled; else a scalar on the device, which changes in place from step to step.
        """
        self.cooling = share

    def inference_head(self) -> nn.Module | None:
        """What turns the student's last stage map into the logits to use, where a method trains such a thing.

        It replaces the student's own classifier in evaluation and export and counts in its size; None keeps
        the student as it is.
        """
        return None

    def __call__(self, student: Outputs, teacher: Outputs, labels: torch.Tensor) -> torch.Tensor:
        """`term`, with autocast off: its softmax, norms and products are float32."""
        with torch.autocast(student.logits.device.type, enabled=False):
            return self.term(student, teacher, labels)

    def parameters(self) -> Iterator[nn.Parameter]:
        """The adapters' trained weights, for the optimizer."""
        return (parameter for parameter in self.adapters.parameters() if parameter.requires_grad)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The adapters' weights and buffers."""
        return self.adapters.state_dict()

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take back what `state_dict` gave."""
        self.adapters.load_state_dict(state)

    def to(self, device: torch.device) -> Method:
        """Move the adapters; returns itself."""
        self.adapters.to(device)
        return self


METHODS: Parts[Method] = Parts(Method, "kdsweep.methods")


def register(cls: type[Method]) -> type[Method]:
    """Declare a method under its `name`."""
    return METHODS.add(cls.name, cls)
