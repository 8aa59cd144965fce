"""Prints data frames and other command output, and writes frames to files."""

from __future__ import annotations

import io
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from kdsweep.errors import InputError, did_you_mean, printable
from kdsweep.methods.reference import needed, written
from kdsweep.params import Parts, summary
from kdsweep.results import order
from kdsweep.results.confirmed import GAIN_COLUMNS
from kdsweep.results.frames import Results
from kdsweep.storage.places import Place, reason_of
from kdsweep.tasks.metrics import is_fraction, shown, shown_gain
from kdsweep.terminal.conditions import matching
from kdsweep.terminal.layout import GAP, Column, fitting, table
from kdsweep.words import count_of

FILE_WIDTH = 240  # columns where there is no terminal
FORMATS = ("csv", "json", "parquet")  # each is also a file ending
SHOWN = ("trial", "state", "method", "student", "teacher", "budget_epochs", "width", "augment", "temperature", "alpha",
         "lr", "epochs", "parameters")  # fmt: skip
COSTS = ("size_mb", "flops", "latency_ms", "latency_iqr_ms", "throughput")
SHOWN_CONFIRMED = ("trial", "method", "student", "teacher", "budget_epochs", "width", "augment", "temperature", "alpha",
                   "lr", "parameters", "seeds", "judged_seeds")  # fmt: skip

# The columns that a narrow table keeps longest, after the trial, the objective and the test value.
IMPORTANT = ("kd_gain", "verdict", "kd_gain_low", "kd_gain_high", "method", "state", "student", "teacher", "width",
             "kd_gain_tuned", "verdict_tuned", "kd_gain_tuned_low", "kd_gain_tuned_high", "parameters",
             "lr", "temperature", "alpha", "epochs", "latency_ms", "size_mb", "flops", "throughput",
             "latency_iqr_ms")  # fmt: skip
_WHOLE = ("trial", "state", "verdict", "verdict_tuned", "model", "dataset")  # text that is never broken


def ranked(results: Results) -> pd.DataFrame:
    """The trials from best to worst as in `Results.best`, failed ones last, without the `config` column."""
    everything = order.ranked(results.trials, *results.goals)
    ordered = order.by_confirmation(everything, results.confirmed, results.goal, results.group_by)
    return ordered.drop(columns="config")


def confirmed(results: Results) -> pd.DataFrame:
    """The confirmed trials; without labels there are no plain students, nor columns about them."""
    frame = results.confirmed
    if not results.spec.label_free:
        return frame
    plain = [name for name in frame.columns if name.startswith(("plain_", "tuned_plain_"))]
    return frame.drop(columns=[*GAIN_COLUMNS, "judged_seeds", *plain], errors="ignore")


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


def format_of(asked: str, out: Path | Place | None) -> str:
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


def write(frame: pd.DataFrame, how: str, out: Place | None, keep: str = "") -> None:
    """Write a frame to a file or to standard output.

    Args:
        frame: The frame to write.
        how: Format: `table`, `csv`, `json` (a list of records) or `parquet`.
        out: Output file; None for standard output.
        keep: A column that a table shows before others, because it was asked for.

    Raises:
        InputError: If the file cannot be written.
    """
    if how == "table" and out is None:
        _print_frame(frame, keep)
        return
    data = _encoded(frame, how)
    if out is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        out.write_bytes(data)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written: {reason_of(error)}") from error


def print_facts(facts: Mapping[str, Any]) -> None:
    """Print names and values, one pair per line."""
    width = max([10, *map(len, facts)])
    for name, value in facts.items():
        sys.stdout.write(f"{name:{width}} {_shown(name, value)}\n")


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows with the same keys as a table."""
    _print_frame(pd.DataFrame(list(rows)))


def method_row(described: Mapping[str, Any]) -> dict[str, str]:
    """Row of a method in the list of methods."""
    params = (f"{p['name']} {p['default']:g}{_range(p['search'])}" for p in described["params"])
    return {"method": described["name"], "what it does": described["summary"], "parameters": ", ".join(params)}


def part_rows(parts: Parts[Any]) -> list[dict[str, str]]:
    """One row per registered part of a kind."""
    return [
        {
            parts.kind: name,
            "what it does": summary(parts[name]),
            "parameters": ", ".join(f"{key} {written(param.default)}" for key, param in parts[name].params().items()),
        }
        for name in parts
    ]


def open_part_rows(parts: Parts[Any]) -> list[dict[str, str]]:
    """As `part_rows`, with a row on how to refer to a user-defined part."""
    own = {parts.kind: "package.module:Class", "what it does": "your own, see docs/own-parts.md", "parameters": ""}
    return [*part_rows(parts), own]


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


def _print_frame(frame: pd.DataFrame, keep: str = "") -> None:
    if frame.empty:
        sys.stderr.write("no rows\n")
        return
    out = console()
    per_trial = "trial" in frame.columns
    names = _worth_showing(frame, keep) if per_trial and "epoch" not in frame.columns else list(map(str, frame.columns))
    every = _columns(frame, names)
    if is_bounded(out):
        columns = fitting(every, _least_important(frame, names, keep) if per_trial else (), out.width) or every[:1]
    else:
        columns = every
        out.width = max(out.width, sum(column.width + GAP for column in columns))
    out.print(table(columns))
    left_out = [column.title for column in every if column not in columns]
    if left_out:
        more = f" and {len(left_out) - 5} more" if len(left_out) > 5 else ""
        sys.stderr.write(f"columns that do not fit: {', '.join(left_out[:5])}{more}; --format csv has all\n")
    elif is_bounded(out) and len(names) < len(frame.columns):
        sys.stderr.write(f"{count_of(len(frame.columns) - len(names), 'more column')}: --format csv has all\n")
    tested = _tested(frame)
    if _gains(names) and is_fraction(tested.removesuffix("_std")):
        sys.stderr.write("gains and margins are in percentage points\n")


def _columns(frame: pd.DataFrame, names: Sequence[str]) -> list[Column]:
    """The columns of a frame as text."""
    # Format gains like the metric they are differences of.
    tested, gains = _tested(frame), {*_gains(names), "margin"}
    columns = []
    for name in names:
        values = frame[name].tolist()
        cells = [_shown_gain(name, tested, value) if name in gains else _shown(name, value) for value in values]
        left = not pd.api.types.is_numeric_dtype(frame[name])
        columns.append(Column(name, name, cells, left=left, wraps=left and name not in _WHOLE))
    return columns


def _tested(frame: pd.DataFrame) -> str:
    return next((str(name) for name in frame.columns if str(name).startswith("test_")), "")


def _gains(names: Sequence[str]) -> list[str]:
    return [name for name in names if name.startswith("kd_gain") and not name.endswith("_p")]


def _least_important(frame: pd.DataFrame, names: Sequence[str], keep: str) -> list[str]:
    """The order in which columns are left out; the last of a frame's other columns first."""
    objective = _objective(frame)
    values = [name for name in names if name.startswith("val_")]
    first = ["trial", "epoch", keep, objective, _tested(frame), *values, *IMPORTANT]
    rest = [name for name in names if name not in first]
    return [name for name in reversed([*first, *rest]) if name in names and name != "trial"]


def _objective(frame: pd.DataFrame) -> str:
    """Column of the objective in a frame of trials; empty in other frames."""
    return next((str(name).removesuffix("_last") for name in frame.columns if str(name).endswith("_last")), "")


def is_bounded(out: Console) -> bool:
    """Whether the width of the output is known; a file or a pipe takes lines of any length."""
    return out.is_terminal or out.is_jupyter or os.environ.get("COLUMNS", "").isdigit()


def console() -> Console:
    """A console for standard output; in a file or a pipe it is as wide as COLUMNS says, else `FILE_WIDTH`."""
    out = Console(emoji=False)
    if not is_bounded(out):
        out.width = FILE_WIDTH
    return out


def _worth_showing(frame: pd.DataFrame, keep: str) -> list[str]:
    """Select the columns of a trials frame that are worth showing in a table; other formats write all columns."""
    dotted = [name for name in frame.columns if "." in name and not name.startswith("rung.")]
    own = [column for column in dotted if frame[column].notna().any()]
    if "seeds" in frame.columns:  # confirmed trials
        # All measured columns except the standard deviations of plain students and of gains, which have intervals.
        measured = [name for name in frame.columns if "test_" in name or name in GAIN_COLUMNS]
        spreads = [name for name in measured if name.endswith("_std") and ("plain" in name or name in GAIN_COLUMNS)]
        chosen = {*SHOWN_CONFIRMED, *measured}.difference(spreads)
    else:
        chosen = {*SHOWN, _objective(frame), *_known(frame, COSTS)}
    return [column for column in frame.columns if column in chosen or column in own or column == keep]


def _known(frame: pd.DataFrame, names: Sequence[str]) -> list[str]:
    return [name for name in names if name in frame.columns and frame[name].notna().any()]


def _shown_gain(name: str, metric: str, value: float) -> str:
    """Format a difference of two values of a metric; spreads and margins have no sign."""
    if math.isnan(value):
        return ""
    told = shown_gain(metric.removesuffix("_std"), value)
    return told.removeprefix("+") if name == "margin" or name.endswith("_std") else told


def _shown(name: str, value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA:
        return ""
    if isinstance(value, float) and name == "throughput":
        return f"{value:,.0f}"
    if isinstance(value, float):
        return shown(name.removesuffix("_std"), value)
    if isinstance(value, int) and name in ("parameters", "flops"):
        return f"{value:,}"
    return printable(str(value))
