"""What one forward pass of a model costs: floating-point operations and memory of activations."""

from __future__ import annotations

import weakref
from typing import Any

from kdsweep.lazy import nn, torch
from kdsweep.models.foreign import undisturbed


def count_flops(model: nn.Module, samples: torch.Tensor) -> int:
    """Floating-point operations of a forward pass in eval mode, as `torch.utils.flop_counter` counts them.

    It counts convolutions, matrix products and attention, two operations for each multiply-add. Biases, normalisation,
    activations and pooling are not counted.

    Args:
        model: The model; unchanged afterwards.
        samples: Input [B, ...] on the model's device.
    """
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with undisturbed(model), counter:
        model(samples)
    return int(counter.get_total_flops())


def activation_mb(model: nn.Module, samples: torch.Tensor) -> float:
    """Peak size, in MiB, of the tensors that exist at the same time during a forward pass in eval mode.

    Counts the input and what the operators return, but neither parameters and buffers nor the operators' own workspace.
    Depends on the shapes only.

    Args:
        model: The model; unchanged afterwards.
        samples: Input [B, ...] on the model's device.
    """
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    known = {_address(tensor) for tensor in (*model.parameters(), *model.buffers())}
    live: dict[int, int] = {}
    peak = 0

    def add(tensor: torch.Tensor) -> None:
        nonlocal peak
        storage, address = tensor.untyped_storage(), _address(tensor)
        if address in known or address in live or not address:
            return
        live[address] = storage.nbytes()
        weakref.finalize(storage, live.pop, address, None)
        peak = max(peak, sum(live.values()))

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = func(*args, **(kwargs or {}))
            for leaf in tree_leaves(found):
                if isinstance(leaf, torch.Tensor):
                    add(leaf)
            return found

    samples = samples.clone()  # a slice would count as the whole batch that it is taken from
    add(samples)
    with undisturbed(model), Watch():
        model(samples)
    return peak / 1024**2


def _address(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage().data_ptr())
