"""Distillation methods: one file each, found without editing a list.

A sweep names a method (`kd`), a sum (`kd+at`) or the user's own class (`package.module:Class`).
"""

from __future__ import annotations

from typing import Any

from kdsweep.errors import MethodError, UnknownNameError
from kdsweep.methods.base import METHODS, Method, Outputs, Param, register
from kdsweep.methods.sum import MethodSum
from kdsweep.registry import is_user_object, load_user_object

__all__ = ["METHODS", "Method", "MethodSum", "Outputs", "Param", "create", "get", "register", "terms"]


def terms(name: str) -> tuple[str, ...]:
    """The names summed in `name`: `("kd", "at")` for `kd+at`."""
    return tuple(name.split("+"))


def get(name: str) -> type[Method]:
    """The class of one term.

    Raises:
        UnknownNameError: With the nearest valid name.
    """
    if not is_user_object(name):
        return METHODS[name]
    cls = load_user_object(name, "method")
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise UnknownNameError(f"method {name!r} is {cls!r}; accepted: a subclass of kdsweep.methods.Method")
    return cls


def create(name: str, student: Outputs, teacher: Outputs, **params: Any) -> Method:
    """Make a method for models with these outputs.

    Args:
        name: A registered name, a sum `a+b` or `package.module:Class`.
        student: Example outputs of the student (any batch size).
        teacher: Example outputs of the teacher.
        params: The method's parameters. In a sum, `kd.weight` goes to that term and a bare name to every term that
            declares it.

    Raises:
        UnknownNameError: If a term is not a method.
        MethodError: If a parameter does not fit or the models cannot be bridged.
    """
    names = terms(name)
    if len(names) == 1:
        return get(name)(student, teacher, **params)
    if len(set(names)) < len(names) or "none" in names:
        raise MethodError(f"method {name!r}: a sum takes different methods, and not 'none'")
    classes = {term: get(term) for term in names}
    own: dict[str, dict[str, Any]] = {term: {} for term in names}
    for key, value in params.items():
        term, dot, parameter = key.rpartition(".")
        takers = [term] if dot else [t for t, cls in classes.items() if key in cls.params()]
        if not takers or not set(takers) <= set(names):
            raise MethodError(f"method {name!r} has no parameter {key!r}")
        for taker in takers:
            own[taker].setdefault(parameter if dot else key, value)
            if dot:
                own[taker][parameter] = value
    return MethodSum({term: cls(student, teacher, **own[term]) for term, cls in classes.items()})
