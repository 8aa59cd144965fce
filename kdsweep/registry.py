"""Registries of methods, models, data sets and other parts, discovered automatically by name."""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from kdsweep.errors import UnknownNameError, did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """Maps names to entries declared in the modules of one package. The modules are imported on first access.

    Args:
        kind: What the entries are, in the singular, for error messages.
        package: The package whose modules declare the entries.
        packages: Whether its subpackages declare entries too.
    """

    def __init__(self, kind: str, package: str, *, packages: bool = False):
        self.kind = kind
        self._package = package
        self._packages = packages
        self._entries: dict[str, T] = {}
        self._complete = False

    def add(self, name: str, entry: T) -> T:
        """Register an entry under `name`.

        Raises:
            ValueError: If the name is already registered, which is a programming error.
        """
        if name in self._entries:
            raise ValueError(f"{self.kind} {name!r} is declared twice")
        self._entries[name] = entry
        return entry

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that registers its target under `name`."""
        return lambda entry: self.add(name, entry)

    def __getitem__(self, name: str) -> T:
        """Return the entry registered as `name`.

        Raises:
            UnknownNameError: If there is none. The message suggests the nearest valid name.
        """
        entries = self._all()
        if name not in entries:
            raise UnknownNameError(f"unknown {self.kind} {name!r}; {did_you_mean(name, entries)}")
        return entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._all()

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._all()))

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> dict[str, T]:
        if not self._complete:
            self._complete = True  # the modules imported below may use this registry
            try:
                self._import_all()
            except BaseException:
                self._complete = False
                raise
        return self._entries

    def _import_all(self) -> None:
        package = import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__):
            if self._packages or not module.ispkg:
                import_module(f"{self._package}.{module.name}")


_code_folders: list[str] = []


def import_from(folder: str) -> None:
    """Register a directory in which `package.module:attribute` finds its modules.

    It is appended to `sys.path` only when such a name is loaded, so that a `json.py` in it never shadows an installed
    module. The directory registered last takes precedence over earlier ones.
    """
    if folder in _code_folders:
        _code_folders.remove(folder)
    _code_folders.insert(0, folder)


def is_user_object(name: str) -> bool:
    """Whether `name` has the form `package.module:attribute`."""
    return ":" in name


OBJECTS = "object"  # stands in place of a module for objects that a program passed to kdsweep

_given: dict[str, Any] = {}


def give(name: str, value: Any) -> str:
    """Let `object:NAME` refer to an object of the running program. Return that name.

    The name must identify the object, since results that another object made would be mistaken for its own.
    """
    _given[f"{OBJECTS}:{name}"] = value
    return f"{OBJECTS}:{name}"


def is_given(name: str) -> bool:
    """Whether `name` has the form of a given object, whether or not this process has it."""
    return name.startswith(f"{OBJECTS}:")


def is_lost(name: str) -> bool:
    """Whether `name` refers to an object that another process was given."""
    return is_given(name) and name not in _given


def given(name: str) -> Any:
    """Return a given object.

    Raises:
        UnknownNameError: If this process was not given it.
    """
    if is_lost(name):
        raise UnknownNameError(
            f"{name!r} is a Python object that this process does not have; in Python, repeat the same call of "
            "kdsweep.sweep, which returns the results, or pass the object to kdsweep.load_student"
        )
    return _given[name]


def load_user_object(name: str, kind: str) -> Any:
    """Import the object that `package.module:attribute` refers to.

    Modules are searched for in the installed packages first, then in the directories given to `import_from`.

    Raises:
        UnknownNameError: If the module cannot be imported or lacks the attribute, or if it is `__main__`, which is
            another module in each process.
    """
    if is_given(name):
        return given(name)
    module_name, _, attribute = name.partition(":")
    if module_name == "__main__":
        raise UnknownNameError(
            f"{kind} {name!r}: workers cannot import __main__; accepted: a module of its own, such as "
            f"my_code:{attribute}, or in Python the object itself, passed to kdsweep.sweep"
        )
    extend_path()
    try:
        module = import_module(module_name)
    except (Exception, SystemExit) as error:  # importing the user's module may raise anything
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UnknownNameError(f"{kind} {name!r}: cannot import {module_name!r}: {what}") from error
    if not hasattr(module, attribute):
        hint = _shadowing_hint(module, module_name)
        raise UnknownNameError(f"{kind} {name!r}: module {module_name!r} has no {attribute!r}{hint}")
    return getattr(module, attribute)


def extend_path() -> None:
    """Let `sys.path` end with the registered directories, except those that it contains anyway."""
    end = len(sys.path)
    while end and sys.path[end - 1] in _code_folders:
        end -= 1
    sys.path[end:] = [folder for folder in _code_folders if folder not in sys.path[:end]]


def _shadowing_hint(module: ModuleType, name: str) -> str:
    """Explain that an installed module was imported instead of the user's module of the same name; else empty."""
    top = name.partition(".")[0]
    imported = getattr(module, "__file__", None)
    own = [Path(folder) / entry for folder in _code_folders for entry in (f"{top}.py", top)]
    hidden = [path for path in own if path.exists() and not (imported and Path(imported).is_relative_to(path))]
    if not hidden:
        return ""
    return f"; {imported or 'a built-in module'} takes precedence over {hidden[0]}; rename the latter"
