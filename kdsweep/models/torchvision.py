"""torchvision's classification models, with a new head for the data set's classes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kdsweep.errors import ModelError, UnknownNameError, did_you_mean
from kdsweep.lazy import import_torchvision, nn
from kdsweep.models.base import ImageShape, need_count
from kdsweep.models.foreign import explained
from kdsweep.models.slimming import slimmed

_DECLARED = re.compile(r"^@register_model\(\)\n(?:[@ )].*\n)*def (\w+)", re.MULTILINE)
_WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")


@cache
def names() -> tuple[str, ...]:
    """Model names of the installed torchvision, parsed from its source files without importing it.

    Empty if no names are found there; then only `build` can check a name.
    """
    spec = find_spec("torchvision")
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = [file for folder in folders for file in Path(folder, "models").glob("*.py")]
    return tuple(sorted(name for file in files for name in _DECLARED.findall(file.read_text("utf-8"))))


def build(
    model: str,
    input_shape: ImageShape,
    num_classes: int,
    width: float,
    weights: str | None = None,
    head_hidden: list[int] | tuple[int, ...] = (),
) -> nn.Module:
    """Build `torchvision.models.<model>` and replace its last linear layer.

    Without `weights`, images may have any number of channels (the first convolution is replaced to match), and vision
    transformers are built for the image size. Pretrained weights need 3 channels, width 1 and images normalised with
    ImageNet's mean (0.485, 0.456, 0.406) and standard deviation (0.229, 0.224, 0.225); they are downloaded once, into
    `torch.hub.get_dir()`.

    Args:
        model: A name from `torchvision.models.list_models(module=torchvision.models)`.
        input_shape: (channels, height, width) of one image.
        num_classes: Number of logits.
        width: Channel multiplier for mobilenet_v2, mobilenet_v3_*, mnasnet*, shufflenet_v2_* and efficientnet_b*; other
            models accept only 1.
        weights: Name of pretrained weights (`DEFAULT`, `IMAGENET1K_V1`, ...); null initialises at random.
        head_hidden: Sizes of hidden layers in the new head, each followed by ReLU.

    Raises:
        UnknownNameError: If torchvision has no such model.
        ModelError: If the model does not accept the images, the width or an option, or the weights cannot be loaded.
    """
    models = import_torchvision("models")

    name = f"torchvision/{model}"
    if model not in (accepted := models.list_models(module=models)):
        raise UnknownNameError(f"unknown torchvision model {model!r}; {did_you_mean(model, accepted)}")
    if not isinstance(head_hidden, list | tuple):
        raise ModelError(f"model {name!r}: head_hidden is {head_hidden!r}; accepted: a list of layer sizes")
    for size in head_hidden:
        need_count(name, "head_hidden", size)
    if weights is None:
        network = _fresh(name, model, input_shape, width)
        _take_channels(network, input_shape[0])
    else:
        network = _pretrained(name, model, input_shape, width, weights)
    _replace_head(name, network, (*head_hidden, num_classes))
    return network


def _fresh(name: str, model: str, input_shape: ImageShape, width: float) -> nn.Module:
    models = import_torchvision("models")

    builder: Callable[..., nn.Module] = models.get_model_builder(model)
    channels, *size = input_shape
    if width != 1:
        builder = slimmed(name, model, width)
    elif model in _WITH_AUXILIARY_HEADS:
        builder = partial(builder, aux_logits=False, init_weights=True)
    elif model.startswith("vit_") and size[0] == size[1]:
        builder = partial(builder, image_size=size[0])
    elif model == "maxvit_t":
        builder = partial(builder, input_size=tuple(size))
    with explained(f"model {name!r} does not take {channels}x{size[0]}x{size[1]} images"):
        return builder()


def known_weights(model: str, weights: object) -> Mapping[str, Any]:
    """The pretrained weights of a torchvision model, by name, after checking that `weights` is one of them.

    Raises:
        ModelError: If the model has no weights called `weights`.
    """
    models = import_torchvision("models")

    known: Mapping[str, Any] = models.get_model_weights(model).__members__
    if not isinstance(weights, str) or weights not in known:
        raise ModelError(f"model 'torchvision/{model}' has no weights {weights!r}; {did_you_mean(weights, known)}")
    return known


def _pretrained(name: str, model: str, input_shape: ImageShape, width: float, weights: str) -> nn.Module:
    models = import_torchvision("models")

    known = known_weights(model, weights)
    if input_shape[0] != 3:
        raise ModelError(f"model {name!r} with weights takes images of 3 channels, found {input_shape[0]}")
    if width != 1:
        raise ModelError(f"model {name!r} with weights has no width to vary, found {width}; accepted: 1")
    with explained(f"model {name!r}: weights {weights} cannot be fetched or read"):
        network: nn.Module = models.get_model(model, weights=known[weights], progress=False)
    if model in _WITH_AUXILIARY_HEADS:
        network.aux_logits = False  # type: ignore[assignment]
        for auxiliary in {"AuxLogits", "aux1", "aux2"} & set(dict(network.named_children())):
            setattr(network, auxiliary, None)
    return network


def _take_channels(network: nn.Module, channels: int) -> None:
    """Replace the first convolution unless it already takes `channels` input channels."""
    path, old = next((key, part) for key, part in network.named_modules() if isinstance(part, nn.Conv2d))
    if old.in_channels == channels:
        return
    _replace(
        network,
        path,
        nn.Conv2d(
            channels,
            old.out_channels,
            old.kernel_size,  # type: ignore[arg-type]
            old.stride,  # type: ignore[arg-type]
            old.padding,  # type: ignore[arg-type]
            bias=old.bias is not None,
        ),
    )


def _replace_head(name: str, network: nn.Module, sizes: tuple[int, ...]) -> None:
    """Replace the last linear layer by linear layers of these sizes with ReLU between them."""
    linear = [(path, part) for path, part in network.named_modules() if isinstance(part, nn.Linear)]
    if not linear:
        raise ModelError(f"model {name!r} does not end in a linear layer, which methods and the new head need")
    path, old = linear[-1]
    layers: list[nn.Module] = []
    inputs = old.in_features
    for size in sizes:
        layers += [nn.Linear(inputs, size, bias=old.bias is not None), nn.ReLU()]
        inputs = size
    layers.pop()
    _replace(network, path, layers[0] if len(layers) == 1 else nn.Sequential(*layers))


def _replace(network: nn.Module, path: str, part: nn.Module) -> None:
    parent, _, leaf = path.rpartition(".")
    setattr(network.get_submodule(parent), leaf, part)
