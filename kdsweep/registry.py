"""A registry: names for methods, models and data sets, found without editing a list."""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
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


def import_from(folder: str) -> None:
    """Let `package.module:attribute` name what lies in a directory, as `python -m` does with the current one."""
    if folder not in sys.path:
        sys.path.insert(0, folder)


def is_user_object(name: str) -> bool:
    """Whether `name` is written as `package.module:attribute`."""
    return ":" in name


def load_user_object(name: str, kind: str) -> Any:
    """Import what `package.module:attribute` names.

    Raises:
        UnknownNameError: If the module or the attribute is not there.
    """
    module_name, _, attribute = name.partition(":")
    try:
        module = import_module(module_name)
    except Exception as error:  # the user's module may raise anything while it is imported
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UnknownNameError(f"{kind} {name!r}: cannot import {module_name!r}: {what}") from error
    if not hasattr(module, attribute):
        raise UnknownNameError(f"{kind} {name!r}: module {module_name!r} has no {attribute!r}")
    return getattr(module, attribute)
