"""Adapter for `torch.optim` optimizers and subclasses: `train.optimizer: torch.optim:RMSprop`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

from kdsweep.distributions import Valid
from kdsweep.lazy import nn, torch
from kdsweep.params import Param, summary
from kdsweep.training.optimizers.base import Optimizer, laid_out_as

SCALARS = (bool, int, float, str)


@dataclass(frozen=True)
class LikeDefault(Valid):
    """Values of the same kind as a default: bool, number, string or a list of the same length. None allows anything."""

    default: Any

    def contains(self, value: object) -> bool:
        default = self.default
        if isinstance(default, tuple):
            return isinstance(value, list | tuple) and len(value) == len(default)
        if isinstance(default, bool) or isinstance(value, bool):
            return default is None or (isinstance(value, bool) and isinstance(default, bool))
        return default is None or isinstance(value, str) == isinstance(default, str)

    def described(self) -> str:
        """Give the default as an example."""
        return f"such as {list(self.default) if isinstance(self.default, tuple) else self.default}"


class OfTorch(Optimizer):
    """Wraps a `torch.optim` optimizer. The first one in a process imports PyTorch's compiler.

    Args:
        weights: The trainable weights.
        params: Values of the declared parameters.
    """

    made: ClassVar[type[Any]]

    def __init__(self, weights: Sequence[nn.Parameter], **params: Any):
        super().__init__(weights, **params)
        given = {key: getattr(self, key) for key in self.params()}
        given |= {key: tuple(value) for key, value in given.items() if isinstance(value, list)}
        self._optimizer = self.made(self.weights, **given)

    def step(self) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = self.rate
        self._optimizer.step()

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the wrapped optimizer's state. Numbers become tensors under `index/name#`; None values are omitted."""
        tensors: dict[str, torch.Tensor] = {}
        for index, state in self._optimizer.state_dict()["state"].items():
            for name, kept in state.items():
                if isinstance(kept, torch.Tensor):
                    tensors[f"{index}/{name}"] = kept
                elif kept is not None:
                    tensors[f"{index}/{name}#"] = torch.tensor(kept)
        return tensors

    def load_state_dict(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Restore the state saved by `state_dict`."""
        states: dict[int, dict[str, Any]] = {}
        for key, tensor in tensors.items():
            index, _, name = key.partition("/")
            number = name.endswith("#")
            kept = tensor.item() if number else laid_out_as(self.weights[int(index)], tensor)
            states.setdefault(int(index), {})[name.removesuffix("#")] = kept
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": states})


@cache
def adapted(cls: Any) -> type[Optimizer]:
    """Create an Optimizer class that wraps a subclass of `torch.optim.Optimizer`.

    It declares `lr` and every constructor argument whose default is a scalar, a string, a tuple or None.
    """
    declared = {
        name: Param(parameter.default, f"see {cls.__name__}", valid=LikeDefault(parameter.default))
        for name, parameter in inspect.signature(cls).parameters.items()
        if name != "lr" and (parameter.default is None or isinstance(parameter.default, (*SCALARS, tuple)))
    }
    return type(cls.__name__, (OfTorch,), {"__doc__": summary(cls), "name": cls.__name__, "made": cls, **declared})
