"""The model interface: how a model is built, and where its stage maps and embedding are tapped."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from kdsweep.errors import ModelError
from kdsweep.lazy import nn, torch
from kdsweep.methods.base import Outputs
from kdsweep.models.blueprint import Blueprint
from kdsweep.registry import Registry

ImageShape = tuple[int, int, int]  # (channels, height, width)
Builder = TypeVar("Builder", bound="Callable[..., nn.Module]")


@dataclass(frozen=True)
class InputSpec:
    """Shape and dtype of one input sample.

    Attributes:
        shape: Shape of one sample: (channels, height, width) for an image, (length,) for a sequence.
        dtype: Name of a PyTorch dtype.
        vocabulary: Number of different tokens in a text; 0 for other samples.
        padding: The token that fills up short texts.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    vocabulary: int = 0
    padding: int = 0

    @classmethod
    def of(cls, given: tuple[int, ...] | InputSpec) -> InputSpec:
        """Return `given` as an InputSpec; a bare shape means float32."""
        return given if isinstance(given, InputSpec) else cls(tuple(given))

    def example(self, count: int, device: torch.device | str | None = None) -> torch.Tensor:
        """Create a batch of zeros, [count, *shape]; of texts, of a token that is not padding."""
        value = int(self.vocabulary > 0 and self.padding == 0)
        return torch.full((count, *self.shape), value, dtype=getattr(torch, self.dtype), device=device)

    @property
    def facts(self) -> dict[str, int]:
        """What the builder of a model for texts receives besides the shape, by parameter."""
        return {"vocabulary": self.vocabulary, "padding": self.padding} if self.vocabulary else {}


Input = ImageShape | tuple[int, ...] | InputSpec


@dataclass(frozen=True)
class Taps:
    """Names of the modules whose outputs are passed to a method.

    Attributes:
        stages: Modules whose outputs are the stage maps, shallow to deep; `layers.*` stands for all items of a list.
        head: The last linear layer; its input is the embedding.
    """

    stages: tuple[str, ...]
    head: str

    def within(self, modules: Iterable[str]) -> Taps:
        """The taps with each `*` replaced by the numbers of the list items among `modules`, in their order."""
        names = [name.rpartition(".") for name in modules]
        items = {stage: [f"{stage[:-1]}{item}" for path, _, item in names if f"{path}.*" == stage and item.isdigit()]
                 for stage in self.stages if stage.endswith(".*")}  # fmt: skip
        return Taps(tuple(name for stage in self.stages for name in items.get(stage, [stage])), self.head)


@dataclass(frozen=True)
class ModelEntry:
    """A registered model.

    Attributes:
        build: `build(input_shape, num_classes, width, **options)` returns an nn.Module whose call returns logits.
        taps: Where to tap the model.
        summary: One line for `kdsweep models`.
        blueprint: Takes the same arguments as `build` and returns the model's blueprint without torch; None if the
            model must be built to find out.
        takes: What its samples are. The builder of a model for texts also takes `vocabulary` and `padding`.
    """

    build: Callable[..., nn.Module]
    taps: Taps
    summary: str
    blueprint: Callable[..., Blueprint] | None = None
    takes: Literal["images", "texts"] = "images"


MODELS: Registry[ModelEntry] = Registry("model", "kdsweep.models")


def register(
    name: str,
    *,
    stages: tuple[str, ...],
    head: str,
    summary: str,
    blueprint: Callable[..., Blueprint] | None = None,
    takes: Literal["images", "texts"] = "images",
) -> Callable[[Builder], Builder]:
    """Register a builder `(input_shape, num_classes, width, **options) -> nn.Module`; a decorator. See `ModelEntry`."""

    def declare(build: Builder) -> Builder:
        MODELS.add(name, ModelEntry(build, Taps(stages, head), summary, blueprint, takes))
        return build

    return declare


def scaled(channels: int, width: float) -> int:
    """Scale a channel count by `width`.

    Width 1 returns `channels` unchanged. Otherwise a product below 6 is rounded to a whole number, at least 1, and a
    larger one to a multiple of 4.
    """
    if width == 1:
        return channels
    wanted = channels * width
    return max(1, round(wanted)) if wanted < 6 else 4 * round(wanted / 4)


def need_image(name: str, input_shape: ImageShape, smallest: int) -> None:
    """Reject images that the model would shrink to zero pixels.

    Raises:
        ModelError: If height or width is less than `smallest` pixels.
    """
    _, height, width = input_shape
    if min(height, width) < smallest:
        raise ModelError(f"model {name!r} takes images of at least {smallest}x{smallest}, found {width}x{height}")


def need_count(name: str, option: str, value: object) -> None:
    """Reject an option value that is not a positive integer.

    Raises:
        ModelError: If it is not; the message gives the value.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ModelError(f"model {name!r}: {option} is {value!r}; accepted: a whole number above 0")


def need_choice(name: str, option: str, value: object, accepted: Iterable[int]) -> None:
    """Reject an option value that is not one of the accepted integers.

    Raises:
        ModelError: If it is not; the message gives the value and lists the accepted ones.
    """
    choices = tuple(accepted)
    if type(value) is not int or value not in choices:
        listed = ", ".join(map(str, choices))
        raise ModelError(f"model {name!r}: {option} is {value!r}; accepted: {listed}")


class Tapped:
    """Wrap a model so that a call returns `Outputs` instead of only logits.

    The model itself is unchanged: forward hooks on the tapped modules record their outputs. `close` removes the hooks.

    Args:
        model: A module whose call returns logits [B, C].
        taps: The modules to record.

    Raises:
        ModelError: If the model has no module with a tapped name.
    """

    def __init__(self, model: nn.Module, taps: Taps):
        self.model = model
        self.taps = taps
        self._seen: dict[str, torch.Tensor] = {}
        modules = dict(model.named_modules())
        missing = [name for name in (*taps.stages, taps.head) if name not in modules]
        if missing:
            raise ModelError(f"{type(model).__name__} has no module {missing[0]!r} to tap")
        self._hooks = [modules[name].register_forward_hook(_noter(self._seen, name)) for name in taps.stages]
        self._hooks.append(modules[taps.head].register_forward_pre_hook(_noter_of_input(self._seen, "embedding")))
        head = modules[taps.head]
        self._linear = head if isinstance(head, nn.Linear) else None

    def __call__(self, images: torch.Tensor) -> Outputs:
        """Run the model.

        Args:
            images: [B, C, H, W], normalised.
        """
        logits = self.model(images)
        features = tuple(self._seen[name] for name in self.taps.stages)
        embedding = self._seen["embedding"]
        self._seen.clear()
        classifier: tuple[torch.Tensor, ...] = ()
        if self._linear is not None:
            bias = self._linear.bias if self._linear.bias is not None else logits.new_zeros(logits.shape[1])
            classifier = (self._linear.weight, bias)
        return Outputs(logits, embedding, features, classifier)

    def close(self) -> None:
        """Remove the hooks from the model."""
        for hook in self._hooks:
            hook.remove()


# The hooks hold the dict and not the wrapper: a model that holds its wrapper would stay on the GPU until the garbage
# collector finds the cycle.
def _noter(seen: dict[str, torch.Tensor], name: str) -> Callable[..., None]:
    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        seen[name] = output[0] if isinstance(output, tuple) else output  # a layer of transformers may add its attention

    return note


def _noter_of_input(seen: dict[str, torch.Tensor], name: str) -> Callable[..., None]:
    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        seen[name] = inputs[0]

    return note
