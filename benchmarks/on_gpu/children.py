"""Processes of their own that the sections start, and what they answer."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1]


@contextmanager
def started(
    count: int, script: str, arguments: Sequence[object], environment: Mapping[str, str]
) -> Iterator[list[subprocess.Popen[str]]]:
    """Run a script in some processes, which end with the context.

    Args:
        count: Number of processes.
        script: Path of the script.
        arguments: Its arguments.
        environment: Environment variables, beside those of this process.
    """
    places = os.pathsep.join(filter(None, [str(BENCHMARKS), os.environ.get("PYTHONPATH")]))
    variables = {**os.environ, **environment, "PYTHONPATH": places}
    command = [sys.executable, script, *map(str, arguments)]
    pipe = subprocess.PIPE
    running = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=variables) for _ in range(count)]
    try:
        yield running
    finally:
        for one in running:
            one.kill()
            one.communicate()


def tell(process: subprocess.Popen[str], line: object) -> None:
    """Write a line to a process."""
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def answer(process: subprocess.Popen[str]) -> str:
    """Return the next line of a process.

    Raises:
        RuntimeError: If it has ended instead.
    """
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"a process ended with exit code {process.wait()} instead of an answer")
    return line.strip()
