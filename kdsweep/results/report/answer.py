"""The report in words: the answer in two sentences, the state of the sweep, the leaderboard, the failures."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kdsweep.results import agreement
from kdsweep.results.confirmed import verdict_of
from kdsweep.results.gains import Verdict
from kdsweep.results.report.charts.gains import BASELINES
from kdsweep.results.report.charts.size import COSTS
from kdsweep.results.report.charts.style import named, words
from kdsweep.results.report.found import Found, measured_trials, settings_text
from kdsweep.results.sizes import size_text
from kdsweep.results.speed import within_noise
from kdsweep.search.baseline import PLAIN
from kdsweep.search.trial import STATE_WORDS, State
from kdsweep.tasks.metrics import is_fraction, shown, shown_gain
from kdsweep.words import count_of

ENDED = ("COMPLETE", "PRUNED", "FAILED")


def answer(found: Found) -> tuple[str, str]:
    """The best student and its verdict, then its size and speed; the second is empty if there is no student."""
    trials = found.trials
    best = measured_trials(found).head(1).to_dict("records")
    if not best:
        if len(trials) and (trials["state"] == "FAILED").all():
            which = f"All {len(trials)} trials" if len(trials) > 1 else "The only trial"
            return f"{which} failed, so there is no student.", ""
        return "No trial has finished an epoch yet, so there is no student.", ""
    row = best[0]
    return _verdict(found, row), _cost(found, row)


def _verdict(found: Found, row: Mapping[str, Any]) -> str:
    goal = found.goal
    front = f" by {words(goal.column)} on the Pareto front" if len(found.spec.goals) > 1 else ""
    student = f"The best student{front}, {row['trial']} ({named(str(row['method']))}, {size_text(row)}), reaches"
    judged = confirmed_row(found, row["trial"])
    if not judged:
        teacher = _teacher_value(found, goal.column)
        return (
            f"{student} a {words(goal.column)} of {shown(goal.column, row[goal.column])}{teacher}, measured on the one "
            "seed of the search and not confirmed."
        )
    test, seeds = goal.test_column, int(judged["seeds"])
    spread = judged.get(f"{test}_std", math.nan)
    spread = "" if math.isnan(spread) else f" ± {shown_gain(goal.name, spread).removeprefix('+')}"
    measured = (
        f"{student} a {words(test)} of {shown(test, judged[test])}{spread} over {seeds} fresh "
        f"seed{'s' if seeds > 1 else ''}{_teacher_value(found, test)}"
    )
    if found.spec.label_free:
        ends = agreement.interval(judged, goal)
        return f"{measured}{f' ({ends})' if ends else ''}. {agreement.NO_GAIN}."
    if row["method"] == PLAIN:
        return f"{measured}; it is a plain student, trained without the teacher."
    return f"{measured}; {_gained(judged, goal.name)}."


def _gained(judged: Mapping[str, Any], metric: str) -> str:
    """The gains over the plain twin and over the tuned plain student as the end of a sentence."""
    twin = verdict_of(judged, "kd_gain")
    if twin is None:
        return "its gain has no verdict"
    parts = [_compared(twin, "the same student without the teacher", metric)]
    tuned = verdict_of(judged, "kd_gain_tuned")
    return "; ".join(parts + ([_compared(tuned, "the tuned plain student", metric)] if tuned else []))


def _compared(verdict: Verdict, baseline: str, metric: str) -> str:
    unit = " points" if is_fraction(metric) else ""
    size = f"{shown_gain(metric, abs(verdict.mean)).removeprefix('+')}{unit}" if verdict.seeds else ""
    interval = f" (95 % interval {verdict.ends(metric)})" if verdict.seeds > 1 else ""
    if verdict.verdict in ("gain", "loss"):
        return f"it is {size}{interval} {'better' if verdict.verdict == 'gain' else 'worse'} than {baseline}"
    return f"compared with {baseline}: {verdict.conclusion(metric)}{interval}"


def _cost(found: Found, row: Mapping[str, Any]) -> str:
    teacher = found.teacher
    size = f"It has {int(row['parameters']):,} parameters ({row['size_mb']:.3g} MiB)"
    if not teacher:
        return f"{size}."
    smaller = 1 - row["size_mb"] / teacher["size_mb"]
    versus = f"{smaller:.1%} smaller" if smaller >= 0 else f"{-smaller:.1%} larger"
    text = f"{size}, {versus} than the teacher {teacher['model']} with {teacher['parameters']:,}"
    speed = row.get("latency_ms", math.nan)
    if isinstance(speed, float) and not math.isnan(speed):
        text += f", and takes {speed:.3g} ms per sample"
        text += _than_teacher(row, teacher) if teacher.get("latency_ms") else ""
    return f"{text}."


def _than_teacher(row: Mapping[str, Any], teacher: Mapping[str, Any]) -> str:
    """The latency beside that of the teacher; a difference that their spreads explain is called noise."""
    if not within_noise(row, teacher):
        return f" instead of {teacher['latency_ms']:.3g} ms"
    spreads = [row.get("latency_iqr_ms", math.nan), teacher.get("latency_iqr_ms", math.nan)]
    ranges = " and ".join(f"{value:.2g}" for value in spreads)
    return (
        f"; the difference from the teacher's {teacher['latency_ms']:.3g} ms is within the noise of the measurement "
        f"(interquartile ranges {ranges} ms)"
    )


def _teacher_value(found: Found, column: str) -> str:
    value = found.teacher.get(column)
    return f" (teacher {shown(column, float(value))})" if value is not None else ""


def confirmed_row(found: Found, trial: str) -> dict[str, Any]:
    confirmed = found.confirmed
    rows = [] if confirmed.empty else confirmed[confirmed["trial"] == trial].to_dict("records")
    return {str(name): value for name, value in rows[0].items()} if rows else {}


def status(found: Found, running: bool, path: str, now: str, live: bool = False) -> str:
    """One sentence about a sweep that has not ended; empty if it has."""
    ended, wanted = int(found.trials["state"].isin(ENDED).sum()), found.spec.search.trials
    if running:
        told = f"The sweep is still running: {ended} of {count_of(wanted, 'trial')} had ended at {now}."
        return told if live else f"{told} To update this page: kdsweep report {path}"
    if ended < wanted:
        return f"The sweep stopped after {ended} of {count_of(wanted, 'trial')}. To continue it: kdsweep resume {path}"
    return ""


@dataclass(frozen=True)
class Gain:
    """A confirmed gain in the leaderboard: the mean, its interval and the verdict; empty where there is none."""

    mean: str = ""
    interval: str = ""
    verdict: str = ""


@dataclass
class Row:
    """One row of the leaderboard."""

    trial: str
    state: str
    method: str
    settings: str
    values: list[str]
    costs: list[str]
    gains: list[Gain]
    export: str = ""


@dataclass
class Leaderboard:
    """The leaderboard.

    Attributes:
        values: Headings of `Row.values`: the objectives and the test value.
        costs: Headings of `Row.costs`.
        gains: Headings of `Row.gains`; empty if no trial is confirmed.
        rows: The trials, best first, then those without a value.
        left_out: Number of trials that are not in the table.
    """

    values: list[str]
    costs: list[str]
    gains: list[str]
    rows: list[Row] = field(default_factory=list)
    left_out: int = 0


def leaderboard(found: Found, path: str, most: int) -> Leaderboard:
    """The trials, best first.

    Args:
        found: The results.
        path: The sweep's directory as written in commands.
        most: Maximum number of rows.
    """
    goal, trials = found.goal, found.trials
    best = measured_trials(found)
    others = trials[~trials["trial"].isin(set(best["trial"]))].sort_values(["state", "number"], ascending=[False, True])
    costs = [name for name in ("size_mb", *COSTS) if name in trials.columns and trials[name].notna().any()]
    costs.sort(key=lambda name: name != "parameters")
    columns = [{"size_mb": "MiB"}.get(name, COSTS.get(name, name)) for name in costs]
    kept = {file.parent.name for file in found.sweep.trials.glob("*/best.safetensors")}
    confirmed = {} if found.confirmed.empty else {row["trial"]: row for row in found.confirmed.to_dict("records")}
    objectives = [goal.column, *(one.column for one in found.spec.goals[1:] if not one.is_cost)]
    compared = bool(confirmed) and not found.spec.label_free
    values = [words(name) for name in (*objectives, *([goal.test_column] if confirmed else []))]
    table = Leaderboard(
        values, [*columns, "epochs"], [f"gain {name}" for name in BASELINES.values()] if compared else []
    )
    records = [*best.to_dict("records"), *others.to_dict("records")]
    for row in records[:most]:
        judged = confirmed.get(row["trial"], {})
        told = [shown(name, float(row[name])) for name in objectives]
        table.rows.append(
            Row(
                trial=str(row["trial"]),
                state=STATE_WORDS[State(row["state"])],
                method=named(str(row["method"])),
                settings=settings_text(row["config"]),
                values=[*told, *([_mean(judged, goal.test_column, goal.name)] if confirmed else [])],
                costs=[*(_cost_text(name, row[name]) for name in costs), str(row["epochs"])],
                gains=[_gain(judged, gain, goal.name) for gain in BASELINES] if compared else [],
                export=f"kdsweep export {path} --out students --trial {shlex.quote(str(row['trial']))}"
                if row["trial"] in kept
                else "",
            )
        )
    table.left_out = len(records) - len(table.rows)
    return table


def _cost_text(name: str, value: Any) -> str:
    if value is None or value != value or str(value) == "<NA>":
        return ""
    return f"{int(value):,}" if name in ("parameters", "flops") else f"{float(value):,.3g}"


def _mean(judged: Mapping[str, Any], column: str, metric: str) -> str:
    value, spread = judged.get(column, math.nan), judged.get(f"{column}_std", math.nan)
    return shown(column, value) + ("" if math.isnan(spread) else f" ± {shown_gain(metric, spread).removeprefix('+')}")


def _gain(judged: Mapping[str, Any], gain: str, metric: str) -> Gain:
    mean = judged.get(gain, math.nan)
    if math.isnan(mean):
        return Gain()
    verdict = verdict_of(judged, gain)
    interval = f"{verdict.ends(metric)}" if verdict and verdict.seeds > 1 else ""
    return Gain(shown_gain(metric, mean), interval, verdict.verdict if verdict else "")


def gain_of(judged: Mapping[str, Any], metric: str) -> str:
    gain = judged.get("kd_gain", math.nan)
    return "" if math.isnan(gain) else shown_gain(metric, gain)


def verdict_word(judged: Mapping[str, Any]) -> str:
    verdict = verdict_of(judged, "kd_gain") if judged else None
    return verdict.verdict if verdict else ""


@dataclass
class Failure:
    """A reason for failures.

    Attributes:
        reason: The error as recorded.
        count: Number of trials.
        trials: Keys of the first of them.
    """

    reason: str
    count: int
    trials: list[str]


def failures(found: Found) -> list[Failure]:
    """Why trials failed, the most frequent reasons first."""
    failed = found.trials[found.trials["state"] == "FAILED"]
    groups = [
        Failure(str(reason).strip() or "no reason was recorded", len(keys), keys.head(5).tolist())
        for reason, keys in failed.groupby("error")["trial"]
    ]
    return sorted(groups, key=lambda group: -group.count)


def notes(found: Found) -> list[str]:
    """Other things that a reader must know: left-out images, missing baselines, diverged seeds."""
    trials, confirmed, lines = found.trials, found.confirmed, []
    if "skipped_images" in trials.columns and len(trials):
        lines.append(f"{int(trials['skipped_images'].max())} unreadable images were left out.")
    if confirmed.empty or found.spec.label_free:
        return lines
    rows = confirmed[confirmed["method"] != PLAIN]
    for row in rows.to_dict("records"):
        failed = row.get("failed_seeds")
        if failed is not None and failed == failed and str(failed) != "<NA>" and failed:
            lines.append(f"{row['trial']}: {int(failed)} of {int(row['seeds'])} fresh seeds diverged and are left out.")
    if len(rows) and rows["kd_gain_tuned"].isna().any():
        lines.append("Some students have no tuned plain student: no plain trial of that width was trained to the end.")
    return lines
