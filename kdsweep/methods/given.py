"""Methods that a program passed to kdsweep: their classes, taken as they are."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from kdsweep.errors import MethodError
from kdsweep.methods.base import METHODS, Method
from kdsweep.registry import give

Written = str | type[Method] | tuple[str | type[Method], ...]
ACCEPTED = "names such as kd, subclasses of kdsweep.methods.Method, and tuples of these, which stand for their sum"


class Lost(Method):
    """Stands for a class that another process was given, so that the results of its sweep can be read."""


def give_methods(written: Sequence[Written]) -> tuple[list[str], dict[object, str]]:
    """Make classes known as methods.

    Args:
        written: Names and classes; a tuple stands for a sum.

    Returns:
        The names of the methods, and the name of each class by the class and by what it is called.

    Raises:
        MethodError: If one is neither a name nor such a class, or two classes are called the same.
    """
    names: dict[object, str] = {}
    listed = ["+".join(_named(term, names) for term in (one if isinstance(one, tuple) else (one,))) for one in written]
    return listed, names


def _named(term: object, names: dict[object, str]) -> str:
    if isinstance(term, str):
        return term
    if not (inspect.isclass(term) and issubclass(term, Method)):
        raise MethodError(f"methods: found {term!r}; accepted: {ACCEPTED}")
    if term.name in METHODS and METHODS[term.name] is term:
        return term.name
    called = term.__name__
    if called in names and term not in names:
        raise MethodError(f"methods: found two classes called {called}; accepted: classes of different names")
    if called in METHODS:
        raise MethodError(f"methods: found a class called {called}, as a method of kdsweep; accepted: another name")
    names[term] = names[called] = give(called, term)
    return names[term]
