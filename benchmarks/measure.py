"""Shared by all benchmarks: command-line options, repeated measurements, and output as a table and JSON."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from kdsweep.storage.environment import describe_environment

MEASURED = Path(__file__).parent / "measured"


def arguments(description: str, name: str) -> argparse.ArgumentParser:
    """Create a parser with the options of every benchmark: repeats and the JSON file."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="number of repeats of each measurement")
    parser.add_argument("--out", type=Path, default=MEASURED / f"{name}.json", help="the JSON file")
    return parser


def spread(values: Sequence[float]) -> dict[str, float | list[float]]:
    """Median, minimum, maximum and all values of repeated measurements."""
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "values": [round(value, 6) for value in values],
    }


def shown(measured: Mapping[str, Any], digits: int = 1) -> str:
    """Format a measurement for a table: the median, and minimum and maximum if repeated."""
    if len(measured["values"]) == 1:
        return f"{measured['median']:,.{digits}f}"
    return f"{measured['median']:,.{digits}f} ({measured['min']:,.{digits}f} to {measured['max']:,.{digits}f})"


def report(title: str, rows: Sequence[Mapping[str, object]], details: Mapping[str, Any], out: Path) -> None:
    """Print rows with equal keys as a table; write them, the details and the machine as JSON."""
    show(title, rows)
    write({"title": title, "table": list(rows), **details}, out)


def show(title: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Print rows with equal keys as a table."""
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    for heading in rows[0]:
        table.add_column(heading)
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console(width=None if sys.stdout.isatty() else 150).print(table)


def write(found: Mapping[str, Any], out: Path) -> None:
    """Write what was found, and the machine, as JSON."""
    environment = describe_environment([Path(sys.argv[0]).name, *sys.argv[1:]])
    environment["cpus_usable"] = len(os.sched_getaffinity(0))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({**found, "environment": environment}, indent=2, default=str) + "\n")
    print(f"written to {out}")


def say(text: str) -> None:
    """Print a progress line to standard error."""
    print(text, file=sys.stderr, flush=True)
