"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kdsweep.distributions import Uniform
from kdsweep.lazy import torch
from kdsweep.params import SWITCH, Param
from kdsweep.training.optimizers.base import OPTIMIZERS, Optimizer, State


@OPTIMIZERS.declare
class SGD(Optimizer):
    """Steps along the gradient, with momentum, optionally Nesterov's.

    Sutskever, Martens, Dahl, Hinton 2013, "On the importance of initialization and momentum in deep learning".
    """

    name = "sgd"
    stacks = "gradient"
    weight_decay = Param(0.0, "share of a weight that is added to its gradient", valid=Uniform(0.0, 1e3))
    momentum = Param(0.9, "share of the last direction that a step keeps", valid=Uniform(0.0, 1 - 1e-9))
    dampening = Param(0.0, "share of the gradient that momentum leaves out", valid=Uniform(0.0, 1.0))
    nesterov = Param(False, "look ahead along the momentum; needs momentum above 0, no dampening", valid=SWITCH)

    @classmethod
    def uses(cls, name: str, values: Mapping[str, Any]) -> bool:
        """Dampening needs momentum; Nesterov needs momentum and no dampening."""
        still = values.get("momentum") == 0
        if name == "nesterov":
            return not still and not values.get("dampening")
        return not (name == "dampening" and still) and super().uses(name, values)

    @classmethod
    def faults(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Nesterov needs momentum above 0 and dampening 0."""
        if values["nesterov"] and not cls.uses("nesterov", values):
            found = f"momentum {values['momentum']:g} and dampening {values['dampening']:g}"
            yield "nesterov", f"found true with {found}; accepted: true with momentum above 0 and dampening 0"

    def update(self, weights: list[torch.Tensor], gradients: list[torch.Tensor], states: list[State]) -> None:
        """Make one fused-kernel call, or two if only some weights are at their first gradient."""
        new = [not state for state in states]
        for first in set(new):
            chosen = [index for index, is_new in enumerate(new) if is_new is first]
            for index in chosen:
                if self.momentum and first:
                    states[index]["momentum_buffer"] = torch.empty_like(gradients[index])
            torch._fused_sgd_(
                [weights[index] for index in chosen],
                [gradients[index] for index in chosen],
                [states[index]["momentum_buffer"] for index in chosen] if self.momentum else [],
                lr=self.rate,
                weight_decay=self.weight_decay,
                momentum=self.momentum,
                dampening=self.dampening,
                nesterov=self.nesterov,
                maximize=False,
                is_first_step=bool(self.momentum) and first,
            )
