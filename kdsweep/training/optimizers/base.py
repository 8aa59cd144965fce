"""The optimizer base class: declared parameters, per-weight state, and the update step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

from kdsweep.distributions import Uniform
from kdsweep.lazy import nn, torch
from kdsweep.params import Declared, Param, Parts

Stacks = Literal["", "gradient", "weights"]
State: TypeAlias = "dict[str, torch.Tensor]"  # quoted: torch is not imported yet


class Optimizer(Declared):
    """Updates weights from their gradients.

    A subclass declares its parameters as `Param` attributes and implements `update`. Parameters named `lr`,
    `weight_decay`, `momentum`, `dampening` or `nesterov` take their values from the keys of the same name under
    `train` in the sweep file.

    A step that does not depend on the weights, apart from their decay, can be made for several students at once, each
    with its own learning rate and decay (see `training.cohort`). `stacks` says so, and how the weights decay:
    `gradient` adds `weight_decay` times the weight to its gradient, `weights` shrinks the weight by that times the
    learning rate. The step must be proportional to the learning rate, and `update` must treat the numbers in a weight
    one by one. A subclass does not inherit it.

    Args:
        weights: The trainable weights. A resumed run must pass them in the same order.
        params: Values of the declared parameters.

    Attributes:
        rate: The learning rate of the next step: a number, or a float32 scalar on the device, which saves CUDA from
            waiting for the host. Training sets it before each step.
        states: One state per weight, in the order of the weights; empty before the weight's first gradient.
    """

    kind = "optimizer"
    stacks: ClassVar[Stacks] = ""
    lr = Param(1e-3, "learning rate, before its schedule", valid=Uniform(0.0, 1e38))

    def __init__(self, weights: Sequence[nn.Parameter], **params: Any):
        super().__init__(**params)
        self.weights = list(weights)
        self.rate: float | torch.Tensor = self.lr
        self.states: list[State] = [{} for _ in self.weights]

    def begin(self, weight: torch.Tensor) -> State:
        """Create the state of a weight, as tensors by name. Called at its first gradient."""
        return {}

    def update(self, weights: list[torch.Tensor], gradients: list[torch.Tensor], states: list[State]) -> None:
        """Update weights of one dtype in place at the learning rate `self.rate`. Runs under `no_grad`.

        Args:
            weights: The weights that have a gradient.
            gradients: Their gradients, of the same shapes.
            states: Their states as created by `begin`, updated in place.
        """
        raise NotImplementedError

    def step(self) -> None:
        """Update every weight that has a gradient."""
        with torch.no_grad():
            for weights, states in self._by_type():
                self.update(list(weights), [_gradient(weight) for weight in weights], states)

    def zero_grad(self) -> None:
        for weight in self.weights:
            weight.grad = None

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the state tensors, keyed `index/name`, where `index` is the position of the weight."""
        return {f"{index}/{name}": kept for index, state in enumerate(self.states) for name, kept in state.items()}

    def load_state_dict(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Restore the state saved by `state_dict`.

        Raises:
            IndexError: If a key refers to a weight that this optimizer does not have.
            ValueError: If a key does not start with an index.
        """
        self.states = [{} for _ in self.weights]
        for key, tensor in tensors.items():
            index, _, name = key.partition("/")
            self.states[int(index)][name] = laid_out_as(self.weights[int(index)], tensor)

    def _by_type(self) -> list[tuple[list[nn.Parameter], list[State]]]:
        """Group the weights that have a gradient, and their states, by dtype. A fused kernel takes a single dtype."""
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


def laid_out_as(weight: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """Move a tensor to a weight's device, and to its memory layout if the shapes match, as fused kernels require."""
    if tensor.shape == weight.shape:
        return torch.empty_like(weight, dtype=tensor.dtype, requires_grad=False).copy_(tensor)
    return tensor.to(weight.device)


def _adapted(found: Any) -> Any:
    """Wrap a `torch.optim` class as an Optimizer; return anything else unchanged."""
    if isinstance(found, type) and issubclass(found, torch.optim.Optimizer):
        from kdsweep.training.optimizers.of_torch import adapted

        return adapted(found)  # type: ignore[arg-type]  # a class is hashable
    return found


OPTIMIZERS: Parts[Optimizer] = Parts(Optimizer, "kdsweep.training.optimizers", _adapted)
