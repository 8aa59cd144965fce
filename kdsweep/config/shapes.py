"""Schema faults of a sweep file, each as one line: what was found, what is accepted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from kdsweep.config.spec import SweepSpec
from kdsweep.config.yaml import Keys
from kdsweep.errors import did_you_mean

# A valid value for each required key.
EXAMPLES: dict[str, Any] = {
    "name": "sweep",
    "dataset": {"name": "mnist_mini"},
    "teacher": {"model": "tutorial_teacher"},
    "student": {"model": "lightnn"},
    "space": {"method": "none"},
}

_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "string": "text",
    "bool": "true or false",
    "list": "a list",
    "dict": "a mapping",
    "model": "a mapping of keys",
    "finite": "a finite number",
}


def schema_faults(error: ValidationError) -> Iterator[tuple[Keys, str]]:
    """Yield each fault that pydantic found in a sweep file, as (path of the key, message)."""
    details = {(detail["loc"], detail["type"]): detail for detail in error.errors()}
    yield from map(_fault, details.values())


def _fault(detail: ErrorDetails) -> tuple[Keys, str]:
    keys = tuple(key for key in detail["loc"] if not _is_union_branch(key))
    kind, found, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "missing":
        example = EXAMPLES.get(str(keys[-1]), "a value")
        return keys[:-1], f"{keys[-1]}: missing; accepted: {example}"
    if kind == "extra_forbidden":
        return keys, f"unknown key {keys[-1]!r}; {did_you_mean(keys[-1], _fields_at(keys[:-1]))}"
    if "expected" in context:
        return keys, f"found {_shortened(found)}; {_accepted_names(found, context['expected'], keys)}"
    bounds = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    accepted = ", ".join(f"{words} {_number(context[bound])}" for bound, words in bounds.items() if bound in context)
    if "pattern" in context:
        accepted = "letters, digits, '.', '_' and '-', beginning with a letter or digit"
    accepted = accepted or _TYPES.get(kind.split("_")[0], detail["msg"])
    return keys, f"found {_shortened(found)}; accepted: {accepted}"


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _is_union_branch(key: int | str) -> bool:
    return isinstance(key, str) and ("[" in key or key == "constrained-float" or key == "constrained-int")


def _accepted_names(found: object, expected: str, keys: Keys) -> str:
    names = [name.strip().strip("'") for name in expected.replace(" or ", ",").split(",")]
    number = " or a number" if keys[-1] in ("gpus_per_trial", "max_concurrent") else ""
    return did_you_mean(found, names) + number


def _fields_at(keys: Keys) -> list[str]:
    fields = SweepSpec.model_fields
    for key in keys:
        fields = getattr(fields[str(key)].annotation, "model_fields", {})
    return list(fields)


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
