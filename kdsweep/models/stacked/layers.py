"""Layers with weights for K members, and dropout with the same mask for all members."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


class StackedLayer(nn.Module):
    """A layer of K members. Its weights and buffers have the names of the member's layer, and are [K, ...].

    Args:
        layer: The layer of one member; every member begins with a copy of its weights and buffers.
        members: K.

    Attributes:
        members: K.
    """

    def __init__(self, layer: nn.Module, members: int):
        super().__init__()
        self.members = members
        for name, weight in layer.named_parameters(recurse=False):
            made = nn.Parameter(_repeated(weight.detach(), members), requires_grad=weight.requires_grad)
            self.register_parameter(name, made)
        for name, buffer in layer.named_buffers(recurse=False):
            self.register_buffer(name, _repeated(buffer, members))
        self.train(layer.training)

    def stacked(self, name: str) -> torch.Tensor | None:
        """Return a weight or buffer [K, C, ...] as [K*C, ...], or None if the layer has none of this name."""
        found = getattr(self, name, None)
        return None if found is None else found.flatten(0, 1)


class StackedConv2d(StackedLayer):
    """K convolutions: one wide one if they share the input, otherwise one with K times the groups."""

    def __init__(self, layer: nn.Conv2d, members: int):
        super().__init__(layer, members)
        self._inputs, self._groups = layer.in_channels, layer.groups
        self._options: dict[str, Any] = {
            "stride": layer.stride,
            "padding": layer.padding,
            "dilation": layer.dilation,
        }

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Map [B, C, H, W] or [B, K*C, H, W] to [B, K*O, H', W']."""
        weight, bias = self.stacked("weight"), self.stacked("bias")
        assert weight is not None
        shared = maps.shape[1] == self._inputs
        if shared and self._groups > 1:
            maps, shared = maps.repeat(1, self.members, 1, 1), False
        return F.conv2d(maps, weight, bias, groups=1 if shared else self._groups * self.members, **self._options)


class StackedLinear(StackedLayer):
    """K linear layers: one wide one if they share the input, otherwise one batched product."""

    def __init__(self, layer: nn.Linear, members: int):
        super().__init__(layer, members)
        self._inputs = layer.in_features

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Map [B, D], [B, K*D] or [K, B, D] to [K, B, O]."""
        weight: torch.Tensor = self.weight  # type: ignore[assignment]
        bias: torch.Tensor | None = self.bias  # type: ignore[assignment]
        if vectors.ndim == 2 and vectors.shape[1] == self._inputs:
            wide = F.linear(vectors, weight.flatten(0, 1), None if bias is None else bias.flatten())
            return _by_member(wide, self.members)
        if vectors.ndim == 2:
            vectors = _by_member(vectors, self.members)
        if bias is None:
            return torch.bmm(vectors, weight.transpose(1, 2))
        return torch.baddbmm(bias[:, None], vectors, weight.transpose(1, 2))


class StackedBatchNorm(StackedLayer):
    """K batch norms, each with the statistics of its member."""

    def __init__(self, layer: nn.BatchNorm1d | nn.BatchNorm2d, members: int):
        super().__init__(layer, members)
        self._features, self._eps, self._momentum = layer.num_features, layer.eps, layer.momentum

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Normalise [B, C, ...], [B, K*C, ...] or [K, B, C]; the result has the members along dimension 1 or 0."""
        if values.ndim == 3:
            folded = values.transpose(0, 1).flatten(1)
            return _by_member(self._normalised(folded), self.members)
        if values.shape[1] == self._features:
            values = values.repeat(1, self.members, *[1] * (values.ndim - 2))
        return self._normalised(values)

    def _normalised(self, values: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.num_batches_tracked.add_(1)  # type: ignore[operator]
        mean, variance, weight, bias = map(self.stacked, ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(values, mean, variance, weight, bias, self.training, self._momentum or 0.0, self._eps)


class StackedGroupNorm(StackedLayer):
    """K group norms."""

    def __init__(self, layer: nn.GroupNorm, members: int):
        super().__init__(layer, members)
        self._groups, self._channels, self._eps = layer.num_groups, layer.num_channels, layer.eps

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Normalise [B, C, H, W] or [B, K*C, H, W]; the result is [B, K*C, H, W]."""
        if maps.shape[1] == self._channels:
            maps = maps.repeat(1, self.members, *[1] * (maps.ndim - 2))
        weight, bias = self.stacked("weight"), self.stacked("bias")
        return F.group_norm(maps, self._groups * self.members, weight, bias, self._eps)


class StackedDropout(StackedLayer):
    """Dropout with one mask for all members: the one that a member alone would draw.

    Args:
        layer: The dropout of one member.
        members: K.
        features: Size of dimension 1 of a member's activations.
    """

    def __init__(self, layer: nn.Dropout, members: int, features: int):
        super().__init__(layer, members)
        self._p, self._features = layer.p, features

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Drop [B, D, ...], [B, K*D, ...] or [K, B, D], which keep their shape."""
        if not self.training or self._p == 0:
            return values
        if values.ndim == 3:
            return values * self._mask(values.new_empty(values.shape[1:]))
        if values.shape[1] == self._features:
            return F.dropout(values, self._p, training=True)
        of_one = values.new_empty(values.shape[0], self._features, *values.shape[2:])
        if values.ndim == 4:
            of_one = of_one.to(memory_format=torch.channels_last)
        dropped: torch.Tensor = values.unflatten(1, (self.members, -1)) * self._mask(of_one)[:, None]
        return dropped.flatten(1, 2)

    def _mask(self, of_one: torch.Tensor) -> torch.Tensor:
        return F.dropout(of_one.fill_(1), self._p, training=True)


def _by_member(vectors: torch.Tensor, members: int) -> torch.Tensor:
    """View [B, K*D] as [K, B, D]."""
    split: torch.Tensor = vectors.unflatten(1, (members, -1))
    return split.transpose(0, 1)


def _repeated(tensor: torch.Tensor, members: int) -> torch.Tensor:
    return tensor.contiguous().expand(members, *tensor.shape).clone(memory_format=torch.contiguous_format)
