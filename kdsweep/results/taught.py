"""What each teacher of a sweep with several gave at each size, judged like the gains over plain students."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kdsweep.distributions import Config
from kdsweep.results import predictions
from kdsweep.results.confirmed import verdict_of
from kdsweep.results.gains import Verdict, judge_all
from kdsweep.results.sizes import columns_of, size_key, size_text
from kdsweep.seeds import derived_seed, run_name
from kdsweep.tasks.metrics import is_fraction, shown, shown_gain

TUNED = ("kd_gain_tuned", "kd_gain_tuned_low", "kd_gain_tuned_high", "kd_gain_tuned_p", "verdict_tuned")
VERSUS = ("versus", "versus_gain", "versus_low", "versus_high", "versus_p", "versus_verdict")
_COSTS = ("parameters", "size_mb", "flops", "latency_ms")


class Sweep(predictions.Sweep, Protocol):
    """The part of `Results` that tells what teachers gave."""

    @property
    def teachers(self) -> dict[str, dict[str, Any]]:
        """The teachers' descriptions by name."""


def taught_frame(found: Sweep) -> pd.DataFrame:
    """Build `Results.taught`: the best confirmed student of each teacher at each size.

    The best is chosen by the mean on the validation split over the fresh seeds, and so is the best teacher of a size,
    `versus`. The differences of the others from it on the test split are paired by seed and judged as one family, with
    p corrected by Holm's method.
    """
    confirmed, goal = found.confirmed, found.spec.goal
    if confirmed.empty or "teacher" not in confirmed:
        return pd.DataFrame()
    by_value = confirmed.assign(score=confirmed[goal.column].map(goal.score)).sort_values(
        "score", ascending=False, kind="stable", na_position="last"
    )
    distilled = by_value[by_value["teacher"].notna()]
    best = distilled.drop_duplicates([*columns_of(distilled), "teacher"])
    best = best.sort_values([*columns_of(best), "score"], ascending=[*(True for _ in columns_of(best)), False])
    rows = [_row(found, row) for row in best.to_dict("records")]
    leaders: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        leaders.setdefault(size_key(row), row)
    differences = {
        str(row["trial"]): _paired(found, row, leaders[size_key(row)])
        for row in rows
        if row is not leaders[size_key(row)] and found.spec.confirm.seeds != "auto"
    }
    verdicts = judge_all(differences, margin=found.spec.gain_margin()) if differences else {}
    for row in rows:
        verdict = verdicts.get(str(row["trial"]))
        leader = leaders[size_key(row)]
        row |= dict(zip(VERSUS, _versus(str(leader["teacher"]), verdict), strict=True))
    return pd.DataFrame(rows)


def taught_lines(found: Sweep, frame: pd.DataFrame) -> list[str]:
    """Say what each teacher gave, one line per size and teacher, the best first."""
    name, test = found.spec.goal.name, found.spec.goal.test_column
    lines = []
    for row in frame.to_dict("records"):
        text = f"Taught by {row['teacher']} at {size_text(row)}: {row['method']} {row['trial']} reaches "
        text += shown(test, row[test])
        tuned = verdict_of(_confirmed_row(found, row), "kd_gain_tuned")
        text += f", {tuned.text(name)} over the tuned plain student" if tuned is not None else ""
        if versus := versus_text(row, name):
            text += f"; {versus}"
        if not pd.isna(row["test_agreement"]):
            text += f"; agrees with its teacher on {shown('accuracy', row['test_agreement'])} of the test split"
        lines.append(f"{text}.")
    return lines


def versus_text(row: Mapping[str, Any], metric: str) -> str:
    """Describe the comparison of a row with the best teacher of its size; empty if there is none."""
    if not row["versus_verdict"]:
        return ""
    points = " points" if is_fraction(metric) else ""
    ends = f"{shown_gain(metric, row['versus_low'])} to {shown_gain(metric, row['versus_high'])}"
    interval = "" if math.isnan(row["versus_low"]) else f" (CI {ends})"
    gain = f"{shown_gain(metric, row['versus_gain'])}{points}{interval}"
    return f"{gain}, {row['versus_verdict']}, against {row['versus']}"


def described(teachers: Mapping[str, Mapping[str, Any]], taught_by: str, columns: tuple[str, ...]) -> dict[str, Any]:
    """Describe a teacher or an ensemble: its costs are those of all its teachers, its metrics those of a single one."""
    found = [teachers.get(name, {}) for name in taught_by.split("+")]
    costs = {name: sum(float(one.get(name, math.nan)) for one in found) for name in _COSTS}
    alone = found[0] if len(found) == 1 else {}
    return costs | {column: float(alone.get(column, math.nan)) for column in columns}


def _row(found: Sweep, row: Mapping[str, Any]) -> dict[str, Any]:
    goal = found.spec.goal
    sized = {name: row[name] for name in ("student", "budget_epochs", "width") if name in row}
    test, spread = goal.test_column, f"{goal.test_column}_std"
    own = f"teacher_{goal.column}"  # of an ensemble, measured in the confirmation
    teacher = described(found.teachers, str(row["teacher"]), (goal.column, test))
    return {
        **sized,
        "teacher": row["teacher"],
        "trial": row["trial"],
        "method": row["method"],
        "seeds": row["seeds"],
        **{name: row.get(name, math.nan) for name in (goal.column, test, spread, *TUNED, "test_agreement")},
        **{f"teacher_{name}": value for name, value in teacher.items()},
        **({own: row[own]} if "+" in str(row["teacher"]) and own in row else {}),
    }


def _confirmed_row(found: Sweep, row: Mapping[str, Any]) -> dict[str, Any]:
    rows = found.confirmed[found.confirmed["trial"] == row["trial"]]
    return {str(name): value for name, value in rows.iloc[0].items()}


def _versus(leader: str, verdict: Verdict | None) -> tuple[Any, ...]:
    if verdict is None:  # the leader itself, or not judged
        return (leader, math.nan, math.nan, math.nan, math.nan, "")
    return (leader, verdict.mean, verdict.low, verdict.high, verdict.p, verdict.verdict)


def _paired(found: Sweep, row: Mapping[str, Any], leader: Mapping[str, Any]) -> NDArray[np.float64]:
    """Differences on the test split, one per seed that both were trained on; NaN where a training diverged."""
    spec = found.spec
    seeds = [derived_seed(spec.seed, "confirm", number) % 2**31 for number in range(int(row["seeds"]))]
    ours, theirs = (_config(found, str(one["trial"])) for one in (row, leader))
    values = [_test_value(found, ours, seed) - _test_value(found, theirs, seed) for seed in seeds]
    return np.asarray(values, dtype=float) * spec.goal.score(1.0)


def _config(found: Sweep, trial: str) -> Config:
    rows = found.trials.loc[found.trials["trial"] == trial, "config"]
    return dict(json.loads(rows.iloc[0])) if len(rows) else {}


def _test_value(found: Sweep, config: Config, seed: int) -> float:
    try:
        path = found.sweep.confirmation(run_name(config, seed)).result
        return float(json.loads(path.read_text(encoding="utf-8"))[found.spec.goal.test_column])
    except (OSError, ValueError, KeyError, TypeError):  # kdsweep doctor reports damaged files
        return math.nan
