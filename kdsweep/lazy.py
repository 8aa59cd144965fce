"""Lazy import of PyTorch.

Importing torch takes seconds, and the modules that declare methods, models and data sets, or validate a sweep file, do
not need it. `from kdsweep.lazy import F, nn, torch` looks like the real modules to readers and type checkers, and
imports them on first use.
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
