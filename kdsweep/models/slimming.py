"""torchvision's models at another width, built through their own constructors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from kdsweep.errors import ModelError
from kdsweep.lazy import import_torchvision, nn

# Width and depth multipliers, dropout and batch-norm settings of EfficientNet (Tan, Le 2019, arXiv:1905.11946).
_NORM: dict[str, Any] = {"eps": 1e-3, "momentum": 0.01}
_EFFICIENTNETS: dict[str, tuple[float, float, float, dict[str, Any]]] = {
    "efficientnet_b0": (1.0, 1.0, 0.2, {}),
    "efficientnet_b1": (1.0, 1.1, 0.2, {}),
    "efficientnet_b2": (1.1, 1.2, 0.3, {}),
    "efficientnet_b3": (1.2, 1.4, 0.3, {}),
    "efficientnet_b4": (1.4, 1.8, 0.4, {}),
    "efficientnet_b5": (1.6, 2.2, 0.4, _NORM),
    "efficientnet_b6": (1.8, 2.6, 0.5, _NORM),
    "efficientnet_b7": (2.0, 3.1, 0.5, _NORM),
}
# Table 1 of the paper: expansion, kernel, stride, channels in and out, layers.
_STAGES = (
    (1, 3, 1, 32, 16, 1),
    (6, 3, 2, 16, 24, 2),
    (6, 5, 2, 24, 40, 2),
    (6, 3, 2, 40, 80, 3),
    (6, 5, 1, 80, 112, 3),
    (6, 5, 2, 112, 192, 4),
    (6, 3, 1, 192, 320, 1),
)
# Channels of the stem, the three stages and the last convolution (Ma et al. 2018, arXiv:1807.11164, table 5).
_SHUFFLENETS = {
    "shufflenet_v2_x0_5": (24, 48, 96, 192, 1024),
    "shufflenet_v2_x1_0": (24, 116, 232, 464, 1024),
    "shufflenet_v2_x1_5": (24, 176, 352, 704, 1024),
    "shufflenet_v2_x2_0": (24, 244, 488, 976, 2048),
}
TAKING_WIDTH = "mobilenet_v2, mobilenet_v3_*, mnasnet*, shufflenet_v2_* and efficientnet_b*"


def has_slimmed(model: str) -> bool:
    """Whether `slimmed` can build a torchvision model, by its name alone."""
    return model.startswith(("mobilenet_", "mnasnet")) or model in _SHUFFLENETS or model in _EFFICIENTNETS


def slimmed(name: str, model: str, width: float) -> Callable[..., nn.Module]:
    """Return what builds a torchvision model with `width` times its channels.

    Args:
        name: The model's name in error messages.
        model: Its name in torchvision.
        width: The multiplier, other than 1.

    Raises:
        ModelError: If the model's constructor takes no channels; the message says which models' do.
    """
    models = import_torchvision("models")

    builder: Callable[..., nn.Module] = models.get_model_builder(model)
    if model.startswith("mobilenet_"):
        return partial(builder, width_mult=width)
    if model.startswith("mnasnet"):
        return partial(models.MNASNet, float(model.removeprefix("mnasnet").replace("_", ".")) * width)
    if model in _SHUFFLENETS:
        return partial(models.ShuffleNetV2, [4, 8, 4], [_even(channels * width) for channels in _SHUFFLENETS[model]])
    if model in _EFFICIENTNETS:
        return partial(_efficientnet, models.efficientnet, *_EFFICIENTNETS[model], width=width)
    raise ModelError(
        f"model {name!r} has no width to vary, because torchvision fixes its channels, found {width}; accepted: 1; "
        f"torchvision models with a width are {TAKING_WIDTH}"
    )


def _even(channels: float) -> int:
    """Round to an even number, because a ShuffleNet block halves its channels."""
    return max(2, 2 * round(channels / 2))


def _efficientnet(
    efficientnet: Any, wide: float, deep: float, dropout: float, norm: dict[str, Any], width: float
) -> nn.Module:
    setting = [efficientnet.MBConvConfig(*stage, width_mult=wide * width, depth_mult=deep) for stage in _STAGES]
    built: nn.Module = efficientnet.EfficientNet(setting, dropout, norm_layer=partial(nn.BatchNorm2d, **norm))
    return built
