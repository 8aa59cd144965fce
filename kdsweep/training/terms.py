"""The distillation terms of K members, computed at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kdsweep import methods
from kdsweep.lazy import nn, torch
from kdsweep.methods import Method, MethodSum, Outputs
from kdsweep.training.recipe import Recipe


class StackedTerm:
    """Calls a method's `term` once for all members (see `Method.stacks`).

    Args:
        method: The method, created for one member; its parameters, adapters and buffers are those of the first.
        recipes: The recipes of the members.
        device: The device.

    Attributes:
        method: The method. Its buffers are common to all members.
        adapters: The adapters' trainable weights by name, [K, ...] each.
        weight: The scale of each member's term, [K].
    """

    def __init__(self, method: Method, recipes: Sequence[Recipe], device: torch.device):
        self.method = method
        members = len(recipes)
        trainable = ((name, weight) for name, weight in method.adapters.named_parameters() if weight.requires_grad)
        self.adapters = {
            name: nn.Parameter(weight.detach().expand(members, *weight.shape).clone()) for name, weight in trainable
        }
        values = [methods.values(one.method, one.method_params) for one in recipes]
        is_sum = isinstance(method, MethodSum)
        scales = [1.0 if is_sum else one[recipes[0].method]["weight"] for one in values]
        self.weight = torch.tensor(scales, device=device, dtype=torch.float32)
        self._free = [
            (part, name, torch.tensor([float(one[term][name]) for one in values], device=device))
            for term, part in _parts(method, recipes[0].method).items()
            for name in values[0][term]
            if (is_sum or name != "weight") and any(one[term][name] != values[0][term][name] for one in values)
        ]

    def __call__(self, student: Outputs, teacher: Outputs, labels: torch.Tensor) -> torch.Tensor:
        """Return the unweighted term of each member, [K].

        Args:
            student: The students' outputs, each tensor beginning with the members.
            teacher: The teacher's outputs.
            labels: [B].
        """
        free = [values for _, _, values in self._free]
        # Made anew each time: kept, it would be in a cycle with this object, whose GPU memory would wait for the
        # garbage collector.
        together = torch.vmap(self._one, in_dims=(0, None, None, 0, 0))
        terms: torch.Tensor = together(student, teacher, labels, self.adapters, free)
        return terms

    def state_of(self, member: int) -> dict[str, torch.Tensor]:
        """Return what `Method.state_dict` would return for one member."""
        return {**self.method.state_dict(), **{name: weight[member] for name, weight in self.adapters.items()}}

    def load(self, member: int, tensors: Mapping[str, torch.Tensor]) -> None:
        """Restore one member's adapters, and the buffers.

        Raises:
            RuntimeError: If a name or a shape differs.
        """
        self.method.load_state_dict(tensors)
        with torch.no_grad():
            for name, weight in self.adapters.items():
                weight[member].copy_(tensors[name])

    def _one(
        self,
        student: Outputs,
        teacher: Outputs,
        labels: torch.Tensor,
        adapters: Mapping[str, torch.Tensor],
        free: Sequence[torch.Tensor],
    ) -> torch.Tensor:
        """Compute the term of one member, with its adapters and parameters in the method."""
        own_values = [(part, name, vars(part)[name]) for part, name, _ in self._free]
        own_weights = [(*_owner(self.method.adapters, name), weight) for name, weight in adapters.items()]
        parameters: list[dict[str, Any]] = [module._parameters for module, _, _ in own_weights]
        before = [of_module[leaf] for of_module, (_, leaf, _) in zip(parameters, own_weights, strict=True)]
        try:
            for (part, name, _), value in zip(own_values, free, strict=True):
                vars(part)[name] = value
            for of_module, (_, leaf, weight) in zip(parameters, own_weights, strict=True):
                weight._is_param = True  # so that the module accepts it as its parameter
                of_module[leaf] = weight
            return self.method(student, teacher, labels)
        finally:
            for part, name, value in own_values:
                vars(part)[name] = value
            for of_module, (_, leaf, _), kept in zip(parameters, own_weights, before, strict=True):
                of_module[leaf] = kept


def _parts(method: Method, name: str) -> dict[str, Any]:
    return dict(method.parts) if isinstance(method, MethodSum) else {name: method}


def _owner(adapters: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return adapters.get_submodule(path), leaf
