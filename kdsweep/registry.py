"""A registry: names for methods, models and data sets, found without editing a list."""

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
    """Maps names to things declared in the modules of one package, which are imported at the first look.

    Args:
        kind: What the names stand for, in the singular, as errors say it.
        package: The package whose modules declare them.
        packages: Whether packages in it declare some too.
    """

    def __init__(self, kind: str, package: str, *, packages: bool = False):
        self.kind = kind
        self._package = package
        self._packages = packages
        self._entries: dict[str, T] = {}
        self._complete = False

    def add(self, name: str, entry: T) -> T:
        """Declare `name`; a second declaration of a name is a programming error."""
        if name in self._entries:
            raise ValueError(f"{self.kind} {name!r} is declared twice")
        self._entries[name] = entry
        return entry

    def register(self, name: str) -> Callable[[T], T]:
        """Decorate a declaration."""
        return lambda entry: self.add(name, entry)

    def __getitem__(self, name: str) -> T:
        """The entry called `name`.

        Raises:
            UnknownNameError: With the nearest valid name.
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
            self._complete = True  # what is imported below may look here too
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
    """Let `package.module:attribute` name what lies in a directory.

    The directory goes on the import path only when such a name is loaded, and behind everything that is installed:
    a `json.py` that lies in it is never imported in place of Python's.
    """
    if folder not in _code_folders:
        _code_folders.append(folder)


def is_user_object(name: str) -> bool:
    """Whether `name` is written as `package.module:attribute`."""
    return ":" in name


def load_user_object(name: str, kind: str) -> Any:
    """Import what `package.module:attribute` names.

    Raises:
        UnknownNameError: If the module or the attribute is not there.
    """
    module_name, _, attribute = name.partition(":")
    sys.path += [folder for folder in _code_folders if folder not in sys.path]
    try:
        module = import_module(module_name)
    except Exception as error:  # the user's module may raise anything while it is imported
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UnknownNameError(f"{kind} {name!r}: cannot import {module_name!r}: {what}") from error
    if not hasattr(module, attribute):
        hidden = _hidden(module, module_name)
        raise UnknownNameError(f"{kind} {name!r}: module {module_name!r} has no {attribute!r}{hidden}")
    return getattr(module, attribute)


def _hidden(module: ModuleType, name: str) -> str:
    """What to do where an installed module was found instead of the user's of the same name."""
    top = name.partition(".")[0]
    own = [Path(folder) / found for folder in _code_folders for found in (f"{top}.py", top)]
    there = [path for path in own if path.exists() and not _lies_in(module, path)]
    if not there:
        return ""
    found = getattr(module, "__file__", None) or "a module of Python's own"
    return f"; it is {found}, which goes before {there[0]}; accepted: another name for that one"


def _lies_in(module: ModuleType, path: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).is_relative_to(path)
