"""Every error that kdsweep raises on purpose.

KdsweepError                 exit 1: it failed while running
├── InputError               exit 2: what was given is wrong
│   ├── SpecError            a sweep file: one line per fault
│   ├── UnknownNameError     a method, model or data set that does not exist
│   ├── DataError            a data set that is missing or unreadable
│   ├── ModelError           a model that cannot be built for this input
│   ├── CheckpointError      weights that are missing, unreadable or of the wrong shapes
│   ├── MethodError          a distillation method that does not fit these models
│   └── SweepDirError        a sweep directory that is missing, foreign or in use
├── TeacherError             a teacher that is not worth distilling from
├── SweepError               a sweep that cannot go on
└── Interrupted              exit 130: stopped by the user or the machine, resumable
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class KdsweepError(Exception):
    """Something that kdsweep knows how to explain in one line."""

    exit_code = 1


class InputError(KdsweepError):
    """What the user gave is wrong; nothing was lost."""

    exit_code = 2


class SpecError(InputError):
    """A sweep file with faults, each one line `FILE:LINE: PATH: what is wrong`."""

    def __init__(self, faults: Sequence[str]):
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)

    def __reduce__(self) -> tuple[type[SpecError], tuple[tuple[str, ...]]]:
        return type(self), (self.faults,)


class UnknownNameError(InputError):
    """A name that no registry knows."""


class DataError(InputError):
    """A data set that is missing, empty or unreadable."""


class ModelError(InputError):
    """A model that cannot be built for this input."""


class CheckpointError(InputError):
    """Weights that are missing, unreadable or of the wrong shapes."""


class MethodError(InputError):
    """A distillation method that does not fit these models or parameters."""


class SweepDirError(InputError):
    """A sweep directory that is missing, foreign or in use."""


class TeacherError(KdsweepError):
    """A teacher that is not worth distilling from."""


class SweepError(KdsweepError):
    """A sweep that cannot go on."""


class Interrupted(KdsweepError):  # noqa: N818 - it is a state, not a fault
    """Stopped by the user or the machine; everything is kept."""

    exit_code = 130


def did_you_mean(name: object, valid: Iterable[str]) -> str:
    """What is accepted instead of `name`: the nearest valid name first, then all of them."""
    names = sorted(valid)
    near = get_close_matches(str(name), names, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}accepted: {', '.join(names)}"


def printable(text: str) -> str:
    """`text` with control and bidirectional characters escaped; lines stay lines."""
    return "".join(sign if sign.isprintable() or sign == "\n" else _escaped(sign) for sign in text)


def _escaped(sign: str) -> str:
    return sign.encode("unicode_escape").decode()
