"""An exponential moving average of a model's weights, kept on the device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from kdsweep.lazy import nn, torch


class Average:
    """The exponential moving average of a model's weights and of its batch-norm statistics.

    After step n (from 0), `average += (1 - d) * (weights - average)` with `d = min(decay, (1 + n) / (10 + n))`: the
    decay rises to its value, so that the initial weights are soon forgotten (as TensorFlow's ExponentialMovingAverage
    does with `num_updates`). Running means and variances are averaged like weights, as in timm's ModelEmaV3. Buffers of
    whole numbers, such as the number of batches seen, are the model's own.

    Args:
        model: The model, on its device.
        decay: Share of the average that a step keeps, 0 <= decay < 1; 0 keeps no average.

    Attributes:
        steps: Number of steps averaged so far.
    """

    def __init__(self, model: nn.Module, decay: float):
        self._decay = decay
        self.steps = 0
        tensors = model.state_dict() if decay else {}
        self._weights = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
        self._average = {name: tensor.clone() for name, tensor in self._weights.items()}

    def update(self) -> None:
        """Take in the weights after a step, without waiting for the device."""
        if not self._weights:
            return
        decay = min(self._decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        with torch.no_grad():
            torch._foreach_lerp_([*self._average.values()], [*self._weights.values()], 1 - decay)

    def load_into_model(self) -> None:
        """Replace the model's weights by their average; without an average they stay."""
        _copy(self._weights, self._average)

    @contextmanager
    def in_model(self) -> Iterator[None]:
        """Replace the model's weights by their average, and put them back at the end."""
        trained = {name: tensor.clone() for name, tensor in self._weights.items()}
        self.load_into_model()
        try:
            yield
        finally:
            _copy(self._weights, trained)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the average by name; empty if none is kept."""
        return dict(self._average)

    def load_state_dict(self, tensors: Mapping[str, torch.Tensor], steps: int) -> None:
        """Restore what `state_dict` returned after `steps` steps.

        Raises:
            KeyError: If a tensor is missing.
            RuntimeError: If a shape differs.
        """
        _copy(self._average, tensors)
        self.steps = steps


def _copy(into: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in into.items():
            tensor.copy_(tensors[name])
