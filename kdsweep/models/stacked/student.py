"""A stacked model with the outputs that methods compare."""

from __future__ import annotations

import torch
from torch import nn

from kdsweep.methods.base import Outputs, Shapes
from kdsweep.models.base import Tapped, Taps


class StackedStudent:
    """Wrap a stacked model so that a call returns `Outputs` whose tensors all begin with the members.

    Args:
        model: What `stack` returned.
        taps: The modules to record.
        shapes: Shapes of one member's outputs.
        members: K.
    """

    def __init__(self, model: nn.Module, taps: Taps, shapes: Shapes, members: int):
        self.model = model
        self.members = members
        self._tapped = Tapped(model, taps)
        self._shapes = shapes

    def __call__(self, batch: torch.Tensor) -> Outputs:
        """Run all members on a batch [B, ...]: logits are [K, B, C], and so on; `classifier` is empty."""
        seen, shapes = self._tapped(batch), self._shapes
        pairs = zip(seen.features, shapes.features, strict=True)
        return Outputs(
            self._by_member(seen.logits, shapes.logits.shape[1]),
            self._by_member(seen.embedding, shapes.embedding.shape[1]),
            tuple(self._by_member(features, shape.shape[1]) for features, shape in pairs),
        )

    def logits(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the logits [K, B, C] alone."""
        return self(batch).logits

    def close(self) -> None:
        """Remove the taps."""
        self._tapped.close()

    def _by_member(self, seen: torch.Tensor, size: int) -> torch.Tensor:
        """View the outputs of a layer as [K, B, size, ...]."""
        if seen.ndim == 3:  # of a linear layer
            return seen
        if seen.shape[1] == size:
            return seen.expand(self.members, *seen.shape)
        split: torch.Tensor = seen.unflatten(1, (self.members, size))
        return split.transpose(0, 1)
