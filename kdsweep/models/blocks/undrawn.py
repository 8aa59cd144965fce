"""Models whose parameters hold nothing yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

_DRAWS = ("uniform_", "normal_", "trunc_normal_")


class Undrawn(TorchFunctionMode):
    """While it is entered, parameters are allocated and not filled: a model is built in milliseconds.

    The system gives memory to what is written or read, not to what is allocated, so even an absurdly large model
    takes next to none. What `torch.nn.init` and random draws would do to a parameter is left out; buffers are as ever.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Leave out `func` where it would fill a parameter."""
        kwargs = kwargs or {}
        filled = args[0] if args else kwargs.get("tensor")
        fills = getattr(func, "__module__", "") == nn.init.__name__ or getattr(func, "__name__", "") in _DRAWS
        return filled if fills and isinstance(filled, nn.Parameter) else func(*args, **kwargs)
