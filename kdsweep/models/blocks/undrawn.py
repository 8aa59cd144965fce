"""Build models without initialising their parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

_DRAWS = ("uniform_", "normal_", "trunc_normal_")


class Undrawn(TorchFunctionMode):
    """Context manager that allocates parameters without filling them, so that a model is built in milliseconds.

    `torch.nn.init` and random draws do nothing to parameters; buffers are filled as usual. Even a huge model takes
    almost no memory, because the operating system commits pages only when they are touched.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Skip `func` if it would fill a parameter."""
        kwargs = kwargs or {}
        filled = args[0] if args else kwargs.get("tensor")
        fills = getattr(func, "__module__", "") == nn.init.__name__ or getattr(func, "__name__", "") in _DRAWS
        return filled if fills and isinstance(filled, nn.Parameter) else func(*args, **kwargs)
