"""Distillation methods: one file each, found without editing a list.

A sweep names a method (`kd`), a sum (`kd+at`) or the user's own class (`package.module:Class`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdsweep.errors import MethodError, did_you_mean
from kdsweep.methods.base import METHODS, Method, Outputs, Temperature, register
from kdsweep.methods.sum import MethodSum
from kdsweep.params import Param

__all__ = [
    "METHODS",
    "Method",
    "MethodSum",
    "Outputs",
    "Param",
    "Temperature",
    "create",
    "get",
    "register",
    "terms",
]


def terms(name: str) -> tuple[str, ...]:
    """The names summed in `name`: `("kd", "at")` for `kd+at`."""
    return tuple(name.split("+"))


def get(name: str) -> type[Method]:
    """The class of one term.

    Raises:
        UnknownNameError: With the nearest valid name.
    """
    return METHODS.find(name)


def create(name: str, student: Outputs, teacher: Outputs, **params: Any) -> Method:
    """Make a method for models with these outputs.

    Args:
        name: A registered name, a sum `a+b` or `package.module:Class`.
        student: Example outputs of the student: every part of them, of any batch size. Shapes suffice, as on
            the device `meta`.
        teacher: Example outputs of the teacher, likewise.
        params: The method's parameters. In a sum, `kd.weight` goes to that term and a bare name to every term
            that declares it.

    Raises:
        UnknownNameError: If a term is not a method.
        MethodError: If a parameter does not fit or the models cannot be bridged.
    """
    names = terms(name)
    if len(names) == 1:
        return get(name)(student, teacher, **params)
    own = _by_term(name, params)
    return MethodSum({term: get(term)(student, teacher, **own[term]) for term in names})


def _by_term(name: str, params: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """A sum's parameters, shared out; `kd.weight` wins over a bare `weight`."""
    names = terms(name)
    if len(set(names)) < len(names) or "none" in names:
        raise MethodError(f"method {name!r} is no sum; accepted: different methods, none of them 'none'")
    declared = {term: get(term).params() for term in names}
    own: dict[str, dict[str, Any]] = {term: {} for term in names}
    for key in sorted(params, key=lambda key: "." in key):
        takers = [(t, p) for t, known in declared.items() for p in known if key in (p, f"{t}.{p}")]
        if not takers:
            bare = {p for known in declared.values() for p in known}
            valid = [*bare, *(f"{t}.{p}" for t, known in declared.items() for p in known)]
            raise MethodError(f"method {name!r} has no parameter {key!r}; {did_you_mean(key, valid)}")
        for term, parameter in takers:
            own[term][parameter] = params[key]
    return own


def softens(term: str) -> bool:
    """Whether a method's temperature softens class probabilities, and so is the one that a space searches for all.

    A contrastive loss calls something else temperature.
    """
    return isinstance(get(term).params().get("temperature"), Temperature)
