"""Schema faults of a sweep file, each as one line: what was found, what is accepted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from kdsweep.config.spec import SweepSpec
from kdsweep.config.yaml import Keys
from kdsweep.errors import did_you_mean
from kdsweep.search.section import ObjectiveSection

# A valid value for each required key.
EXAMPLES: dict[str, Any] = {
    "name": "sweep",
    "dataset": {"name": "mnist_mini"},
    "teacher": {"model": "tutorial_teacher"},
    "student": {"model": "lightnn"},
    "space": {"method": "none"},
}

# The same for the required keys of sections that may be left out.
OF_OPTIONAL: dict[Keys, Any] = {("dataset", "unlabelled", "root"): "more_images"}

# Keys that decide what the other keys of their section mean.
DECISIVE = ("name", "model", "student", "method", "optimizer", "schedule", "task_loss", "sampler")

# The forms of an objective by the length of its path: of the whole key, and of an item of a list.
OBJECTIVES = {
    1: "{metric: NAME}, or the key objective.metric alone, or a list of several: [val_accuracy, parameters]",
    2: "the NAME of a metric, or {metric: NAME}",
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


@dataclass(frozen=True)
class Repair:
    """The values of a sweep file without their schema faults, so that further checks can run on them.

    Attributes:
        values: The values; defaults and examples stand in for those with faults.
        faulty: Paths of the values with faults.
    """

    values: Mapping[str, Any]
    faulty: tuple[Keys, ...]

    def allows(self, sections: Sequence[str], keys: Keys) -> bool:
        """Whether a fault that was found in the repaired values is one of the file, not of what stands in.

        Args:
            sections: The sections that the fault depends on.
            keys: Path of the fault.
        """
        own = str(keys[0])
        for path in self.faulty:
            section = str(path[0])
            if section == own:
                of_another = own == "teachers" and len(path) > 1 and path[:2] != keys[:2]
                decides = len(path) == 1 or path[-1] in DECISIVE or path == keys[: len(path)]
                if decides and not of_another:
                    return False
            elif section in sections and not (section == "teachers" and len(path) > 2):  # their names are known
                return False
        return True


def repaired(values: Mapping[str, Any], error: ValidationError) -> Repair:
    """Replace faulty values by defaults, or by examples where the key is required."""
    copy = deepcopy(dict(values))
    faulty: dict[Keys, None] = {}
    for detail in _details(error, values):
        path = tuple(key for key in detail["loc"] if not _is_union_branch(key))
        if path in OF_OPTIONAL:
            path = path[:-1]  # without that key, the section is left out
        # Without one item the others of a list would have other numbers.
        faulty[tuple(takewhile(lambda key: isinstance(key, str), path))] = None
    for path in faulty:
        _discard(copy, path)
    try:
        SweepSpec.model_validate(copy)
    except ValidationError:  # a required key is missing
        teachers = copy.get("teachers")
        if isinstance(teachers, dict) and teachers:
            copy["teachers"] = {name: _completed_teacher(given) for name, given in teachers.items()}
        if "teacher" in copy or not teachers:
            copy["teacher"] = _completed_teacher(copy.get("teacher", {}))
        for section in EXAMPLES.keys() - {"teacher"}:
            copy[section] = _completed(EXAMPLES[section], copy.get(section, EXAMPLES[section]))
    return Repair(copy, tuple(faulty))


def _completed(example: object, given: object) -> object:
    return example | given if isinstance(example, dict) and isinstance(given, dict) else given


def _completed_teacher(given: object) -> object:
    """Give a teacher a model, unless it is a student, which has its own."""
    has_model = isinstance(given, dict) and given.get("student") is not None
    return given if has_model else _completed(EXAMPLES["teacher"], given)


def _discard(values: dict[str, Any], path: Keys) -> None:
    """Remove the value at a path, if it is there."""
    inner: Any = values
    for key in path[:-1]:
        inner = inner.get(key, {}) if isinstance(inner, dict) else {}
    if isinstance(inner, dict):
        inner.pop(path[-1], None)


def _details(error: ValidationError, values: Mapping[str, Any]) -> list[ErrorDetails]:
    """Return what pydantic found, without faults of the `teacher` that stands for the first of several."""
    is_copy = bool(values.get("teachers")) and "teacher" not in values
    return [detail for detail in error.errors() if not (is_copy and detail["loc"][:1] == ("teacher",))]


def schema_faults(error: ValidationError, values: Mapping[str, Any]) -> Iterator[tuple[Keys, str]]:
    """Yield each fault that pydantic found in the values of a sweep file, as (path of the key, message)."""
    details: dict[Keys, list[ErrorDetails]] = {}
    for detail in _details(error, values):
        # A value that may have several types has a fault for each, with the type at the end of its path.
        keys = tuple(key for key in detail["loc"] if not _is_union_branch(key))
        details.setdefault(keys, []).append(detail)
    for keys, found in details.items():
        yield _fault(keys, found)


def _fault(keys: Keys, details: list[ErrorDetails]) -> tuple[Keys, str]:
    kind, found = details[0]["type"], details[0]["input"]
    if kind == "missing":
        return keys, f"missing; for example: {_as_yaml(_example(keys))}"
    if kind == "extra_forbidden":
        return keys, f"unknown key {keys[-1]!r}; {did_you_mean(keys[-1], _fields_at(keys[:-1]))}"
    if len(details) == 1 and "expected" in details[0].get("ctx", {}):
        return keys, f"found {_as_yaml(found)}; {did_you_mean(found, _names(details[0]))}"
    if keys[0] == "objective" and kind.startswith(("model_", "dict_")):
        return keys, f"found {_as_yaml(found)}; accepted: {OBJECTIVES[len(keys)]}"
    accepted = dict.fromkeys(_accepted(detail) for detail in details)
    return keys, f"found {_as_yaml(found)}; accepted: {' or '.join(accepted)}"


def _accepted(detail: ErrorDetails) -> str:
    context = detail.get("ctx", {})
    if "expected" in context:
        return ", ".join(_names(detail))
    if "pattern" in context:
        return "letters, digits, '.', '_' and '-', beginning with a letter or digit"
    bounds = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    within = [f"{words} {_number(context[bound])}" for bound, words in bounds.items() if bound in context]
    return ", ".join(within) or _TYPES.get(detail["type"].split("_")[0], detail["msg"])


def _example(keys: Keys) -> Any:
    """Return a valid value for a missing key."""
    if keys in OF_OPTIONAL:
        return OF_OPTIONAL[keys]
    keys = _of_one_teacher(keys)
    section = EXAMPLES[str(keys[0])]
    return section if len(keys) == 1 else section[str(keys[-1])]


def _of_one_teacher(keys: Keys) -> Keys:
    """Return the path that a key of `teachers.NAME` has in `teacher`."""
    return ("teacher", *keys[2:]) if keys[:1] == ("teachers",) and len(keys) > 1 else keys


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _is_union_branch(key: int | str) -> bool:
    return isinstance(key, str) and ("[" in key or key == "constrained-float" or key == "constrained-int")


def _names(detail: ErrorDetails) -> list[str]:
    """Return the names that a choice accepts."""
    return [name.strip().strip("'") for name in detail["ctx"]["expected"].replace(" or ", ",").split(",")]


def _fields_at(keys: Keys) -> list[str]:
    if keys[:1] == ("objective",):  # one section, or a list of them
        return list(ObjectiveSection.model_fields)
    fields = SweepSpec.model_fields
    for key in _of_one_teacher(keys):
        fields = fields_of(fields[str(key)].annotation)
    return list(fields)


def fields_of(annotation: Any) -> dict[str, FieldInfo]:
    """Return the keys of a section, which may be optional; empty for other types."""
    kinds = (annotation, *get_args(annotation))
    return next((kind.model_fields for kind in kinds if hasattr(kind, "model_fields")), {})


def _as_yaml(value: object) -> str:
    """Return a value on one line, about as it would be written in a sweep file."""
    if isinstance(value, dict):
        text = "{" + ", ".join(f"{key}: {_as_yaml(inner)}" for key, inner in value.items()) + "}"
    elif value is None:
        text = "nothing"
    elif isinstance(value, bool):
        text = str(value).lower()
    else:
        text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
