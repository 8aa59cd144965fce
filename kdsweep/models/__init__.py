"""Teachers and students: one file per family, found without editing a list.

A sweep names a model of the registry (`lightnn`), `torchvision/<name>`, `timm/<name>` or the user's own
builder `package.module:function`, called as `function(input_shape, num_classes, width, **options)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from math import isfinite
from types import UnionType
from typing import Any

from kdsweep.errors import ModelError, UnknownNameError, did_you_mean
from kdsweep.lazy import nn
from kdsweep.methods.base import Shapes
from kdsweep.models import options as _options
from kdsweep.models import timm as _timm
from kdsweep.models import torchvision as _torchvision
from kdsweep.models.base import MODELS, ImageShape, Input, InputSpec, ModelEntry, Tapped, Taps, register, scaled
from kdsweep.models.blueprint import EXAMPLES, Blueprint
from kdsweep.models.foreign import check_logits, explained, undisturbed
from kdsweep.models.normalisation import normalised
from kdsweep.models.size import count_parameters, size_mb
from kdsweep.models.tracing import find_taps
from kdsweep.registry import is_user_object, load_user_object

__all__ = [
    "MODELS",
    "Blueprint",
    "Described",
    "ImageShape",
    "InputSpec",
    "ModelEntry",
    "Tapped",
    "Taps",
    "architecture",
    "blueprint",
    "build",
    "check_options",
    "count",
    "count_parameters",
    "describe",
    "exists",
    "normalised",
    "register",
    "scaled",
    "size_mb",
    "taps",
]

_FORMS = "torchvision/<name>, timm/<name>, package.module:function"


def exists(name: str) -> None:
    """Refuse a name that no model has, without importing torch or the user's code.

    What only an import could tell (a name of timm, a user's function) passes; `build` refuses it.

    Raises:
        UnknownNameError: With the nearest valid name.
        ModelError: If it needs a package that is not installed.
    """
    source, slash, model = name.partition("/")
    if is_user_object(name):
        module, _, function = name.partition(":")
        if not (function.isidentifier() and all(part.isidentifier() for part in module.split("."))):
            raise UnknownNameError(f"unknown model {name!r}; accepted: package.module:function")
    elif source == "timm" and slash:
        _timm.need_installed(name)
    elif source == "torchvision" and slash:
        known = _torchvision.names()
        if known and model not in known:
            raise UnknownNameError(f"unknown torchvision model {model!r}; {did_you_mean(model, known)}")
    elif name not in MODELS:
        near = f"did you mean 'torchvision/{name}'? accepted: {', '.join(MODELS)}"
        accepted = near if name in _torchvision.names() else did_you_mean(name, MODELS)
        raise UnknownNameError(f"unknown model {name!r}; {accepted}, {_FORMS}")


def check_options(name: str, options: Iterable[str]) -> None:
    """Refuse names of options that a model does not take, without importing torch or the user's code.

    Raises:
        UnknownNameError: If there is no such model.
        ModelError: If an option is unknown or missing.
    """
    exists(name)
    if not is_user_object(name):
        _options.check(name, _builder(name), options)


def build(name: str, input_shape: Input, num_classes: int, width: float = 1.0, **options: Any) -> nn.Module:
    """Build a model with weights drawn from the global random state alone.

    A model that is not of the registry is tried on two black images, which changes neither it nor the random
    state.

    Args:
        name: A registered name, `torchvision/<name>`, `timm/<name>` or `package.module:function`.
        input_shape: (channels, height, width) of one image, or an `InputSpec` of samples of another kind.
        num_classes: Outputs of the last layer.
        width: Multiplies the channels.
        options: The builder's own keyword arguments.

    Returns:
        A module whose call on images [B, C, H, W], or on such samples, returns logits [B, num_classes].

    Raises:
        UnknownNameError: With the nearest valid name.
        ModelError: If the model does not take such images, this width or an option.
    """
    model = _built(name, input_shape, num_classes, width, options)
    if _is_foreign(name):
        check_logits(name, model, input_shape, num_classes)
    return model


def architecture(name: str, input_shape: Input, num_classes: int, width: float = 1.0, **options: Any) -> nn.Module:
    """A model to look at, or to load its own weights into: its parameters hold nothing yet, and it is not tried.

    Nothing is fetched, and no file is read that might hold code; a wrong name of weights is refused all the same.
    A user's own builder is called as `build` does, since it may compute with what it has drawn.

    Raises:
        UnknownNameError: With the nearest valid name.
        ModelError: If the model does not take this width or an option.
    """
    from kdsweep.models.blocks import Undrawn

    exists(name)
    source, _, model = name.partition("/")
    if source == "torchvision" and options.get("weights") is not None:
        _torchvision.known_weights(model, options["weights"])
    others = ("weights", "checkpoint_path", "cache_dir")
    plain = {key: value for key, value in options.items() if key not in others and not key.startswith("pretrained")}
    with nullcontext() if is_user_object(name) else Undrawn():
        return _built(name, input_shape, num_classes, width, plain)


def blueprint(name: str, input_shape: Input, num_classes: int, width: float = 1.0, **options: Any) -> Blueprint | None:
    """The blueprint of the model that `build` would give, without torch; None where it declares none.

    Raises:
        UnknownNameError: With the nearest valid name.
        ModelError: If the model does not take such images, this width or an option.
    """
    exists(name)
    draw = None if _is_foreign(name) else MODELS[name].blueprint
    if draw is None:
        return None
    shape = InputSpec.of(input_shape).shape
    _check_numbers(name, shape, num_classes, width)
    _options.check(name, draw, options)
    return draw(shape, num_classes, width, **options)


@dataclass(frozen=True)
class Described:
    """What is known of a model without its weights.

    Attributes:
        parameters: How many; shared ones once.
        size_mb: Bytes of parameters and buffers / 1024².
        state: Shapes in its state dict, by name.
        shown: What it shows a method for two images.
    """

    parameters: int
    size_mb: float
    state: Mapping[str, tuple[int, ...]]
    shown: Shapes


def describe(name: str, input_shape: Input, num_classes: int, width: float = 1.0, **options: Any) -> Described:
    """Describe the model that `build` would give, without torch where it has a blueprint.

    Another is built without drawing weights and run once on two black images.

    Raises:
        UnknownNameError: With the nearest valid name.
        ModelError: If the model does not take such images, this width or an option, or shows no embedding.
    """
    plan = blueprint(name, input_shape, num_classes, width, **options)
    if plan is not None:
        where = MODELS[name].taps
        return Described(plan.count, plan.size_mb, plan.state, plan.shapes(where.stages, where.head))
    model = architecture(name, input_shape, num_classes, width, **options)
    check_logits(name, model, input_shape, num_classes)
    tapped = Tapped(model, taps(name, model, input_shape))
    with undisturbed(model):
        shown = tapped(InputSpec.of(input_shape).example(EXAMPLES, next(model.parameters()).device)).shapes()
    tapped.close()
    state = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    return Described(count_parameters(model), size_mb(model), state, shown)


def count(name: str, input_shape: Input, num_classes: int, width: float = 1.0, **options: Any) -> tuple[int, float]:
    """Parameters and MiB of the model that `build` would give, without torch where it has a blueprint.

    Raises:
        UnknownNameError: With the nearest valid name.
        ModelError: If the model does not take this width or an option.
    """
    plan = blueprint(name, input_shape, num_classes, width, **options)
    if plan is not None:
        return plan.count, plan.size_mb
    model = architecture(name, input_shape, num_classes, width, **options)
    return count_parameters(model), size_mb(model)


def taps(name: str, model: nn.Module, input_shape: Input) -> Taps:
    """Where to tap a model that `build` made.

    A registered model declares it; another is run once on two black images (see `kdsweep.models.tracing`),
    which leaves training modes, buffers and random state as they were.

    Args:
        name: The name that it was built by.
        model: The model.
        input_shape: As it was built for.

    Raises:
        UnknownNameError: With the nearest valid name.
        ModelError: If no linear layer gives the model's logits.
    """
    exists(name)
    return find_taps(name, model, input_shape) if _is_foreign(name) else MODELS[name].taps


def _built(name: str, input_shape: Input, num_classes: int, width: float, options: Mapping[str, Any]) -> nn.Module:
    """What the builder returns, not tried yet."""
    exists(name)
    shape = InputSpec.of(input_shape).shape
    _check_numbers(name, shape, num_classes, width)
    builder = _builder(name)
    _options.check(name, builder, options)
    with explained(f"model {name!r} cannot be built") if _is_foreign(name) else nullcontext():
        return builder(shape, num_classes, width, **options)


def _is_foreign(name: str) -> bool:
    return is_user_object(name) or "/" in name


def _builder(name: str) -> Callable[..., nn.Module]:
    """What makes the model `name`, which exists, from (input_shape, num_classes, width, **options)."""
    source, _, model = name.partition("/")
    if is_user_object(name):
        with explained(f"model {name!r} cannot be imported"):
            found: Callable[..., nn.Module] = load_user_object(name, "model")
        return found
    if source == "torchvision":
        return partial(_torchvision.build, model)
    if source == "timm":
        return partial(_timm.build, model)
    return MODELS[name].build


def _check_numbers(name: str, input_shape: tuple[int, ...], num_classes: int, width: float) -> None:
    counts = (*input_shape, num_classes)
    sizes = len(input_shape)
    fits = sizes == 3 or (sizes > 0 and is_user_object(name))
    if not fits or not all(_is_number(n, int) and n > 0 for n in counts):
        raise ModelError(
            f"model {name!r}: input_shape is {input_shape} and num_classes {num_classes!r}; "
            "accepted: (channels, height, width) and a number of classes, all whole and above 0"
        )
    if not (_is_number(width, int | float) and isfinite(width) and width > 0):
        raise ModelError(f"model {name!r}: width is {width!r}; accepted: a number above 0")


def _is_number(value: object, kind: type | UnionType) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
