"""The end of a sweep: the best students beside plain twins and teacher, where it all lies, what comes next."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from kdsweep.errors import printable
from kdsweep.results.frames import Results
from kdsweep.terminal.progress import config_text
from kdsweep.terminal.tables import console

SHOWN = 5
COLUMNS = (
    "parameters", "MB", "smaller", "epochs", "val accuracy", "test accuracy",
    "plain twin", "gain", "tuned plain", "gain",
)  # fmt: skip


def print_summary(results: Results) -> None:
    """Print it to standard output."""
    out = console()
    table = Table(box=box.SIMPLE_HEAD, title=f"{escape(results.spec.name)}: the best students", title_justify="left")
    table.add_column("trial")
    table.add_column("settings")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    confirmed = {row["trial"]: row for row in results.confirmed.to_dict("records")}
    for row in results.distinct(SHOWN).to_dict("records"):
        table.add_row(escape(str(row["trial"])), *_student(row, confirmed.get(row["trial"], {}), results))
    for row in results.plain().to_dict("records"):
        table.add_row("best plain", *_student(row, confirmed.get(row["trial"], {}), results))
    table.add_row("teacher", *_teacher(results.teacher))
    out.print(table)
    for line in _notes(results):
        out.print(line, highlight=False, markup=False)


def _student(row: Mapping[str, Any], judged: Mapping[str, Any], results: Results) -> list[str]:
    cells = [
        escape(printable(config_text(results.config(str(row["trial"]))))),
        f"{int(row['parameters']):,}",
        f"{row['size_mb']:.3f}",
        f"{1 - row['size_mb'] / results.teacher['size_mb']:.2%}" if results.teacher else "",
        str(row["epochs"]),
        f"{row['val_accuracy']:.2%}",
    ]
    if not judged:
        return [*cells, "", "", "", "", ""]
    cells.append(_mean(judged, "test_accuracy"))
    for plain, gain in (("plain_test_accuracy", "kd_gain"), ("tuned_plain_test_accuracy", "kd_gain_tuned")):
        # A plain student is its own twin.
        known = row["method"] != "none" and not math.isnan(judged[plain])
        points = f"{judged[gain] * 100:+.2f}{_spread(judged[f'{gain}_std'])}" if known else ""
        cells += [_mean(judged, plain) if known else "", points]
    return cells


def _mean(judged: Mapping[str, Any], name: str) -> str:
    return f"{judged[name]:.2%}{_spread(judged[f'{name}_std'])}"


def _teacher(teacher: Mapping[str, Any]) -> list[str]:
    if not teacher:
        return [""] * (len(COLUMNS) + 1)
    epochs = str(teacher["epochs"] or "")
    sizes = [f"{teacher['parameters']:,}", f"{teacher['size_mb']:.3f}"]
    test = f"{teacher['test_accuracy']:.2%}" if "test_accuracy" in teacher else ""
    return [escape(teacher["model"]), *sizes, "", epochs, f"{teacher['val_accuracy']:.2%}", test, "", "", "", ""]


def _notes(results: Results) -> list[str]:
    path = _shortest(results.path)
    states = ", ".join(f"{count} {state}" for state, count in results.trials["state"].value_counts().items())
    notes = [f"{len(results.trials)} trials ({states}) in {path}"]
    if not results.confirmed.empty:
        seeds = int(results.confirmed["seeds"].iloc[0])
        notes.append(
            f"Confirmed on {seeds} fresh seeds, mean ± spread on the test split, gains in points and paired by seed. "
            "The plain twin has the same settings; the tuned plain student those of the best plain trial of its width."
        )
        norms = ", ".join(f"{row.trial} {row.first_layer_norm:.4f}" for row in results.confirmed.itertuples())
        notes.append(f"Norm of the first layer before training, which a plain twin of the same seed shares: {norms}.")
        notes += _warnings(results)
    more = 2 * len(results.trials)
    commands = (
        f"results {path} --top 10", f"export {path} --out students --top 3", f"resume {path} --trials {more}"
    )  # fmt: skip
    return [*notes, "", "Next:", *(f"  kdsweep {command}" for command in commands)]


def _warnings(results: Results) -> list[str]:
    """What a reader should not take for a finding."""
    confirmed = results.confirmed[results.confirmed["method"] != "none"]
    tuned = confirmed["within_noise_tuned"] & confirmed["kd_gain_tuned"].notna()
    noise = confirmed.loc[confirmed["within_noise"] | tuned, "trial"]
    lines = [f"Warning: {key}: a gain is no larger than its spread over the seeds, so it may be none." for key in noise]
    if confirmed["kd_gain_tuned"].isna().any():
        lines.append("Some have no tuned plain student beside them: the sweep tried no plain student of their width.")
    return lines


def _spread(std: float) -> str:
    return "" if math.isnan(std) else f" ± {std * 100:.2f}"


def _shortest(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
