"""Distillation methods: one file each, discovered automatically.

A sweep names a method (`kd`), a sum (`kd+at`) or a user-defined class (`package.module:Class`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kdsweep.errors import MethodError, did_you_mean
from kdsweep.lazy import nn, torch
from kdsweep.methods.base import HEADS, METHODS, Method, Outputs, Shape, Shapes, Temperature, register
from kdsweep.methods.given import Lost
from kdsweep.methods.sum import MethodSum
from kdsweep.params import Param
from kdsweep.registry import is_lost, is_user_object, load_user_object

__all__ = [
    "HEADS",
    "METHODS",
    "Method",
    "MethodSum",
    "Outputs",
    "Param",
    "Shape",
    "Shapes",
    "Temperature",
    "create",
    "fit",
    "get",
    "head",
    "register",
    "stacks",
    "terms",
    "values",
]


FIRST_HEAD = "transfer"  # what a student of kdsweep 0.1 has, which did not say


def terms(name: str) -> tuple[str, ...]:
    """Split a method name into its terms: `kd+at` gives `("kd", "at")`."""
    return tuple(name.split("+"))


def get(name: str) -> type[Method]:
    """Return the class of a single method, not a sum; a stand-in for one that another process was given.

    Raises:
        UnknownNameError: If there is no such method; the message suggests the closest name.
    """
    return Lost if is_lost(name) else METHODS.find(name)


def create(name: str, student: Outputs, teacher: Outputs, **params: Any) -> Method:
    """Create a method for a student and a teacher with these outputs.

    Args:
        name: A registered name, a sum `a+b` or `package.module:Class`.
        student: Example outputs of the student: every part of them, of any batch size.
        teacher: Example outputs of the teacher, likewise.
        params: The method's parameters. In a sum, `kd.weight` sets the weight of `kd`, and a bare name applies to
            every term that declares it.

    Raises:
        UnknownNameError: If a term is not a method.
        MethodError: If a parameter is unknown or out of range, or the method cannot connect the two models.
    """
    names = terms(name)
    if len(names) == 1:
        return get(name)(student, teacher, **params)
    own = _by_term(name, params)
    return MethodSum({term: get(term)(student, teacher, **own[term]) for term in names})


def values(name: str, params: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the parameter values of each term of a method, defaults included.

    Args:
        name: As for `create`.
        params: As for `create`.
    """
    names = terms(name)
    own = _by_term(name, params) if len(names) > 1 else {name: dict(params)}
    return {
        term: {key: own[term].get(key, param.default) for key, param in get(term).params().items()} for term in names
    }


def stacks(name: str) -> dict[str, frozenset[str]] | None:
    """Return the parameters of each term that may differ among students trained at once; None if it trains alone.

    See `Method.stacks`.
    """
    found: dict[str, frozenset[str]] = {}
    for term in terms(name):
        free = vars(get(term)).get("stacks")
        if free is None:
            return None
        found[term] = free | {"weight"}
    return found


def head(options: Mapping[str, Any]) -> nn.Module:
    """A head of the same shapes as the one whose `options` are given; see `Method.inference_head`.

    Raises:
        UnknownNameError: If there is no head of that kind.
    """
    shapes = {key: value for key, value in options.items() if key != "kind"}
    kind = str(options.get("kind", FIRST_HEAD))
    make: Callable[..., nn.Module] = load_user_object(kind, "head") if is_user_object(kind) else HEADS[kind]
    return make(**shapes)


def fit(name: str, student: Shapes, teacher: Shapes, **params: Any) -> None:
    """Refuse a method that could not be created for models of these shapes.

    A registered method tells by the shapes alone, without torch; the user's own is created for black outputs.

    Args:
        name: A registered name, a sum `a+b` or `package.module:Class`.
        student: Of the student's outputs.
        teacher: Of the teacher's.
        params: As for `create`.

    Raises:
        UnknownNameError: If a term is not a method.
        MethodError: If a parameter does not fit or the models cannot be bridged.
    """
    names = terms(name)
    own = _by_term(name, params) if len(names) > 1 else {name: params}
    for term in names:
        if is_user_object(term):
            get(term)(_black(student), _black(teacher), **own[term])
        else:
            get(term).fit(student, teacher, own[term])


def _black(shapes: Shapes) -> Outputs:
    features, classifier = (
        tuple(torch.zeros(part.shape) for part in parts) for parts in (shapes.features, shapes.classifier)
    )
    return Outputs(torch.zeros(shapes.logits.shape), torch.zeros(shapes.embedding.shape), features, classifier)


def _by_term(name: str, params: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Assign the parameters of a sum to its terms; `kd.weight` overrides a bare `weight`."""
    names = terms(name)
    if len(set(names)) < len(names) or "none" in names:
        raise MethodError(f"invalid sum {name!r}; accepted: different methods, none of them 'none'")
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
    """Whether the method takes the temperature that a sweep shares among methods.

    The temperature of a contrastive loss, for example, does not soften class probabilities.
    """
    return isinstance(get(term).params().get("temperature"), Temperature)
