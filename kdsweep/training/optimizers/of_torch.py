"""Optimizers of `torch.optim` or of the same kind, taken as they are: `train.optimizer: torch.optim:RMSprop`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

from kdsweep.distributions import Valid
from kdsweep.lazy import nn, torch
from kdsweep.params import Param, summary
from kdsweep.training.optimizers.base import Optimizer, _laid_out_as

SCALARS = (bool, int, float, str)


@dataclass(frozen=True)
class LikeDefault(Valid):
    """Values of the kind of a default: a truth value, a number, a word or as many numbers; anything beside None."""

    default: Any

    def contains(self, value: object) -> bool:
        """Whether `value` is of that kind."""
        default = self.default
        if isinstance(default, tuple):
            return isinstance(value, list | tuple) and len(value) == len(default)
        if isinstance(default, bool) or isinstance(value, bool):
            return default is None or (isinstance(value, bool) and isinstance(default, bool))
        return default is None or isinstance(value, str) == isinstance(default, str)

    def described(self) -> str:
        """By example."""
        return f"such as {list(self.default) if isinstance(self.default, tuple) else self.default}"


class OfTorch(Optimizer):
    """An optimizer of `torch.optim`; the first of a process imports PyTorch's compiler.

    Args:
        weights: What is trained.
        params: Values of its parameters.
    """

    made: ClassVar[type[Any]]

    def __init__(self, weights: Sequence[nn.Parameter], **params: Any):
        super().__init__(weights, **params)
        given = {key: getattr(self, key) for key in self.params()}
        given |= {key: tuple(value) for key, value in given.items() if isinstance(value, list)}
        self._optimizer = self.made(self.weights, **given)

    def step(self) -> None:
        """As the class does."""
        for group in self._optimizer.param_groups:
            group["lr"] = self.rate
        self._optimizer.step()

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The class's own state, numbers in it as tensors under `index/name#`; whatever is None is left out."""
        tensors: dict[str, torch.Tensor] = {}
        for index, state in self._optimizer.state_dict()["state"].items():
            for name, kept in state.items():
                if isinstance(kept, torch.Tensor):
                    tensors[f"{index}/{name}"] = kept
                elif kept is not None:
                    tensors[f"{index}/{name}#"] = torch.tensor(kept)
        return tensors

    def load_state_dict(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take back what `state_dict` gave."""
        states: dict[int, dict[str, Any]] = {}
        for key, tensor in tensors.items():
            index, _, name = key.partition("/")
            number = name.endswith("#")
            kept = tensor.item() if number else _laid_out_as(self.weights[int(index)], tensor)
            states.setdefault(int(index), {})[name.removesuffix("#")] = kept
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": states})


@cache
def adapted(cls: Any) -> type[Optimizer]:
    """A class that makes optimizers of a subclass of `torch.optim.Optimizer`.

    Its parameters are those that the constructor gives a default, and `lr`.
    """
    declared = {
        name: Param(parameter.default, f"see {cls.__name__}", valid=LikeDefault(parameter.default))
        for name, parameter in inspect.signature(cls).parameters.items()
        if name != "lr" and (parameter.default is None or isinstance(parameter.default, (*SCALARS, tuple)))
    }
    return type(cls.__name__, (OfTorch,), {"__doc__": summary(cls), "name": cls.__name__, "made": cls, **declared})
