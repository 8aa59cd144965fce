"""Prints data frames and other command output, and writes frames to files."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kdsweep.errors import InputError, did_you_mean, printable
from kdsweep.methods.reference import needed, written
from kdsweep.params import Parts, summary
from kdsweep.results import order
from kdsweep.results.confirmed import GAIN_COLUMNS
from kdsweep.results.frames import Results
from kdsweep.tasks.metrics import is_fraction, shown, shown_gain
from kdsweep.terminal.conditions import matching

FORMATS = ("csv", "json", "parquet")  # each is also a file ending
SHOWN = ("trial", "state", "method", "width", "temperature", "alpha", "lr", "epochs", "parameters")
SHOWN_CONFIRMED = ("trial", "method", "width", "temperature", "alpha", "lr", "parameters", "seeds", "judged_seeds")


def ranked(results: Results) -> pd.DataFrame:
    """The trials from best to worst as in `Results.best`, failed ones last, without the `config` column."""
    everything = order.ranked(results.trials, results.goal)
    ordered = order.by_confirmation(everything, results.confirmed, results.goal, results.group_by)
    return ordered.drop(columns="config")


def select(frame: pd.DataFrame, where: str = "", sort: str = "", top: int = 0) -> pd.DataFrame:
    """Filter, sort and truncate a frame.

    Args:
        frame: Trials or epochs.
        where: A condition on the columns; see `conditions.matching`.
        sort: Column to sort by; `-column` sorts in descending order.
        top: Number of rows to keep; 0 keeps all.

    Raises:
        InputError: If the condition is invalid or the column does not exist.
    """
    if where:
        frame = matching(frame, where)
    if sort:
        column = sort.removeprefix("-")
        if column not in frame.columns:
            raise InputError(f"--sort {sort}: no column {column!r}; {did_you_mean(column, frame.columns)}")
        frame = frame.sort_values(column, ascending=not sort.startswith("-"), kind="stable", na_position="last")
    return (frame.head(top) if top else frame).reset_index(drop=True)


def format_of(asked: str, out: Path | None) -> str:
    """Select the output format: the requested one, else the one given by the file's ending, without a file `table`.

    Args:
        asked: The value of --format; empty if it was not given.
        out: Output file; None for standard output.

    Raises:
        InputError: If the format and the file's ending contradict each other, or if neither is known.
    """
    ending = out.suffix.lower().removeprefix(".") if out else ""
    by_name = ending if ending in FORMATS else ""
    if asked and by_name and asked != by_name:
        raise InputError(f"--format {asked} contradicts --out {out}; accepted: no --format, or another file ending")
    if out and not asked and not by_name:
        known = ", ".join(f".{name}" for name in FORMATS)
        raise InputError(f"--out {out}: no known file ending; accepted: {known}, or another ending with --format")
    return asked or by_name or "table"


def write(frame: pd.DataFrame, how: str, out: Path | None) -> None:
    """Write a frame to a file or to standard output.

    Args:
        frame: The frame to write.
        how: Format: `table`, `csv`, `json` (a list of records) or `parquet`.
        out: Output file; None for standard output.

    Raises:
        InputError: If the file cannot be written.
    """
    if how == "table" and out is None:
        _print_frame(frame)
        return
    data = _encoded(frame, how)
    if out is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(data)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written: {error.strerror}") from error


def print_facts(facts: Mapping[str, Any]) -> None:
    """Print names and values, one pair per line."""
    for name, value in facts.items():
        sys.stdout.write(f"{name:10} {_shown(name, value)}\n")


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows with the same keys as a table."""
    _print_frame(pd.DataFrame(list(rows)))


def method_row(described: Mapping[str, Any]) -> dict[str, str]:
    """Row of a method in the list of methods."""
    params = (f"{p['name']} {p['default']:g}{_range(p['search'])}" for p in described["params"])
    return {"method": described["name"], "what it does": described["summary"], "parameters": ", ".join(params)}


def part_rows(parts: Parts[Any]) -> list[dict[str, str]]:
    """One row per registered part of a kind, and a row on how to refer to a user-defined one."""
    rows = [
        {
            parts.kind: name,
            "what it does": summary(parts[name]),
            "parameters": ", ".join(f"{key} {written(param.default)}" for key, param in parts[name].params().items()),
        }
        for name in parts
    ]
    own = {parts.kind: "package.module:Class", "what it does": "your own, see docs/own-parts.md", "parameters": ""}
    return [*rows, own]


def print_method(described: Mapping[str, Any]) -> None:
    """Print a method in full, with an example to paste into a sweep file."""
    lines = [
        f"{described['name']}: {described['summary']}",
        "",
        f"term     {described['formula'] or 'not given'}",
        f"source   {described['source'] or 'not given'}",
        f"teacher  {needed(described['needs'])}",
        "",
        *(f"  {p['name']:18} {p['default']:g}{_range(p['search'])}: {p['meaning']}" for p in described["params"]),
        "",
        *([described["details"], ""] if described["details"] else []),
        described["example"],
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def _range(search: Any) -> str:
    return f" ({written(search)})" if search is not None else ""


def _encoded(frame: pd.DataFrame, how: str) -> bytes:
    buffer = io.BytesIO()
    if how == "parquet":
        frame.to_parquet(buffer, index=False)
    elif how == "csv":
        frame.to_csv(buffer, index=False)
    elif how == "json":
        frame.to_json(buffer, orient="records", indent=2, double_precision=15)
        buffer.write(b"\n")
    else:
        buffer.write(frame.to_string(index=False).encode() + b"\n")
    return buffer.getvalue()


def _print_frame(frame: pd.DataFrame) -> None:
    if frame.empty:
        sys.stderr.write("no rows\n")
        return
    out = console()
    per_trial = "trial" in frame.columns and "epoch" not in frame.columns
    columns = _worth_showing(frame) if per_trial else list(frame.columns)
    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        right = pd.api.types.is_numeric_dtype(frame[column])
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    # Format gains like the metric they are differences of.
    tested = next((name for name in frame.columns if str(name).startswith("test_")), "")
    gains = {name for name in columns if str(name).startswith("kd_gain") and not str(name).endswith("_p")}
    for row in frame[columns].to_dict("records"):
        cells = (
            _shown_gain(str(name), tested, value) if name in gains | {"margin"} else _shown(str(name), value)
            for name, value in row.items()
        )
        table.add_row(*map(escape, cells))
    if not out.is_terminal:
        out.width = max(out.width, out.measure(table, options=out.options.update(max_width=100_000)).maximum)
    out.print(table)
    if gains and is_fraction(tested.removesuffix("_std")):
        sys.stderr.write("gains and margins are in percentage points\n")


def console() -> Console:
    """A console for standard output; if it is not a terminal, 180 columns wide, enough for the summary."""
    return Console() if sys.stdout.isatty() else Console(width=180)


def _worth_showing(frame: pd.DataFrame) -> list[str]:
    """Select the columns of a trials frame that fit on a terminal; other formats write all columns."""
    dotted = [name for name in frame.columns if "." in name and not name.startswith("rung.")]
    own = [column for column in dotted if frame[column].notna().any()]
    if "kd_gain" in frame.columns:
        # All measured columns except the standard deviations of plain students and of gains, which have intervals.
        measured = [name for name in frame.columns if "test_" in name or name in GAIN_COLUMNS]
        spreads = [name for name in measured if name.endswith("_std") and ("plain" in name or name in GAIN_COLUMNS)]
        chosen = {*SHOWN_CONFIRMED, *measured}.difference(spreads)
    else:
        objective = next((name.removesuffix("_last") for name in frame.columns if name.endswith("_last")), "")
        chosen = {*SHOWN, objective}
    return [column for column in frame.columns if column in chosen or column in own]


def _shown_gain(name: str, metric: str, value: float) -> str:
    """Format a difference of two values of a metric; spreads and margins have no sign."""
    if math.isnan(value):
        return ""
    told = shown_gain(metric.removesuffix("_std"), value)
    return told.removeprefix("+") if name == "margin" or name.endswith("_std") else told


def _shown(name: str, value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA:
        return ""
    if isinstance(value, float):
        return shown(name.removesuffix("_std"), value)
    if isinstance(value, int) and name == "parameters":
        return f"{value:,}"
    return printable(str(value))
