"""Teachers and students that a program passed to kdsweep: a module as it is, or a function that builds one."""

from __future__ import annotations

import copy
import hashlib
import inspect
import re
import sysconfig
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from kdsweep.errors import ModelError
from kdsweep.lazy import nn, torch
from kdsweep.models.base import Input, InputSpec
from kdsweep.models.foreign import explained
from kdsweep.registry import give
from kdsweep.seeds import digest_of
from kdsweep.words import kind_of

ARGUMENTS = ("input_shape", "num_classes", "width", "vocabulary", "padding")
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class GivenModule:
    """Builds copies of a module.

    Args:
        module: The module, on the CPU.
    """

    def __init__(self, module: nn.Module):
        self.module = module

    def __call__(self, input_shape: tuple[int, ...], num_classes: int, width: float) -> nn.Module:
        return copy.deepcopy(self.module)


class GivenFactory:
    """Calls the user's function with those of `ARGUMENTS` that it takes.

    Args:
        factory: Returns a new module each time.
    """

    def __init__(self, factory: Callable[..., nn.Module]):
        self.factory = factory
        self._takes = _arguments(factory)

    def __call__(
        self, input_shape: tuple[int, ...], num_classes: int, width: float, vocabulary: int = 0, padding: int = 0
    ) -> nn.Module:
        values = {"input_shape": input_shape, "num_classes": num_classes, "width": width}
        values |= {"vocabulary": vocabulary, "padding": padding}
        return self.factory(**{name: values[name] for name in self._takes})

    @property
    def counts_classes(self) -> bool:
        """Whether the function takes the number of classes."""
        return "num_classes" in self._takes

    @property
    def has_width(self) -> bool:
        """Whether the function takes a width."""
        return "width" in self._takes


def give_teacher(module: nn.Module, label: str) -> str:
    """Make a module known as a model. Return its name.

    Args:
        module: The module, on the CPU.
        label: What to call it.

    Raises:
        ModelError: If its state dict holds anything but tensors.
    """
    digest = hashlib.sha256(_structure(module).encode())
    for name, tensor in module.state_dict().items():
        if not isinstance(tensor, torch.Tensor):
            raise ModelError(f"teacher: {name} in its state dict is {kind_of(tensor)}; accepted: tensors")
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return give(f"{label}_{digest.hexdigest()[:8]}", GivenModule(module))


def give_student(factory: GivenFactory, given: Input, num_classes: int, widths: Iterable[float]) -> str:
    """Make a function known as a model. Return its name: the class that it builds, and a hash.

    The hash is of the layers at each width and of the source of their own classes, so that the same function is
    recognised in another process.

    Raises:
        ModelError: If the function raises something, returns no module, or returns the same one twice.
    """
    described: list[str] = []
    label, spec = "", InputSpec.of(given)
    with torch.random.fork_rng(devices=[]):
        for width in widths:
            with explained(f"student: cannot be built with width {width:g}"):
                built, again = (factory(spec.shape, num_classes, width, **spec.facts) for _ in range(2))
            if not isinstance(built, nn.Module):
                raise ModelError(f"student: returned {kind_of(built)}; accepted: a torch.nn.Module")
            if built is again:
                raise ModelError("student: returned the same module twice; accepted: a function that builds a new one")
            described.append(_structure(built))
            label = type(built).__name__
    return give(f"{label}_{digest_of(described)[:8]}", factory)


def unwrapped(module: nn.Module) -> nn.Module:
    """Return a copy on the CPU in eval mode, without the wrappers of torch.compile and data parallelism.

    Raises:
        ModelError: If it cannot be copied.
    """
    for wrapper in ("_orig_mod", "module"):
        inner = getattr(module, wrapper, None)
        if isinstance(inner, nn.Module) and (wrapper == "_orig_mod" or "Parallel" in type(module).__name__):
            module = inner
    with explained("teacher: cannot be copied"):
        return copy.deepcopy(module).cpu().eval()


def _arguments(factory: Callable[..., Any]) -> tuple[str, ...]:
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # built into Python
        return ("width",)
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return ("width", *(name for name in ARGUMENTS if name in parameters and name != "width"))
    return tuple(name for name in ARGUMENTS if name in parameters)


def _structure(module: nn.Module) -> str:
    """Describe a module: its layers, the shapes of its state, and the source of its own classes."""
    own = {type(part) for part in module.modules() if not _is_installed(type(part))}
    shapes = [(name, tuple(p.shape), str(p.dtype)) for name, p in module.named_parameters()]
    return repr((_ADDRESS.sub("", repr(module)), shapes, sorted(_source(cls) for cls in own)))


def _is_installed(cls: type) -> bool:
    try:
        file = Path(inspect.getfile(cls))
    except (TypeError, OSError):  # of a notebook or of standard input
        return False
    return any(file.is_relative_to(sysconfig.get_path(kind)) for kind in ("stdlib", "purelib", "platlib"))


def _source(cls: type) -> str:
    try:
        return inspect.getsource(cls)
    except (TypeError, OSError):
        return cls.__qualname__
