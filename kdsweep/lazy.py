"""Lazy import of PyTorch.

Importing torch takes seconds, and the modules that declare methods, models and data sets, or validate a sweep file, do
not need it. `from kdsweep.lazy import F, nn, torch` looks like the real modules to readers and type checkers, and
imports them on first use.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
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

__all__ = ["F", "import_torchvision", "nn", "torch"]

_COMPILER = "torch._dynamo"
_ASKED = f"from {_COMPILER}.utils import is_compile_supported"


def import_torchvision(part: str) -> ModuleType:
    """Import `torchvision.PART` without PyTorch's compiler, which takes longer to import than all of torchvision.

    torchvision uses one function of the compiler, in an operator of detection models. It gets a stand-in that imports
    the compiler when called. If the installed torchvision uses more than that, it is imported normally.
    """
    if "torchvision" not in sys.modules and _COMPILER not in sys.modules and _asks_one_function():
        with _compiler_in_reserve():
            import_module("torchvision")
    return import_module(f"torchvision.{part}")


def _asks_one_function() -> bool:
    """Whether the installed torchvision imports only that function of the compiler."""
    spec = find_spec("torchvision")
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = [file.read_text("utf-8") for folder in folders for file in Path(folder).rglob("*.py")]
    return [line for text in files if _COMPILER in text for line in text.splitlines() if _COMPILER in line] == [_ASKED]


@contextmanager
def _compiler_in_reserve() -> Iterator[None]:
    """Replace the compiler by a stand-in while torchvision is imported."""
    import_module("torch")
    package, utils = ModuleType(_COMPILER), ModuleType(f"{_COMPILER}.utils")

    def is_compile_supported(device_type: str) -> bool:
        return bool(import_module(utils.__name__).is_compile_supported(device_type))

    package.__path__ = []
    utils.is_compile_supported = is_compile_supported  # type: ignore[attr-defined]
    sys.modules |= {_COMPILER: package, utils.__name__: utils}
    try:
        yield
    finally:
        del sys.modules[_COMPILER], sys.modules[utils.__name__]
