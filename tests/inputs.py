"""Counts the malformed and hostile inputs that the tests try, and checks how each one ends.

An input is either refused, with an `InputError` of one line (a `SpecError`: one line per fault), or accepted, with a
result that the test checks. `pytest --count-inputs` prints the table of docs/reliability.md.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import Phase, settings

from kdsweep.errors import InputError, SpecError

LONGEST_SECONDS = 30
SPEC, SET, WHERE, COMMAND = "sweep files", "--set values", "--where conditions", "command lines and paths"
CHECKPOINT, STUDENT, DATA = "checkpoints", "exported students", "data sets and images"
CODE, SWEEP = "own models, methods and data sets", "sweep directories, logs and derived files"
KINDS = (SPEC, SET, WHERE, COMMAND, CHECKPOINT, STUDENT, DATA, CODE, SWEEP)
FAULTS = ("tracebacks", "over 30 s", "wrong answers")
OUTCOMES = ("refused in one line", "accepted, result checked", *FAULTS)

# The same inputs in every run, so that the counts are the same; a failure is reported as found.
RANDOM = settings(derandomize=True, deadline=None, database=None, phases=[Phase.explicit, Phase.generate])

counts: Counter[tuple[str, str]] = Counter()


@contextmanager
def refused(kind: str, error: type[InputError] = InputError, match: str | None = None) -> Iterator[Any]:
    """Count an input that must be refused in one line; otherwise like `pytest.raises`.

    Args:
        kind: One of `KINDS`.
        error: The class of the error.
        match: Regular expression that the message must match.
    """
    with _counting(kind, "refused in one line"), pytest.raises(error, match=match) as caught:
        yield caught
    check_message(caught.value)


@contextmanager
def accepted(kind: str) -> Iterator[None]:
    """Count an input that must be accepted; the body uses it and checks the result."""
    with _counting(kind, "accepted, result checked"):
        yield


def either(kind: str, use: Callable[[], Any], right: Callable[[Any], bool]) -> InputError | None:
    """Count an input that may be refused or accepted.

    Args:
        kind: One of `KINDS`.
        use: Uses the input.
        right: Whether what `use` returned is right, if the input was accepted.

    Returns:
        The error, if the input was refused.
    """
    outcome = ["accepted, result checked"]
    with _counting(kind, outcome):
        try:
            result = use()
        except InputError as error:
            outcome[0] = "refused in one line"
            check_message(error)
            return error
        assert right(result)
    return None


def refused_by_command(kind: str, code: int, out: str, err: str) -> None:
    """Count a command line that must end with exit code 2 and one line per fault on standard error."""
    with _counting(kind, "refused in one line"):
        assert (code, out) == (2, "")
        assert "Traceback" not in err
        assert err.endswith("\n")
        assert all(line.strip() for line in err.splitlines())


def check_message(error: InputError) -> None:
    """Check that an error is one line, or one line per fault, and short enough to read."""
    lines = str(error).split("\n")
    assert len(lines) == (len(error.faults) if isinstance(error, SpecError) else 1), lines
    assert all(line.strip() for line in lines)
    assert error.exit_code == 2
    assert "Traceback" not in str(error)


@contextmanager
def _counting(kind: str, outcome: str | list[str]) -> Iterator[None]:
    assert kind in KINDS
    start = time.monotonic()
    try:
        yield
    except (AssertionError, pytest.fail.Exception):
        counts[kind, "wrong answers"] += 1
        raise
    except Exception:
        counts[kind, "tracebacks"] += 1
        raise
    if time.monotonic() - start > LONGEST_SECONDS:
        counts[kind, "over 30 s"] += 1  # the table shows it; a test must not fail because the machine is busy
        return
    counts[kind, outcome if isinstance(outcome, str) else outcome[0]] += 1


def table() -> list[str]:
    """The counts as the lines of a Markdown table."""
    rows = [[kind, *(counts[kind, outcome] for outcome in OUTCOMES)] for kind in KINDS]
    rows.append(["total", *(sum(counts[kind, outcome] for kind in KINDS) for outcome in OUTCOMES)])
    lines = [["kind of input", "tried", *OUTCOMES], ["---"] * (len(OUTCOMES) + 2)]
    lines += [[row[0], sum(row[1:]), *row[1:]] for row in rows]
    return ["| " + " | ".join(map(str, line)) + " |" for line in lines]
