"""The summary at the end of a sweep: the best students, their baselines, the teacher, and suggested next commands."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from rich.text import Text

from kdsweep.errors import printable
from kdsweep.results.confirmed import verdict_of
from kdsweep.results.effort import efforts
from kdsweep.results.frames import Results
from kdsweep.search.baseline import PLAIN
from kdsweep.tasks.metrics import is_fraction
from kdsweep.terminal.students import student_table
from kdsweep.terminal.tables import console

SHOWN = 5
REASONS = 3  # failures that are explained
_BASELINES = {"kd_gain": "its plain twin", "kd_gain_tuned": "the tuned plain student"}


def print_summary(results: Results) -> None:
    """Print the summary to standard output."""
    out = console()
    out.print(Text(f"{printable(results.spec.name)}: the best students", style="bold"))
    out.print()
    out.print(student_table(results, results.distinct(SHOWN), out.width))
    out.print()
    for line in _notes(results):
        # What is copied, paths and commands, is left to the terminal to wrap.
        copied = str(_shortest(results.path)) in line
        out.print(line, highlight=False, markup=False, soft_wrap=copied)


def _notes(results: Results) -> list[str]:
    path = _shortest(results.path)
    states = ", ".join(f"{count} {state}" for state, count in results.trials["state"].value_counts().items())
    notes = [f"{len(results.trials)} trials ({states}) in {path}", *_failures(results.trials)]
    if not results.confirmed.empty:
        seeds = int(results.confirmed["seeds"].iloc[0])
        points = "in percentage points, " if is_fraction(results.goal.name) else ""
        notes.append(
            f"Confirmed on {seeds} fresh seeds: mean ± standard deviation on the test split. Gains are {points}paired "
            "by seed, with the 95 % confidence interval of their mean and a verdict. The plain twin has the same "
            "settings without distillation; the tuned plain student has the settings of the best plain trial of the "
            "same width that was trained to the end. Confirmed students are ordered by their mean "
            f"{results.goal.column.replace('_', ' ')} on the fresh seeds."
        )
        norms = ", ".join(f"{row.trial} {row.first_layer_norm:.4f}" for row in results.confirmed.itertuples())
        notes += efforts(results.effort(), results.confirmed)
        notes.append(f"Norm of the first layer before training (equal for a plain twin of the same seed): {norms}.")
        notes += _warnings(results)
    more = 2 * len(results.trials)
    commands = (
        f"results {path} --top 10", f"export {path} --out students --top 3", f"resume {path} --trials {more}"
    )  # fmt: skip
    return [*notes, "", "Next:", *(f"  kdsweep {command}" for command in commands)]


def _failures(trials: pd.DataFrame) -> list[str]:
    """Explain why trials failed, the most frequent reasons first."""
    failed = trials[trials["state"] == "FAILED"]
    lines = []
    for reason, keys in sorted(failed.groupby("error")["trial"], key=lambda group: -len(group[1])):
        which = f"Trial {keys.iloc[0]}" if len(keys) == 1 else f"{len(keys)} trials ({keys.iloc[0]}, ...)"
        lines.append(printable(f"{which} failed: {' '.join(str(reason).split()) or 'no reason was recorded'}"))
    more = [f"and {len(lines) - REASONS} more reasons, see: kdsweep results --sort state"]
    return lines[:REASONS] + (more if len(lines) > REASONS else [])


def _warnings(results: Results) -> list[str]:
    """Warn about gains that are not established, and explain missing baselines and verdicts."""
    confirmed = results.confirmed[results.confirmed["method"] != PLAIN]
    name, lines = results.goal.name, []
    for row in confirmed.to_dict("records"):
        verdicts = {baseline: verdict_of(row, gain) for gain, baseline in _BASELINES.items()}
        doubts = [
            f"over {baseline}: {verdict.conclusion(name)}"
            for baseline, verdict in verdicts.items()
            if verdict is not None and (verdict.verdict != "gain" or verdict.failed)
        ]
        if doubts:
            lines.append(f"Warning: {row['trial']}: {'; '.join(doubts)}.")
    if confirmed["kd_gain_tuned"].isna().any():
        lines.append("Some rows have no tuned plain student: no plain trial of that width was trained to the end.")
    if not confirmed.empty and confirmed["verdict"].eq("").any():
        lines.append("The gains have no verdicts because version 0.1.0 confirmed them; kdsweep confirm adds them.")
    return lines


def _shortest(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
