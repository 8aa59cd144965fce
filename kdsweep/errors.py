"""The exceptions that kdsweep raises.

KdsweepError                 exit 1: failed while running
├── InputError               exit 2: invalid input
│   ├── SpecError            invalid sweep file, one line per fault
│   ├── UnknownNameError     unknown method, model or data set
│   ├── DataError            data set missing or unreadable
│   ├── ModelError           model cannot be built for this input
│   ├── CheckpointError      weights missing, unreadable or of the wrong shape
│   ├── MetricError          metric cannot be computed
│   ├── MethodError          method does not fit these models or parameters
│   └── SweepDirError        sweep directory missing, invalid or in use
├── TeacherError             teacher too weak to distil from
├── SweepError               sweep cannot continue
├── DeviceError              leased GPU cannot be used
└── Interrupted              exit 130: stopped by the user or the machine; can be resumed
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches


class KdsweepError(Exception):
    """Base class; the message is a one-line explanation for the user."""

    exit_code = 1


class InputError(KdsweepError):
    """Invalid input from the user; no results were lost. Text of the user in the message cannot break the line."""

    exit_code = 2

    def __init__(self, message: str):
        super().__init__(_on_one_line(message))


class SpecError(InputError):
    """An invalid sweep file; each fault is one line `FILE:LINE: PATH: what is wrong`."""

    def __init__(self, faults: Sequence[str]):
        self.faults = tuple(map(_on_one_line, faults))
        KdsweepError.__init__(self, "\n".join(self.faults))

    def renamed(self, names: Mapping[str, str]) -> SpecError:
        """Return the error with other names for the keys, or parts of them, that the faults begin with."""

        def named(key: str) -> str:
            known = (old for old in names if key == old or key.startswith(f"{old}."))
            old = max(known, key=len, default="")
            return names[old] + key.removeprefix(old) if old else key

        parts = (fault.partition(":") for fault in self.faults)
        return SpecError([f"{named(key)}{colon}{rest}" for key, colon, rest in parts])

    def __reduce__(self) -> tuple[type[SpecError], tuple[tuple[str, ...]]]:
        return type(self), (self.faults,)


class UnknownNameError(InputError):
    """An unknown method, model or data set."""


class DataError(InputError):
    """The data set is missing, empty or unreadable."""


class ModelError(InputError):
    """The model cannot be built for this input."""


class CheckpointError(InputError):
    """The weights are missing, unreadable or of the wrong shape."""


class MethodError(InputError):
    """The distillation method does not fit these models or parameters."""


class MetricError(InputError):
    """The metric raises an error, or does not return what it should."""


class SweepDirError(InputError):
    """The sweep directory is missing, not from kdsweep, or in use."""


class TeacherError(KdsweepError):
    """The teacher is too weak to distil from."""


class SweepError(KdsweepError):
    """The sweep cannot continue."""


class DeviceError(KdsweepError):
    """A GPU that was leased but cannot be used."""


class Interrupted(KdsweepError):  # noqa: N818 - a state, not an error
    """Stopped by the user or the machine; the sweep can be resumed."""

    exit_code = 130


def did_you_mean(name: object, valid: Iterable[str]) -> str:
    """Suggest the closest valid name, then list all valid names."""
    names = sorted(valid)
    near = get_close_matches(str(name), names, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}accepted: {', '.join(names)}"


def _on_one_line(text: str) -> str:
    return printable(text).replace("\n", "\\n")


def printable(text: str) -> str:
    """Escape control and bidirectional characters, which could disguise text on a terminal; keep line breaks."""
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode() for char in text
    )


def installing(extra: str) -> str:
    """Return how to install one of the extras of pyproject.toml. kdsweep itself is in no package registry."""
    return f"pip install '.[{extra}]' in a checkout of kdsweep"
