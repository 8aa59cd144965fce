"""The base class of distillation methods, their parameters and their inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, cast, overload

from kdsweep.distributions import Distribution, Uniform
from kdsweep.errors import MethodError
from kdsweep.lazy import nn, torch
from kdsweep.params import Declared, Parts
from kdsweep.params import Param as Param
from kdsweep.registry import Registry

TEMPERATURE = Uniform(1e-3, 1e3)
WEIGHT = Uniform(0.0, 1e9)
FRACTION = Uniform(0.0, 1.0)


class Shape(NamedTuple):
    """Stands for a tensor of which only the shape is known."""

    shape: tuple[int, ...]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)


class Shapes(NamedTuple):
    """The shapes of `Outputs`, part by part; a batch of any size stands first, as there."""

    logits: Shape
    embedding: Shape
    features: tuple[Shape, ...] = ()
    classifier: tuple[Shape, ...] = ()


class Outputs(NamedTuple):
    """A student's or teacher's outputs for one batch.

    Teacher outputs that the method did not request in `Method.needs` are empty tensors.

    Attributes:
        logits: [B, C].
        embedding: [B, D], the input of the last linear layer.
        features: Post-activation feature maps of the stages, [B, C_i, H_i, W_i], from shallow to deep; of texts, hidden
            states [B, T, D_i], zero where a text is padded.
        classifier: Weight [C, D] and bias [C] of the last linear layer; empty if the model has none.
    """

    logits: torch.Tensor
    embedding: torch.Tensor
    features: tuple[torch.Tensor, ...] = ()
    classifier: tuple[torch.Tensor, ...] = ()

    def shapes(self) -> Shapes:
        """The shapes alone."""
        logits, embedding = (Shape(tuple(part.shape)) for part in (self.logits, self.embedding))
        features, classifier = (
            tuple(Shape(tuple(part.shape)) for part in parts) for parts in (self.features, self.classifier)
        )
        return Shapes(logits, embedding, features, classifier)


class Temperature(Param[float]):
    """The temperature that softens class probabilities: the one that a sweep searches and schedules for all methods.

    On an instance the attribute is the current temperature: a number, or a float32 scalar on the device if a
    schedule lowers it to 1.

    Args:
        default: The default value.
        search: The distribution a sweep searches by default; None keeps the default value.
        meaning: A one-line description.
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
    suffice, refuses in `check` models that it cannot bridge, and computes `term`. It is declared without torch
    (see `kdsweep.lazy`), so it holds its adapters rather than being a module itself.

    A method whose term can be computed for several students at once (see `training.cohort`) says so in `stacks`, with
    the names of the parameters that may differ among them, besides `weight`. `torch.vmap` then calls `term` once for
    all of them, with those parameters and the adapters' weights as tensors. `term` must not draw random numbers, write
    to buffers, or turn these parameters into Python numbers; `advance` must not read them. A subclass does not inherit
    `stacks`.

    A method whose term depends on the labels says so in `reads_labels`. It is refused where samples have none, and the
    label -1.

    `needs` is a set of: `logits`, `embedding`, `features` (every stage map), `stage:I` (one stage map; negative
    indices count from the end) and `attention` (every stage map reduced by `attention_map` to [B, 1, H, W]).

    Args:
        student: Example outputs of the student; only shapes are read.
        teacher: Example outputs of the teacher; shapes and the classifier are read.
        params: Parameter values.

    Raises:
        MethodError: If a parameter is unknown or out of range, or the method cannot connect the two models.
    """

    kind = "method"
    error = MethodError
    formula: ClassVar[str] = ""
    source: ClassVar[str] = ""
    needs: ClassVar[frozenset[str]] = frozenset({"logits"})
    stacks: ClassVar[frozenset[str] | None] = None
    reads_labels: ClassVar[bool] = False
    weight = Param(1.0, "scale of the term", valid=WEIGHT)
    cooling: float | torch.Tensor = 1.0

    def __init__(self, student: Outputs, teacher: Outputs, **params: Any):
        super().__init__(**params)
        self.check(student.shapes(), teacher.shapes())
        self.adapters: nn.Module = self.build(student, teacher)

    @classmethod
    def fit(cls, student: Shapes, teacher: Shapes, params: Mapping[str, Any]) -> None:
        """Refuse what the constructor would, by shapes alone and without torch.

        Raises:
            MethodError: If a parameter is unknown or out of range, or the shapes cannot be bridged.
        """
        method = cls.__new__(cls)
        Declared.__init__(method, **params)
        method.check(student, teacher)

    @classmethod
    def params(cls) -> dict[str, Param[Any]]:
        """Return the declared parameters by name, `weight` last."""
        return dict(sorted(super().params().items(), key=lambda item: item[0] == "weight"))

    @classmethod
    def teacher_needs(cls, params: Mapping[str, Any]) -> frozenset[str]:
        """Return `needs` for these parameter values; override it if a parameter selects the stage."""
        return cls.needs

    def check(self, student: Shapes, teacher: Shapes) -> None:
        """Refuse models that the method cannot bridge; `build` then may rely on it.

        Raises:
            MethodError: If the shapes cannot be bridged.
        """

    def build(self, student: Outputs, teacher: Outputs) -> nn.Module:
        """Return the adapters and buffers for outputs of these shapes.

        Set `requires_grad` to False for parameters that are saved but not trained.
        """
        return nn.Module()

    def prepare(self, num_samples: int) -> None:
        """Receive the size of the training split; called once, before any state is loaded."""

    def term(self, student: Outputs, teacher: Outputs, labels: torch.Tensor) -> torch.Tensor:
        """Compute the unweighted distillation loss.

        Autocast is off. Outputs may be in half precision; convert them with `.float()` first.

        Args:
            student: The student's outputs, with gradient.
            teacher: The teacher's outputs, without gradient.
            labels: [B], class indices; of samples that are mixed from two, those with the larger share; -1 for
                samples without a label.

        Returns:
            A float32 scalar.
        """
        raise NotImplementedError

    def advance(self, progress: float, index: torch.Tensor) -> None:
        """Receive training progress and sample indices before each step; must not synchronise with the device.

        If it is never called, warm-ups count as finished.

        Args:
            progress: Fraction of all steps already done, 0 to 1.
            index: [B], positions of the batch's samples in the training split.
        """

    def cool(self, share: float | torch.Tensor) -> None:
        """Set how far the scheduled temperature (see `Temperature`) still is from 1.

        Args:
            share: The fraction of the initial distance from 1 that is left: 1 without a schedule, otherwise a scalar
                on the device that is updated in place before each step.
        """
        self.cooling = share

    def inference_head(self) -> nn.Module | None:
        """Return the head that replaces the student's classifier, or None to keep the student's own.

        It replaces the student's own classifier in evaluation and export and counts in its size; None keeps
        the student as it is. Its attribute `options` is what `kdsweep.methods.head` rebuilds it from: `kind`, its
        class's name in `HEADS` or `package.module:Class`, and the keyword arguments of that class.
        """
        return None

    def __call__(self, student: Outputs, teacher: Outputs, labels: torch.Tensor) -> torch.Tensor:
        """Compute `term` with autocast off, so that softmax, norms and products run in float32."""
        with torch.autocast(student.logits.device.type, enabled=False):
            return self.term(student, teacher, labels)

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return the adapters' trainable parameters, for the optimizer."""
        return (parameter for parameter in self.adapters.parameters() if parameter.requires_grad)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the adapters' weights and buffers."""
        return self.adapters.state_dict()

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Load what `state_dict` returned."""
        self.adapters.load_state_dict(state)

    def to(self, device: torch.device) -> Method:
        """Move the adapters to `device`; return self."""
        self.adapters.to(device)
        return self


HEADS: Registry[Callable[..., nn.Module]] = Registry("head", "kdsweep.methods.adapters")
METHODS: Parts[Method] = Parts(Method, "kdsweep.methods")


def register(cls: type[Method]) -> type[Method]:
    """Register a method under its `name`."""
    return METHODS.add(cls.name, cls)
