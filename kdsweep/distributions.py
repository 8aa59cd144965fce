"""Distributions of the search space: six distributions and constants.

Each is an immutable value object that samples with Optuna, validates values and formats itself in sweep-file syntax.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from kdsweep.errors import did_you_mean

if TYPE_CHECKING:
    import optuna

Value = bool | int | float | str
# A trial's settings: `method`, `width`, `lr` and the method's parameters. Method-specific names are dotted.
Config = dict[str, Value]


class Valid:
    """A set of values."""

    def contains(self, value: object) -> bool:
        """Whether `value` is in the set."""
        raise NotImplementedError

    def described(self) -> str:
        """Describe the set in words."""
        raise NotImplementedError

    def fault(self, value: object) -> str:
        """Return what is wrong with `value`; empty if it is valid."""
        return "" if self.contains(value) else f"found {value!r}; accepted: {self.described()}"


class Distribution(Valid):
    """The distribution of one setting."""

    name: ClassVar[str]
    finite: ClassVar[bool] = True

    def suggest(self, trial: optuna.Trial, name: str) -> Value:
        """Sample the parameter `name` with an Optuna trial."""
        raise NotImplementedError

    def every(self) -> tuple[Value, ...]:
        """Return every value, in order, of a finite distribution."""
        raise NotImplementedError

    def ends(self) -> tuple[Value, ...]:
        """Return both bounds of a range, or every value of a choice or constant."""
        return self.every()

    def written(self) -> Any:
        """Return the distribution in sweep-file syntax."""
        raise NotImplementedError

    @property
    def size(self) -> float:
        """Number of distinct values; infinite for a real-valued range."""
        raise NotImplementedError

    def described(self) -> str:
        return str(self.written())


@dataclass(frozen=True)
class Constant(Distribution):
    """A value that is not searched."""

    value: Value
    name: ClassVar[str] = "constant"

    def suggest(self, trial: optuna.Trial, name: str) -> Value:
        """Return the constant, without registering a parameter in Optuna."""
        return self.value

    def every(self) -> tuple[Value, ...]:
        return (self.value,)

    def contains(self, value: object) -> bool:
        return value == self.value

    def written(self) -> Any:
        return self.value

    @property
    def size(self) -> float:
        return 1


@dataclass(frozen=True)
class Choice(Distribution):
    """One of a list of values."""

    values: tuple[Value, ...]
    name: ClassVar[str] = "choice"

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("choice is empty; accepted: at least one value")
        for value in self.values:
            if not isinstance(value, bool | int | float | str):
                raise ValueError(f"choice contains {value!r}; accepted: numbers, strings, true, false")
        if len(set(self.values)) < len(self.values):
            raise ValueError(f"choice repeats a value: {list(self.values)}")

    def suggest(self, trial: optuna.Trial, name: str) -> Value:
        chosen = trial.suggest_categorical(name, list(self.values))
        assert chosen is not None  # choices never contain None
        return chosen

    def every(self) -> tuple[Value, ...]:
        return self.values

    def contains(self, value: object) -> bool:
        """Whether `value` is listed. True and 1 are different values."""
        return any(value == known and isinstance(value, bool) == isinstance(known, bool) for known in self.values)

    def described(self) -> str:
        return ", ".join(str(value).lower() if isinstance(value, bool) else str(value) for value in self.values)

    def written(self) -> Any:
        return {self.name: list(self.values)}

    @property
    def size(self) -> float:
        return len(self.values)


@dataclass(frozen=True)
class Range(Distribution):
    """Numbers from `low` to `high`, inclusive."""

    low: float
    high: float
    finite: ClassVar[bool] = False
    integer: ClassVar[bool] = False
    log: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for bound in (self.low, self.high):
            if isinstance(bound, bool) or not isinstance(bound, int | float) or not math.isfinite(bound):
                raise ValueError(f"{self.name} bound is {bound!r}; accepted: a finite number")
            if self.integer and bound != int(bound):
                raise ValueError(f"{self.name} bound is {bound!r}; accepted: a whole number")
        if self.low > self.high:
            raise ValueError(f"{self.name} range is reversed: [{self.low}, {self.high}]; accepted: low <= high")
        if self.log and self.low <= 0:
            raise ValueError(f"{self.name} lower bound is {self.low}; accepted: a number above 0")

    def suggest(self, trial: optuna.Trial, name: str) -> Value:
        if self.integer:
            return trial.suggest_int(name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def every(self) -> tuple[Value, ...]:
        """Return the integers of the range."""
        assert self.integer
        return tuple(range(int(self.low), int(self.high) + 1))

    def ends(self) -> tuple[Value, ...]:
        return (self.low, self.high)

    def contains(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return self.low <= value <= self.high and (not self.integer or value == int(value))

    def written(self) -> Any:
        return {self.name: [self.low, self.high]}

    @property
    def size(self) -> float:
        """Number of integers in the range; infinite for a real-valued range, 1 if the bounds are equal."""
        if self.low == self.high:
            return 1
        return int(self.high) - int(self.low) + 1 if self.integer else math.inf

    def described(self) -> str:
        return f"a {'whole ' if self.integer else ''}number from {self.low:g} to {self.high:g}"


class Uniform(Range):
    """Uniform between the bounds."""

    name = "uniform"


class LogUniform(Range):
    """Log-uniform between the bounds."""

    name = "loguniform"
    log = True


class RandInt(Range):
    """Integers, uniform, both bounds included."""

    name = "randint"
    finite = True
    integer = True


class LogRandInt(Range):
    """Integers, log-uniform, both bounds included."""

    name = "lograndint"
    finite = True
    integer = True
    log = True


@dataclass(frozen=True)
class QUniform(Range):
    """Uniform over `low`, `low + step`, ... up to `high`."""

    step: float = 1.0
    name: ClassVar[str] = "quniform"
    finite: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.step, bool) or not isinstance(self.step, int | float) or not self.step > 0:
            raise ValueError(f"quniform step is {self.step!r}; accepted: a number above 0")

    def suggest(self, trial: optuna.Trial, name: str) -> Value:
        return trial.suggest_float(name, self.low, self._last(), step=self.step)

    def every(self) -> tuple[Value, ...]:
        """Return the grid points from `low` up to `high`."""
        return tuple(self.low + index * self.step for index in range(int(self.size)))

    def contains(self, value: object) -> bool:
        if not super().contains(value):
            return False
        steps = (float(value) - self.low) / self.step  # type: ignore[arg-type]
        return math.isclose(steps, round(steps), abs_tol=1e-6)

    def written(self) -> Any:
        return {self.name: [self.low, self.high, self.step]}

    @property
    def size(self) -> float:
        """Number of grid points from `low` up to `high`."""
        return round((self._last() - self.low) / self.step) + 1

    def _last(self) -> float:
        return self.low + math.floor((self.high - self.low) / self.step + 1e-9) * self.step


_RANGES: dict[str, type[Range]] = {cls.name: cls for cls in (Uniform, LogUniform, QUniform, RandInt, LogRandInt)}
NAMES = ("choice", *_RANGES)


def parse(written: object) -> Distribution:
    """Parse a distribution in sweep-file syntax.

    Args:
        written: A constant, a list of choices, or a mapping with a single key such as `{loguniform: [1, 16]}`.

    Raises:
        ValueError: If it is invalid. The message says what was found and what is accepted.
    """
    if isinstance(written, bool | int | float | str):
        if isinstance(written, float) and not math.isfinite(written):
            raise ValueError(f"found {written}; accepted: a finite number")
        return Constant(written)
    if isinstance(written, list | tuple):
        return Choice(tuple(written))
    if not isinstance(written, Mapping) or len(written) != 1:
        raise ValueError(f"found {_short(written)}; accepted: a constant, or one of {', '.join(NAMES)}")
    (name, arguments) = next(iter(written.items()))
    if name not in NAMES:
        raise ValueError(f"unknown distribution {name!r}; {did_you_mean(name, NAMES)}")
    if not isinstance(arguments, list | tuple):
        raise ValueError(f"{name} has {_short(arguments)}; accepted: a list, as in {_example(name)}")
    if name == "choice":
        return Choice(tuple(arguments))
    if len(arguments) != (3 if name == "quniform" else 2):
        raise ValueError(f"{name}: wrong number of values, {len(arguments)}; accepted: {_example(name)}")
    return _RANGES[name](*arguments)


def _example(name: str) -> str:
    shape = {"choice": "[a, b, c]", "quniform": "[low, high, step]"}.get(name, "[low, high]")
    return f"{{{name}: {shape}}}"


def _short(value: object) -> str:
    text = str(dict(value)) if isinstance(value, Mapping) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
