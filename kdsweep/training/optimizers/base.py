"""The contract of an optimizer: what it declares, what it keeps for each weight, and how it steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from kdsweep.distributions import Uniform
from kdsweep.lazy import nn, torch
from kdsweep.params import Declared, Param, Parts

State: TypeAlias = "dict[str, torch.Tensor]"  # quoted: torch is not imported yet


class Optimizer(Declared):
    """Steps weights along their gradients.

    A subclass declares its parameters as `Param` attributes and computes `update`. Parameters called `lr`,
    `weight_decay`, `momentum`, `dampening` or `nesterov` get the values of these keys of a sweep file's `train`.

    Args:
        weights: What is trained, in an order that a resumed run repeats.
        params: Values of the declared parameters.

    Attributes:
        rate: The learning rate of the next step: a number or, so that CUDA need not wait for the host, a float32
            scalar on the device. Training sets it before each step.
        states: What is kept for each weight, in the order of the weights; empty before its first gradient.
    """

    kind = "optimizer"
    lr = Param(1e-3, "learning rate, before its schedule", valid=Uniform(0.0, 1e38))

    def __init__(self, weights: Sequence[nn.Parameter], **params: Any):
        super().__init__(**params)
        self.weights = list(weights)
        self.rate: float | torch.Tensor = self.lr
        self.states: list[State] = [{} for _ in self.weights]

    def begin(self, weight: torch.Tensor) -> State:
        """What is kept for a weight, at its first gradient: tensors by name."""
        return {}

    def update(self, weights: list[torch.Tensor], gradients: list[torch.Tensor], states: list[State]) -> None:
        """Step weights of one type in place, at the learning rate `self.rate`, without gradient tracking.

        Args:
            weights: Those that have a gradient.
            gradients: Theirs, of the same shapes.
            states: What `begin` made for them, to be changed in place.
        """
        raise NotImplementedError

    def step(self) -> None:
        """Step every weight that has a gradient."""
        with torch.no_grad():
            for weights, states in self._by_type():
                self.update(list(weights), [_gradient(weight) for weight in weights], states)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for weight in self.weights:
            weight.grad = None

    def state_dict(self) -> dict[str, torch.Tensor]:
        """What is kept, as `index/name`, where index counts the weights."""
        return {f"{index}/{name}": kept for index, state in enumerate(self.states) for name, kept in state.items()}

    def load_state_dict(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            IndexError: If there are more weights in it.
            ValueError: If it is not an index and a name.
        """
        self.states = [{} for _ in self.weights]
        for key, tensor in tensors.items():
            index, _, name = key.partition("/")
            self.states[int(index)][name] = _laid_out_as(self.weights[int(index)], tensor)

    def _by_type(self) -> list[tuple[list[nn.Parameter], list[State]]]:
        """The weights that have a gradient, with their states: a fused kernel takes tensors of one type."""
        groups: dict[torch.dtype, tuple[list[nn.Parameter], list[State]]] = {}
        for weight, state in zip(self.weights, self.states, strict=True):
            if weight.grad is None:
                continue
            if not state:
                state.update(self.begin(weight))
            weights, states = groups.setdefault(weight.dtype, ([], []))
            weights.append(weight)
            states.append(state)
        return list(groups.values())


def _gradient(weight: nn.Parameter) -> torch.Tensor:
    assert weight.grad is not None
    return weight.grad


def _laid_out_as(weight: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """A tensor on the device of a weight, and in its memory layout if of its shape: kernels step through both."""
    if tensor.shape == weight.shape:
        return torch.empty_like(weight, dtype=tensor.dtype, requires_grad=False).copy_(tensor)
    return tensor.to(weight.device)


def _adapted(found: Any) -> Any:
    """A class of `torch.optim` as an Optimizer; anything else as it is."""
    if isinstance(found, type) and issubclass(found, torch.optim.Optimizer):
        from kdsweep.training.optimizers.of_torch import adapted

        return adapted(found)  # type: ignore[arg-type]  # a class is hashable
    return found


OPTIMIZERS: Parts[Optimizer] = Parts(Optimizer, "kdsweep.training.optimizers", _adapted)
