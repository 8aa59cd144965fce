"""PyTorch, imported at its first use.

Importing torch takes seconds. What declares methods, models and data sets, and what checks a sweep file against
those declarations, must not wait for it: `from kdsweep.lazy import F, nn, torch` looks like the real modules to the
reader and the type checker, and loads them when a function first touches one.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch as torch
    from torch import nn as nn
    from torch.nn import functional as F
else:

    class _Lazy(ModuleType):
        def __getattr__(self, name: str) -> Any:
            value = getattr(import_module(self.__name__), name)
            setattr(self, name, value)
            return value

    torch, nn, F = _Lazy("torch"), _Lazy("torch.nn"), _Lazy("torch.nn.functional")

__all__ = ["F", "nn", "torch"]
