"""Parses the `space` section of a sweep file, with every fault at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kdsweep import distributions, methods
from kdsweep.distributions import Choice, Constant, Distribution, RandInt, Uniform, Valid
from kdsweep.errors import InputError, UnknownNameError, did_you_mean
from kdsweep.methods.base import TEMPERATURE
from kdsweep.params import SWITCH, Parts
from kdsweep.registry import is_lost, is_user_object
from kdsweep.search.augments import parse_augments
from kdsweep.search.students import WIDTHS, Fault, Student, parse_students
from kdsweep.section import MOST_EPOCHS
from kdsweep.tasks.image.transforms.written import faults_of
from kdsweep.tasks.losses import LOSSES
from kdsweep.training.optimizers import OPTIMIZERS
from kdsweep.training.schedules import SCHEDULES
from kdsweep.training.shapes import SHAPES


class SpaceError(InputError):
    """All faults of a written space, as (path, message)."""

    def __init__(self, faults: list[Fault]):
        super().__init__("; ".join(message for _, message in faults))
        self.faults = faults


@dataclass(frozen=True)
class Names(Valid):
    """Valid part names of one kind, including user-defined classes."""

    parts: Parts[Any]

    def contains(self, value: object) -> bool:
        return not self.fault(value)

    def fault(self, value: object) -> str:
        """Suggests the nearest name."""
        try:
            self.parts.find(str(value))
        except UnknownNameError as error:
            return str(error)
        return ""

    def described(self) -> str:
        """List the registered names."""
        return ", ".join(self.parts)


@dataclass(frozen=True)
class Lists(Valid):
    """Lists of transforms, by their texts."""

    def contains(self, value: object) -> bool:
        return not self.fault(value)

    def fault(self, value: object) -> str:
        return next((message for _, message in faults_of(value)), "")

    def described(self) -> str:
        return "lists of transforms"


class TeacherNames(Valid):
    """A teacher, or an ensemble of several: `a+b`."""

    def contains(self, value: object) -> bool:
        names = value.split("+") if isinstance(value, str) else []
        return bool(names) and all(names) and len(set(names)) == len(names)

    def described(self) -> str:
        return "a name in teachers, or several different ones joined by +"


# The settings that a space may search in addition to the methods' own parameters, and their valid values.
SHARED: dict[str, Valid] = {
    "augment": Lists(),
    "width": WIDTHS,
    "epochs": RandInt(1, MOST_EPOCHS),
    "teacher": TeacherNames(),
    "teacher_weight": Uniform(0.0, 1.0),
    "teacher_mean": Choice(("logits", "probabilities")),
    "temperature": TEMPERATURE,
    "temperature_schedule": Choice(tuple(SHAPES)),
    "alpha": Uniform(0.0, 1.0),
    "alpha_schedule": Choice(tuple(SHAPES)),
    "lr": Uniform(1e-9, 1e3),
    "weight_decay": Uniform(0.0, 1e3),
    "momentum": Uniform(0.0, 0.9999),
    "dampening": Uniform(0.0, 1.0),
    "nesterov": SWITCH,
    "label_smoothing": Uniform(0.0, 0.9999),
    "batch_size": RandInt(1, 1_000_000),
    "warmup_epochs": Uniform(0.0, float(MOST_EPOCHS)),
    "final_lr_fraction": Uniform(0.0, 1.0),
    "clip_norm": Uniform(0.0, 1e9),
    "ema_decay": Uniform(0.0, 0.999999),
    "drop_path": Uniform(0.0, 0.9999),
    "optimizer": Names(OPTIMIZERS),
    "schedule": Names(SCHEDULES),
    "task_loss": Names(LOSSES),
}


@dataclass(frozen=True)
class Parsed:
    """The parts of a written space.

    Attributes:
        method: The methods.
        shared: The distributions of `SHARED`.
        own: Those of single methods' parameters, by method and parameter.
        students: The students by label; empty if the space does not search them.
    """

    method: Choice | Constant
    shared: dict[str, Distribution]
    own: dict[str, dict[str, Distribution]]
    students: dict[str, Student]


def parsed(written: Mapping[str, Any]) -> Parsed:
    """Parse the section.

    Raises:
        SpaceError: If the space is invalid; contains every fault.
    """
    faults: list[Fault] = []
    method = _parse_method(written.get("method"), faults)
    shared: dict[str, Distribution] = {}
    own: dict[str, dict[str, Distribution]] = {}
    students: dict[str, Student] = {}
    for key, value in written.items():
        if key == "method":
            continue
        if key == "augment":
            own_faults: list[Fault] = []
            shared[key] = parse_augments(value, own_faults)
            faults += [((key, *path), message) for path, message in own_faults]
        elif key == "student":
            students = parse_students(value, faults)
        elif key in SHARED:
            _parse_one((key,), value, SHARED[key], shared, faults)
        elif key in methods.METHODS or (is_user_object(key) and key in _all_terms(method)):
            own[key] = _parse_own(key, value, faults)
        else:
            known = [*SHARED, *methods.METHODS, "method", "student"]
            faults.append(((key,), f"unknown key {key!r}; {did_you_mean(key, known)}"))
    if faults:
        raise SpaceError(faults)
    return Parsed(method, shared, own, students)


def _parse_method(written: object, faults: list[Fault]) -> Choice | Constant:
    if written is None:
        faults.append((("method",), "missing; accepted: a list of methods such as [kd, dkd, none]"))
        return Constant("none")
    try:
        parsed = distributions.parse(written)
    except ValueError as error:
        faults.append((("method",), str(error)))
        return Constant("none")
    if not isinstance(parsed, Choice | Constant):
        faults.append((("method",), f"found {parsed.written()}; accepted: a list of methods"))
        return Constant("none")
    for name in parsed.every():
        try:
            _check_method(str(name))
        except InputError as error:
            faults.append((("method",), str(error)))
    return parsed


def _check_method(name: str) -> None:
    names = methods.terms(name)
    for term in names:
        methods.get(term)
    if len(names) > 1 and (len(set(names)) < len(names) or "none" in names):
        raise InputError(f"found {name!r}; accepted: a sum of different methods, without 'none'")


def _parse_own(term: str, written: object, faults: list[Fault]) -> dict[str, Distribution]:
    params = methods.get(term).params()
    if not isinstance(written, Mapping):
        faults.append(((term,), f"found {written!r}; accepted: a mapping of {', '.join(params) or 'nothing'}"))
        return {}
    own: dict[str, Distribution] = {}
    for key, value in written.items():
        if is_lost(term):  # what its class accepts was checked when the sweep began
            own[key] = distributions.parse(value)
        elif key not in params:
            faults.append(((term, key), f"unknown parameter {key!r} of {term}; {did_you_mean(key, params)}"))
        else:
            _parse_one((term, key), value, params[key].valid, own, faults)
    return own


def _parse_one(
    path: tuple[str, ...], written: object, valid: Valid, into: dict[str, Distribution], faults: list[Fault]
) -> None:
    try:
        parsed = distributions.parse(written)
    except ValueError as error:
        faults.append((path, str(error)))
        return
    between = isinstance(parsed, distributions.Range) and not parsed.integer
    if between and not (isinstance(valid, distributions.Range) and not valid.integer):
        faults.append((path, f"found {parsed.written()}; accepted: a choice, randint or lograndint"))
        return
    if path == ("epochs",) and not isinstance(parsed, Choice | Constant):
        message = f"found {parsed.written()}; accepted: a number or a choice, because trials of one budget are compared"
        faults.append((path, message))
        return
    outside = [fault for value in parsed.ends() if (fault := valid.fault(value))]
    if outside:
        faults.append((path, outside[0]))
    else:
        into[path[-1]] = parsed


def _all_terms(method: Choice | Constant) -> set[str]:
    return {term for name in method.every() for term in methods.terms(str(name))}
