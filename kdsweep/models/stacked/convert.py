"""Turns a model into the model of K members, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from kdsweep.errors import ModelError
from kdsweep.lazy import import_torchvision
from kdsweep.models.blocks.drop_path import DropPath
from kdsweep.models.stacked.layers import (
    StackedBatchNorm,
    StackedConv2d,
    StackedDropout,
    StackedGroupNorm,
    StackedLayer,
    StackedLinear,
)


class StackError(ModelError):
    """The model has a part without a rule, so its students train one by one."""


# Layers that treat channels one by one, so that they need no change.
_KEPT = (
    nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid, nn.Softplus,
    nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d,
    nn.ZeroPad2d, nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.Upsample, DropPath,
)  # fmt: skip
_STACKED: Mapping[type[nn.Module], Callable[..., StackedLayer]] = {
    nn.Conv2d: StackedConv2d,
    nn.Linear: StackedLinear,
    nn.BatchNorm1d: StackedBatchNorm,
    nn.BatchNorm2d: StackedBatchNorm,
    nn.GroupNorm: StackedGroupNorm,
}


def stack(model: nn.Module, members: int, batch: torch.Tensor) -> nn.Module:
    """Replace the layers of a model in place by those of K members, which all begin with its weights.

    Code between the layers is not looked at; `check.fault` compares the outputs.

    Args:
        model: The model.
        members: K.
        batch: A few samples of its input.

    Returns:
        The model.

    Raises:
        StackError: If a layer has no rule.
    """
    features = _features(model, batch)
    replaced: dict[str, nn.Module] = {}
    seen: dict[int, str] = {}
    for path, layer in model.named_modules(remove_duplicate=False):
        made = _rule(path, layer, members, features)
        if made is None:
            continue
        if id(layer) in seen and seen[id(layer)] != path and isinstance(made, StackedLayer):
            raise StackError(f"layers {seen[id(layer)]} and {path} are one")
        seen[id(layer)] = path
        if made is not layer:
            replaced[path] = made
    for path, made in replaced.items():
        model.set_submodule(path, made)
    return model


def resize(model: nn.Module, members: int) -> None:
    """Change the number of members of a model that `stack` returned. Its weights and buffers become zero."""
    for layer in model.modules():
        if isinstance(layer, StackedLayer):
            layer.members = members
            for tensor in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)):
                tensor.data = tensor.data.new_zeros(members, *tensor.shape[1:])
                tensor.grad = None


def _rule(path: str, layer: nn.Module, members: int, features: Mapping[str, int]) -> nn.Module | None:
    """Return the layer of K members, the layer itself if it needs no change, or None for a container.

    Raises:
        StackError: If there is no rule.
    """
    kind = type(layer)
    if kind in _STACKED and _plain(layer):
        return _STACKED[kind](layer, members)
    if isinstance(layer, nn.Dropout) and kind is nn.Dropout:
        return StackedDropout(layer, members, features.get(path, 0))
    if kind in _KEPT or _is_stochastic_depth(layer) or (kind is nn.Flatten and _flattens_samples(layer)):
        return layer
    own = (*layer.parameters(recurse=False), *layer.buffers(recurse=False))
    if own or not any(layer.children()):
        if kind is nn.Sequential and not own:
            return layer  # an empty one
        raise StackError(f"layer {path or 'the model itself'} ({kind.__name__}) has no rule for several members")
    return None


def _plain(layer: nn.Module) -> bool:
    """Whether a layer is as the rules expect it: zero padding, and running statistics with a fixed momentum."""
    if isinstance(layer, nn.Conv2d):
        return layer.padding_mode == "zeros"
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
        return layer.momentum is not None and layer.running_mean is not None
    return True


def _flattens_samples(layer: Any) -> bool:
    return (layer.start_dim, layer.end_dim) == (1, -1)


def _is_stochastic_depth(layer: nn.Module) -> bool:
    named = type(layer).__module__.startswith("torchvision.") and type(layer).__name__ == "StochasticDepth"
    return named and type(layer) is import_torchvision("ops").StochasticDepth


def _features(model: nn.Module, batch: torch.Tensor) -> dict[str, int]:
    """Return the size of dimension 1 of what each dropout receives, by path."""
    found: dict[str, int] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, path=path: found.update({path: inputs[0].shape[1]}))
        for path, layer in model.named_modules()
        if type(layer) is nn.Dropout
    ]
    training = [(layer, layer.training) for layer in model.modules()]
    try:
        with torch.no_grad():
            model.eval()(batch)
    finally:
        for hook in hooks:
            hook.remove()
        for layer, mode in training:
            layer.training = mode
    return found
