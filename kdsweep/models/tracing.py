"""Find the taps of an unregistered model by running it once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from kdsweep.errors import ModelError
from kdsweep.lazy import nn, torch
from kdsweep.models.base import Input, InputSpec, Taps
from kdsweep.models.blueprint import EXAMPLES
from kdsweep.models.foreign import run_example


class _Call(NamedTuple):
    """A module's last call: the shapes of its first input and its output, () for anything but a tensor."""

    module: nn.Module
    entry: tuple[int, ...]
    exit: tuple[int, ...]


_Calls = dict[str, _Call]


def find_taps(name: str, model: nn.Module, input_shape: Input) -> Taps:
    """Find a model's stage maps and head.

    The head is the last linear layer to run whose input is [B, D] and whose output has the logits' shape.

    There is one stage per resolution (H, W) as the maps shrink, as long as H and W are above 1: the output of the
    last module to run at that resolution, the outermost if several end there. Modules inside a block are skipped,
    because their outputs do not cut through the network (see `_is_block`). So is a bare stem, where only one layer
    with weights has run. Vision transformers and models of other samples therefore have no stages. Those of a model for
    texts are the items of its longest module list, if each returns hidden states [B, T, D].

    Args:
        name: The model's name in error messages.
        model: A module whose call returns logits [B, C].
        input_shape: Shape of one sample; (channels, height, width) for an image.

    Raises:
        ModelError: If the model does not accept such samples, or no linear layer outputs its logits.
    """
    calls = _trace(name, model, input_shape)
    logits = calls[""].exit
    heads = [
        path
        for path, call in calls.items()
        if isinstance(call.module, nn.Linear) and len(call.entry) == 2 and call.exit == logits
    ]
    if not heads:
        raise ModelError(f"model {name!r} has no linear layer that gives its logits, so no embedding to tap")
    given = InputSpec.of(input_shape)
    if given.vocabulary:
        return Taps(_layers(model, calls, given.shape[0]), heads[-1])
    return Taps(_stages(calls, given.shape) if len(given.shape) == 3 else (), heads[-1])


def _layers(model: nn.Module, calls: _Calls, length: int) -> tuple[str, ...]:
    """The paths of the layers of a model for texts."""
    lists = [
        [f"{path}.{place}" for place in range(len(module))]
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList | nn.Sequential)
    ]
    states = {path for path, call in calls.items() if len(call.exit) == 3 and call.exit[:2] == (EXAMPLES, length)}
    longest: list[str] = max((paths for paths in lists if states.issuperset(paths)), key=len, default=[])
    return tuple(longest)


def _trace(name: str, model: nn.Module, input_shape: Input) -> _Calls:
    """Record each module's last call, the one that a tap sees: a dict by path, in the order the calls returned."""
    calls: _Calls = {}

    def noter(path: str) -> Callable[..., None]:
        def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            calls.pop(path, None)
            calls[path] = _Call(module, _shape(next(iter(inputs), None)), _shape(output))

        return note

    hooks = [module.register_forward_hook(noter(path)) for path, module in model.named_modules()]
    try:
        run_example(name, model, input_shape)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def _shape(value: object) -> tuple[int, ...]:
    value = value[0] if isinstance(value, tuple) and value else value
    return tuple(value.shape) if isinstance(value, torch.Tensor) else ()


def _stages(calls: _Calls, input_shape: tuple[int, ...]) -> tuple[str, ...]:
    maps = {path: call.exit[2:] for path, call in calls.items() if _is_map(call, input_shape)}
    blocks = {path for path in calls if _is_block(path, calls, maps)}
    last: dict[tuple[int, ...], str] = {}
    smallest = input_shape[1:]
    for path, size in maps.items():
        inside = any(path.startswith(f"{block}.") for block in blocks)
        if not inside and all(a <= b for a, b in zip(size, smallest, strict=True)):
            last[size] = path
            smallest = size
    order = {path: place for place, path in enumerate(calls)}
    weighted = [order[path] for path, call in calls.items() if _has_weights(call.module)]
    deep = tuple(path for path in last.values() if sum(place <= order[path] for place in weighted) > 1)
    return deep or tuple(path for path in last.values() if not isinstance(calls[path].module, nn.Conv2d))


def _is_map(call: _Call, input_shape: tuple[int, ...]) -> bool:
    """Whether a module's output is a map to tap: [B, C, H, W] with the image's aspect ratio, H and W above 1.

    This rejects channels-last maps. Attention maps may pass the shape test, so softmax and dropout are excluded.
    """
    shape = call.exit
    if len(shape) != 4 or shape[0] != EXAMPLES or isinstance(call.module, nn.Dropout | nn.Dropout2d | nn.Softmax):
        return False
    _, height, width = input_shape
    return min(shape[2:]) > 1 and abs(shape[2] * width - shape[3] * height) <= 2 * max(height, width)


def _is_block(path: str, calls: _Calls, maps: dict[str, tuple[int, ...]]) -> bool:
    """Whether a module is a block: every map inside it has the resolution of its input or its output.

    A module that does not return a map is not a block, for example a wrapper or an `nn.Sequential` that ends in a pool.
    """
    call = calls[path]
    if len(call.exit) != 4 or (type(call.module) is nn.Sequential and path not in maps):
        return False
    inner = {size for other, size in maps.items() if other.startswith(f"{path}.")}
    return inner <= {call.entry[2:], call.exit[2:]}


def _has_weights(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, torch.Tensor) and weight.dim() > 1
