"""The students of a space: `space.student` lists models, each perhaps with options and a width of its own.

A configuration names its student by a label that tells the model and its options, `wrn(depth=16)`. An option with a
finite distribution stands for several students, one for each value.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from kdsweep import distributions, models
from kdsweep.distributions import Choice, Constant, Distribution, Uniform
from kdsweep.errors import InputError, did_you_mean

Fault = tuple[tuple[str | int, ...], str]  # a path in the space, and what is wrong there
WIDTHS = Uniform(1e-3, 100.0)  # the valid widths
MOST = 64
_KEYS = ("model", "options", "width")
_ACCEPTED = "accepted: a list of models, each a name or {model: wrn, options: {depth: 16}, width: {choice: [1, 2]}}"


@dataclass(frozen=True)
class Student:
    """A student that a sweep may train.

    Attributes:
        model: A model of `kdsweep models`.
        options: Further arguments of the model.
        width: Distribution of its width, if it is not that of the whole space.
    """

    model: str
    options: Mapping[str, Any]
    width: Distribution | None = None

    @property
    def label(self) -> str:
        """The student in a configuration: `resnet8x4`, `wrn(depth=16)`."""
        if not self.options:
            return self.model
        return f"{self.model}({', '.join(f'{key}={json.dumps(self.options[key])}' for key in sorted(self.options))})"

    def written(self) -> Any:
        """Return the student in sweep-file syntax."""
        if not self.options and self.width is None:
            return self.model
        own = {"options": dict(self.options)} if self.options else {}
        return {"model": self.model, **own, **({} if self.width is None else {"width": self.width.written()})}


def of_label(label: str) -> Student:
    """Return the student, without its width, that a configuration names."""
    model, bracket, rest = label.partition("(")
    options: dict[str, Any] = {}
    rest = rest.removesuffix(")")
    while bracket and rest:
        key, _, text = rest.partition("=")
        options[key], end = json.JSONDecoder().raw_decode(text)
        rest = text[end:].removeprefix(", ")
    return Student(model, options)


def parse_students(written: object, faults: list[Fault]) -> dict[str, Student]:
    """Parse `space.student` into the students by label, in the order written; append what is wrong to `faults`."""
    listed = written["choice"] if isinstance(written, Mapping) and set(written) == {"choice"} else written
    at: tuple[str | int, ...] = ("student",)
    if isinstance(listed, str) or (isinstance(listed, Mapping) and "model" in listed):
        listed = [listed]
    elif isinstance(written, Mapping):
        at = ("student", "choice")
    if not isinstance(listed, list | tuple) or not listed:
        faults.append((("student",), f"found {written!r}; {_ACCEPTED}"))
        return {}
    found: dict[str, Student] = {}
    for index, entry in enumerate(listed):
        for student in _parse_entry((*at, index), entry, faults):
            if student.label in found:
                faults.append(((*at, index), f"{student.label} is listed twice; accepted: each student once"))
            found[student.label] = student
    if len(found) > MOST:
        faults.append((("student",), f"found {len(found)} students; accepted: at most {MOST}"))
    return found


def _parse_entry(path: tuple[str | int, ...], entry: object, faults: list[Fault]) -> Iterator[Student]:
    """Yield the students of one entry, each with a fixed width of 1 if its model has none to vary."""
    if isinstance(entry, str):
        entry = {"model": entry}
    if not isinstance(entry, Mapping) or not isinstance(entry.get("model"), str):
        faults.append((path, f"found {entry!r}; {_ACCEPTED}"))
        return
    if unknown := [key for key in entry if key not in _KEYS]:
        faults.append(((*path, unknown[0]), f"unknown key {unknown[0]!r}; {did_you_mean(unknown[0], _KEYS)}"))
        return
    model, options = entry["model"], entry.get("options", {})
    try:
        models.exists(model)
    except InputError as error:
        faults.append((path, str(error)))
        return
    if not isinstance(options, Mapping):
        faults.append(((*path, "options"), f"found {options!r}; accepted: a mapping of the model's options"))
        return
    width = _parse_width(path, model, entry, faults)
    try:
        models.check_options(model, options)
        values = {key: _values(value) for key, value in options.items()}
    except (InputError, ValueError) as error:
        faults.append(((*path, "options"), str(error)))
        return
    for chosen in product(*values.values()):
        yield Student(model, dict(zip(values, chosen, strict=True)), width)


def _parse_width(
    path: tuple[str | int, ...], model: str, entry: Mapping[str, Any], faults: list[Fault]
) -> Distribution | None:
    """Return a student's own distribution of widths; None if it draws from that of the space."""
    if "width" not in entry:
        return None if models.has_width(model) else Constant(1.0)
    try:
        width = distributions.parse(entry["width"])
    except ValueError as error:
        faults.append(((*path, "width"), str(error)))
        return None
    if outside := [fault for value in width.ends() if (fault := WIDTHS.fault(value))]:
        faults.append(((*path, "width"), outside[0]))
    elif not models.has_width(model) and set(width.ends()) != {1}:
        message = f"found {width.written()}, but {model} has no width to vary; accepted: 1, or leave it out"
        faults.append(((*path, "width"), message))
    return width


def _values(written: Any) -> list[Any]:
    """Return the values of an option: those of a finite distribution, or what is written itself."""
    if not isinstance(written, Mapping):
        return [written]
    drawn = distributions.parse(written)
    if not drawn.finite:
        raise ValueError(f"found {drawn.written()}; accepted: a value, a choice, randint or lograndint")
    return list(drawn.every())


def labels(students: Mapping[str, Student]) -> Choice | Constant:
    """Return the distribution from which a trial draws its student."""
    return Choice(tuple(students)) if len(students) > 1 else Constant(next(iter(students)))
