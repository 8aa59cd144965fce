"""Optimizer steps of K members, each with its own learning rate, weight decay and gradient norm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kdsweep.lazy import nn, torch
from kdsweep.training.optimizers import OPTIMIZERS
from kdsweep.training.section import OptimizationSpec

CLIP_EPSILON = 1e-6  # as in torch.nn.utils.clip_grad_norm_


class StackedUpdates:
    """Updates stacked weights.

    The optimizer itself steps from zero, at the learning rate 1 and without weight decay, which gives the direction of
    the step; each member then takes it at its own rate.

    Args:
        settings: The settings of each member, which differ in `lr`, `weight_decay` and `clip_norm` at most.
        weights: The weights of all members, [K, ...] each.
    """

    def __init__(self, settings: Sequence[OptimizationSpec], weights: Sequence[nn.Parameter]):
        self.weights = list(weights)
        first = settings[0]
        name, params = first.part(OPTIMIZERS, first.optimizer)
        self._decay_kind = vars(OPTIMIZERS.find(name))["stacks"]
        self._directions = [torch.zeros_like(weight, requires_grad=False) for weight in self.weights]
        made = OPTIMIZERS.create(name, self._directions, **{**params, "lr": 1.0, "weight_decay": 0.0})
        made.rate = 1.0
        self._optimizer = made
        rates = [one.scaled_lr for one in settings]
        decays = [float(one.part(OPTIMIZERS, one.optimizer)[1].get("weight_decay", 0.0)) for one in settings]
        if self._decay_kind == "weights":
            decays = [rate * decay for rate, decay in zip(rates, decays, strict=True)]
        self._rates = self._spread(rates)
        self._decays = self._spread(decays) if any(decays) else []
        norms = [one.clip_norm or float("inf") for one in settings]
        clips = any(one.clip_norm for one in settings)
        self._norms = torch.tensor(norms, device=self.weights[0].device) if clips else None

    def zero_grad(self) -> None:
        for weight in self.weights:
            weight.grad = None

    def step(self, multiplier: float) -> None:
        """Update every weight that has a gradient.

        Args:
            multiplier: The learning-rate schedule's multiplier.
        """
        with torch.no_grad():
            at = [place for place, weight in enumerate(self.weights) if weight.grad is not None]
            weights: list[torch.Tensor] = [self.weights[i] for i in at]
            gradients = [self._gradient(i) for i in at]
            directions, rates = [self._directions[i] for i in at], [self._rates[i] for i in at]
            if self._norms is not None:
                _clip(gradients, self._norms)
            decays = [self._decays[i] for i in at] if self._decays else []
            if decays and self._decay_kind == "gradient":
                torch._foreach_addcmul_(gradients, weights, decays)
            elif decays:
                torch._foreach_addcmul_(weights, weights, decays, -multiplier)
            torch._foreach_zero_(directions)
            for direction, gradient in zip(directions, gradients, strict=True):
                direction.grad = gradient
            self._optimizer.step()
            self._optimizer.zero_grad()
            torch._foreach_addcmul_(weights, directions, rates, multiplier)

    def state_of(self, member: int) -> dict[str, torch.Tensor]:
        """Return one member's state as its optimizer alone would have it."""
        return {
            f"{index}/{name}": (kept[member] if self._is_stacked(index, name) else kept).clone()
            for index, state in enumerate(self._optimizer.states)
            for name, kept in state.items()
        }

    def load(self, member: int, tensors: Mapping[str, torch.Tensor]) -> None:
        """Restore the state of one member.

        Raises:
            IndexError: If a key refers to a weight that does not exist.
            RuntimeError: If a shape differs.
            ValueError: If a key does not start with an index.
        """
        for key, tensor in tensors.items():
            index, _, name = key.partition("/")
            state, weight = self._optimizer.states[int(index)], self.weights[int(index)]
            stacked = self._is_stacked(int(index), name)
            if name not in state:
                whole = torch.zeros_like(weight, requires_grad=False) if stacked else weight.new_zeros(tensor.shape)
                state[name] = whole.to(tensor.dtype)
            (state[name][member] if stacked else state[name]).copy_(tensor)

    def _is_stacked(self, index: int, name: str) -> bool:
        """Whether a state tensor has a part for each member. The others, such as the step count, are common to all."""
        direction = self._directions[index]
        begun = self._optimizer.begin(direction)
        return name not in begun or begun[name].shape == direction.shape

    def _gradient(self, index: int) -> torch.Tensor:
        gradient = self.weights[index].grad
        assert gradient is not None
        return gradient

    def _spread(self, values: Sequence[float]) -> list[torch.Tensor]:
        """Return the members' values once for each number in the weights, which one kernel for all weights needs."""
        each = torch.tensor(values, device=self.weights[0].device)
        return [
            each.view(-1, *[1] * (weight.ndim - 1)).expand(weight.shape).to(weight.dtype).contiguous()
            for weight in self.weights
        ]


def _clip(gradients: Sequence[torch.Tensor], norms: torch.Tensor) -> None:
    """Scale each member's gradients down to its norm [K], as `clip_grad_norm_` does for one."""
    each = torch.stack([gradient.reshape(len(gradient), -1).norm(dim=1) for gradient in gradients])
    scale = (norms / (each.norm(dim=0) + CLIP_EPSILON)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale.view(-1, *[1] * (gradient.ndim - 1)))
