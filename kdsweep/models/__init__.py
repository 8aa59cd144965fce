"""Teacher and student models: one file per family, discovered automatically.

A sweep file names a registered model (`lightnn`), `torchvision/<name>`, `timm/<name>`, `transformers/<type>` or the
user's own builder `package.module:function`, which is called as
`function(input_shape, num_classes, width, **options)`.
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
from kdsweep.models import transformers as _transformers
from kdsweep.models.base import MODELS, ImageShape, Input, InputSpec, ModelEntry, Tapped, Taps, register, scaled
from kdsweep.models.blueprint import EXAMPLES, Blueprint
from kdsweep.models.cost import activation_mb, count_flops
from kdsweep.models.foreign import check_logits, explained, undisturbed
from kdsweep.models.normalisation import normalised
from kdsweep.models.residual import check_drop_path, drop_paths
from kdsweep.models.size import count_parameters, size_mb
from kdsweep.models.slimming import has_slimmed
from kdsweep.models.texts import TappedTexts
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
    "TappedTexts",
    "Taps",
    "activation_mb",
    "architecture",
    "blueprint",
    "build",
    "check_drop_path",
    "check_options",
    "count",
    "count_flops",
    "count_parameters",
    "describe",
    "drop_paths",
    "exists",
    "flops",
    "has_width",
    "normalised",
    "register",
    "scaled",
    "size_mb",
    "taps",
]

_FORMS = "torchvision/<name>, timm/<name>, transformers/<type>, package.module:function"
_FACTS = ("vocabulary", "padding")  # what the data decide about a model for texts


def exists(name: str) -> None:
    """Check that a model of this name exists, without importing torch or the user's code.

    Names that can only be checked by an import (a timm model, a user's function) are accepted here; `build` checks
    them.

    Raises:
        UnknownNameError: If there is no such model; the message suggests the closest name.
        ModelError: If the model needs a package that is not installed.
    """
    source, slash, model = name.partition("/")
    if is_user_object(name):
        module, _, function = name.partition(":")
        if not (function.isidentifier() and all(part.isidentifier() for part in module.split("."))):
            raise UnknownNameError(f"unknown model {name!r}; accepted: package.module:function")
    elif source == "timm" and slash:
        _timm.need_installed(name)
    elif source == "transformers" and slash:
        _transformers.need_installed(name)
    elif source == "torchvision" and slash:
        known = _torchvision.names()
        if known and model not in known:
            raise UnknownNameError(f"unknown torchvision model {model!r}; {did_you_mean(model, known)}")
    elif name not in MODELS:
        near = f"did you mean 'torchvision/{name}'? accepted: {', '.join(MODELS)}"
        accepted = near if name in _torchvision.names() else did_you_mean(name, MODELS)
        raise UnknownNameError(f"unknown model {name!r}; {accepted}, {_FORMS}")


def has_width(name: str) -> bool:
    """Whether a model has a width to vary, as far as its name tells. A user's own builder always receives one."""
    source, slash, model = name.partition("/")
    if is_user_object(name) or not slash:
        return True
    return source == "torchvision" and has_slimmed(model)


def check_options(name: str, options: Iterable[str]) -> None:
    """Check option names against the model's builder, without importing torch or the user's code.

    Raises:
        UnknownNameError: If there is no such model.
        ModelError: If an option is unknown or missing.
    """
    exists(name)
    if not is_user_object(name):
        given = [fact for fact in _FACTS if takes_texts(name)]
        _options.check(name, _builder(name), options, given)


def takes_texts(name: str) -> bool:
    """Whether a model's samples are texts; not known of a user's own, which takes whatever the data set has."""
    return (name in MODELS and MODELS[name].takes == "texts") or name.startswith("transformers/")


def build(name: str, input_shape: Input, num_classes: int, width: float = 1.0, **options: Any) -> nn.Module:
    """Build a model; its random initial weights depend only on the global random state.

    A model that is not registered is tested on two samples of zeros, which changes neither the model nor the random
    state.

    Args:
        name: A registered name, `torchvision/<name>`, `timm/<name>` or `package.module:function`.
        input_shape: (channels, height, width) of one image, or the `InputSpec` of other samples.
        num_classes: Number of logits.
        width: Channel multiplier.
        options: Further keyword arguments of the builder.

    Returns:
        A module that maps images [B, C, H, W], or other samples, to logits [B, num_classes].

    Raises:
        UnknownNameError: If there is no such model; the message suggests the closest name.
        ModelError: If the model does not accept such input, this width or an option.
    """
    model = _built(name, input_shape, num_classes, width, options)
    if _is_foreign(name):
        check_logits(name, model, input_shape, num_classes)
    return model


def architecture(name: str, input_shape: Input, num_classes: int, width: float = 1.0, **options: Any) -> nn.Module:
    """Build a model with uninitialised parameters, to inspect it or to load weights into it.

    The model is not test-run. Nothing is downloaded, and no file that might contain code is read; an unknown weights
    name is still an error. A user's own builder does initialise its parameters, because it may compute with them.

    Raises:
        UnknownNameError: If there is no such model; the message suggests the closest name.
        ModelError: If the model does not accept this width or an option.
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
    """The blueprint of the model that `build` would return, without torch; None if the model declares none.

    Raises:
        UnknownNameError: If there is no such model; the message suggests the closest name.
        ModelError: If the model does not accept such images, this width or an option.
    """
    exists(name)
    draw = None if _is_foreign(name) else MODELS[name].blueprint
    if draw is None:
        return None
    given = InputSpec.of(input_shape)
    _check_numbers(name, given, num_classes, width)
    facts = _facts(name, draw, given)
    _options.check(name, draw, options, facts)
    return draw(given.shape, num_classes, width, **facts, **options)


@dataclass(frozen=True)
class Described:
    """What is known about a model without its weights.

    Attributes:
        parameters: Parameter count; shared ones count once.
        size_mb: Size of parameters and buffers in MiB (bytes / 1024²).
        state: Shapes in the state dict, by name.
        shown: Shapes of the outputs that a method receives for two images.
    """

    parameters: int
    size_mb: float
    state: Mapping[str, tuple[int, ...]]
    shown: Shapes


def describe(name: str, input_shape: Input, num_classes: int, width: float = 1.0, **options: Any) -> Described:
    """Describe the model that `build` would return, without torch if the model has a blueprint.

    Without a blueprint, the model is built with uninitialised weights and run on two samples of zeros.

    Raises:
        UnknownNameError: If there is no such model; the message suggests the closest name.
        ModelError: If the model does not accept such input, this width or an option, or has no embedding to tap.
    """
    plan = blueprint(name, input_shape, num_classes, width, **options)
    if plan is not None:
        where = MODELS[name].taps.within(plan.seen)
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
    """Parameter count and MiB of the model that `build` would return, without torch if the model has a blueprint.

    Raises:
        UnknownNameError: If there is no such model; the message suggests the closest name.
        ModelError: If the model does not accept this width or an option.
    """
    plan = blueprint(name, input_shape, num_classes, width, **options)
    if plan is not None:
        return plan.count, plan.size_mb
    model = architecture(name, input_shape, num_classes, width, **options)
    return count_parameters(model), size_mb(model)


def flops(name: str, input_shape: Input, num_classes: int, width: float = 1.0, **options: Any) -> int:
    """Floating-point operations for one sample, without torch if the model has a blueprint; see `count_flops`.

    Raises:
        UnknownNameError: If there is no such model; the message suggests the closest name.
        ModelError: If the model does not accept such input, this width or an option.
    """
    plan = blueprint(name, input_shape, num_classes, width, **options)
    if plan is not None:
        return plan.flops
    model = architecture(name, input_shape, num_classes, width, **options)
    check_logits(name, model, input_shape, num_classes)
    return count_flops(model, InputSpec.of(input_shape).example(1, next(model.parameters()).device))


def taps(name: str, model: nn.Module, input_shape: Input) -> Taps:
    """Where to tap a model that `build` returned.

    Registered models declare their taps. Any other model is run once on two samples of zeros (see
    `kdsweep.models.tracing`); training modes, buffers and random state are restored afterwards.

    Args:
        name: The name that was passed to `build`.
        model: The model.
        input_shape: The input shape that was passed to `build`.

    Raises:
        UnknownNameError: If there is no such model; the message suggests the closest name.
        ModelError: If no linear layer outputs the model's logits.
    """
    exists(name)
    if _is_foreign(name):
        return find_taps(name, model, input_shape)
    return MODELS[name].taps.within(path for path, _ in model.named_modules())


def _built(name: str, input_shape: Input, num_classes: int, width: float, options: Mapping[str, Any]) -> nn.Module:
    """Call the builder, without testing the model."""
    exists(name)
    given = InputSpec.of(input_shape)
    _check_numbers(name, given, num_classes, width)
    builder = _builder(name)
    facts = _facts(name, builder, given)
    _options.check(name, builder, options, facts)
    with explained(f"model {name!r} cannot be built") if _is_foreign(name) else nullcontext():
        return builder(given.shape, num_classes, width, **facts, **options)


def _facts(name: str, builder: Callable[..., Any], given: InputSpec) -> dict[str, int]:
    """What the data decide about the model: for a user's own, only what its builder declares."""
    if not is_user_object(name):
        return given.facts
    return {fact: value for fact, value in given.facts.items() if fact in _options.declared(builder)}


def _is_foreign(name: str) -> bool:
    return is_user_object(name) or "/" in name


def _builder(name: str) -> Callable[..., nn.Module]:
    """The builder of the model `name`, which must exist: called with (input_shape, num_classes, width, **options)."""
    source, _, model = name.partition("/")
    if is_user_object(name):
        with explained(f"model {name!r} cannot be imported"):
            found: Callable[..., nn.Module] = load_user_object(name, "model")
        return found
    if source == "torchvision":
        return partial(_torchvision.build, model)
    if source == "timm":
        return partial(_timm.build, model)
    if source == "transformers":
        return partial(_transformers.build, model)
    return MODELS[name].build


def _check_numbers(name: str, given: InputSpec, num_classes: int, width: float) -> None:
    input_shape = given.shape
    counts = (*input_shape, num_classes)
    sizes = len(input_shape)
    if not is_user_object(name) and takes_texts(name) != bool(given.vocabulary):
        texts = ", ".join(known for known in MODELS if takes_texts(known))
        takes, found, accepted = (
            ("images", "texts", f"{texts}, transformers/<type>, package.module:function")
            if given.vocabulary
            else ("texts", "images", "a model for images, or a data set of texts")
        )
        raise ModelError(f"model {name!r} takes {takes}, and the data set has {found}; accepted: {accepted}")
    fits = bool(given.vocabulary) or sizes == 3 or (sizes > 0 and is_user_object(name))
    if not fits or not all(_is_number(n, int) and n > 0 for n in counts):
        raise ModelError(
            f"model {name!r}: input_shape is {input_shape} and num_classes {num_classes!r}; "
            "accepted: (channels, height, width) and a number of classes, all whole and above 0"
        )
    if not (_is_number(width, int | float) and isfinite(width) and width > 0):
        raise ModelError(f"model {name!r}: width is {width!r}; accepted: a number above 0")


def _is_number(value: object, kind: type | UnionType) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
