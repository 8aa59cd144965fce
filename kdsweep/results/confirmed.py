"""The frame of confirmed trials: one row per trial, its gains, and reading verdicts back from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kdsweep.distributions import Config
from kdsweep.results.designs import Design, Evidence, Gains, Measured, Verdicts, judge_kinds, paired
from kdsweep.results.gains import LEVEL, Verdict
from kdsweep.results.sizes import as_columns
from kdsweep.seeds import run_name
from kdsweep.tasks import Goal

# The gains over the plain twin and over the tuned plain student, and the suffix of their other columns.
GAINS = {"kd_gain": "", "kd_gain_tuned": "_tuned"}
_COUNTS = tuple(f"{name}{suffix}" for suffix in GAINS.values() for name in ("more_seeds", "failed_seeds"))
_VERDICTS = tuple(f"verdict{suffix}" for suffix in GAINS.values())
_NUMBERS = tuple(f"{gain}{end}" for gain in GAINS for end in ("", "_std", "_low", "_high", "_p"))
GAIN_COLUMNS = (*_NUMBERS, *_VERDICTS, *_COUNTS, "margin", "level")
# Written by version 0.1.0 instead of a verdict.
_RETIRED = ["within_noise", "within_noise_tuned"]

Judge = Callable[[Gains, float], Verdicts]


def confirmed_frame(design: Design, results: Measured, goal: Goal, margin: float) -> pd.DataFrame:
    """Build the frame of a finished confirmation.

    Args:
        design: The design of the confirmation.
        results: The metrics of every training.
        goal: The objective.
        margin: Largest difference that does not matter; 0 rules out the verdict `same`.

    Returns:
        One row per trial. The best mean validation value over the fresh seeds comes first; trials that diverged on a
        fresh seed come last.
    """
    evidence = design.evidence(results)
    gains: dict[str, dict[str, NDArray[np.float64]]] = {gain: {} for gain in GAINS}
    for one in evidence:
        for gain, plain in one.chosen.baselines.items():
            if one.judged:
                gains[gain][one.chosen.key] = paired(one.chosen.config, plain, one.judged, results, goal)
    rows = pd.DataFrame([_measured_row(one, results, goal) for one in evidence])
    others = other_metrics([_measured(one.chosen.config, one.scored, results) for one in evidence], goal)
    frame = pd.concat([rows, gain_columns(gains, list(rows["trial"]), margin, design.judge), others], axis=1)
    order = frame[goal.column].map(goal.score).sort_values(ascending=False, kind="stable", na_position="last")
    return frame.loc[order.index].reset_index(drop=True)


def _measured(config: Config, seeds: Sequence[int], results: Measured) -> pd.DataFrame:
    """The metrics of a configuration, one row per seed."""
    return pd.DataFrame([results[run_name(config, seed)] for seed in seeds])


def _measured_row(one: Evidence, results: Measured, goal: Goal) -> dict[str, Any]:
    """Row of one trial without its gains."""
    chosen, test = one.chosen, goal.test_column

    def plain_spread(name: str, plain: Config | None) -> dict[str, float]:
        unknown = pd.Series([math.nan])
        return spread(name, _measured(plain, one.judged, results)[test] if plain and one.judged else unknown)

    ours = _measured(chosen.config, one.scored, results)
    tuned = chosen.tuned if one.judged else None
    return {
        "trial": chosen.key,
        **as_columns(chosen.config),
        "seeds": len(one.seeds),
        "judged_seeds": len(one.judged),
        "parameters": int(ours["parameters"].iloc[0]),
        "size_mb": float(ours["size_mb"].iloc[0]),
        "first_layer_norm": float(ours["first_layer_norm"].iloc[0]),
        goal.column: float(_measured(chosen.config, one.seeds, results)[goal.column].mean(skipna=False)),
        **{name: float(ours[name].mean()) for name in (f"teacher_{goal.column}",) if name in ours},  # of an ensemble
        **spread(test, ours[test]),
        **plain_spread(f"plain_{test}", chosen.twin),
        "tuned_plain_lr": float(tuned["lr"]) if tuned and "lr" in tuned else math.nan,
        **plain_spread(f"tuned_plain_{test}", tuned),
    }


def gain_columns(differences: Gains, trials: list[str], margin: float, judge: Judge = judge_kinds) -> pd.DataFrame:
    """Judge all confirmed gains.

    Args:
        differences: For each gain in `GAINS`, the paired differences [S] by trial, NaN where a seed failed. Trials
            without an entry have no such gain; their columns stay empty.
        trials: All confirmed trials.
        margin: Largest difference that does not matter; 0 rules out the verdict `same`.
        judge: Judges the differences, given the margin; by default, the gains over plain twins are one family of
            comparisons, those over tuned plain students another.

    Returns:
        One row per trial, in order: for each gain its mean, `_std`, `_low`, `_high` and `_p`, then `verdict`,
        `more_seeds` and `failed_seeds`; and `margin` and `level`.
    """
    columns: dict[str, list[Any]] = {}
    levels: dict[str, float] = {}
    verdicts = judge(differences, margin)
    for gain, suffix in GAINS.items():
        for trial in trials:
            verdict = verdicts[gain].get(trial)
            if verdict is not None:
                levels[trial] = verdict.level
            for name, value in _row(gain, suffix, verdict, differences[gain].get(trial, np.empty(0))).items():
                columns.setdefault(name, []).append(value)
    columns["margin"] = [margin] * len(trials)
    columns["level"] = [levels.get(trial, math.nan) for trial in trials]
    return pd.DataFrame(columns).reindex(columns=list(GAIN_COLUMNS)).astype(dict.fromkeys(_COUNTS, "Int64"))


def _row(gain: str, suffix: str, verdict: Verdict | None, values: NDArray[np.float64]) -> dict[str, Any]:
    found = values[np.isfinite(values)]
    return {
        gain: verdict.mean if verdict else math.nan,
        f"{gain}_std": float(found.std(ddof=1)) if len(found) > 1 else math.nan,
        f"{gain}_low": verdict.low if verdict else math.nan,
        f"{gain}_high": verdict.high if verdict else math.nan,
        f"{gain}_p": verdict.p if verdict else math.nan,
        f"verdict{suffix}": verdict.verdict if verdict else "",
        f"more_seeds{suffix}": verdict.more_seeds if verdict else None,
        f"failed_seeds{suffix}": verdict.failed if verdict else None,
    }


def other_metrics(measured: Sequence[pd.DataFrame], goal: Goal) -> pd.DataFrame:
    """Mean and standard deviation over the seeds of the metrics on the test split that are not the objective.

    Args:
        measured: For each confirmed trial its metrics, one row per seed. Runs of an earlier version have fewer.
        goal: The objective.
    """
    tested = [name for frame in measured for name in frame.columns if name.startswith("test_")]
    names = [name for name in dict.fromkeys(tested) if name != goal.test_column]
    rows = [
        {key: value for name in names for key, value in spread(name, frame.reindex(columns=names)[name]).items()}
        for frame in measured
    ]
    return pd.DataFrame(rows, columns=[column for name in names for column in (name, f"{name}_std")])


def spread(name: str, values: pd.Series) -> dict[str, float]:
    """Mean and sample standard deviation over seeds; NaN if any seed failed."""
    std = values.std(ddof=1, skipna=False) if len(values) > 1 else float("nan")
    return {name: float(values.mean(skipna=False)), f"{name}_std": float(std)}


def upgraded(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame of confirmed trials with today's columns.

    Version 0.1.0 wrote gains without intervals and verdicts. These columns are then empty, until `kdsweep confirm`
    writes the frame again.
    """
    if frame.empty or {"judged_seeds", *GAIN_COLUMNS} <= set(frame.columns):
        return frame
    kept = frame.drop(columns=_RETIRED, errors="ignore")
    missing = [name for name in GAIN_COLUMNS if name not in kept.columns]
    empty = pd.DataFrame({name: "" if name in _VERDICTS else math.nan for name in missing}, index=kept.index)
    known = pd.concat([kept, empty], axis=1).astype(dict.fromkeys(_COUNTS, "Int64"))
    return known.assign(judged_seeds=known["seeds"].where(known["kd_gain"].notna(), 0))


def verdict_of(row: Mapping[str, Any], gain: str) -> Verdict | None:
    """Read the verdict on a gain from a row of the frame.

    Args:
        row: The row of a confirmed trial.
        gain: A key of `GAINS`.

    Returns:
        The verdict; None if the trial has no such gain, it was not judged, or version 0.1.0 wrote the row.
    """
    suffix = GAINS[gain]
    if not row.get(f"verdict{suffix}"):
        return None
    level = float(row.get("level", math.nan))  # not written before version 0.2.0
    failed = int(row[f"failed_seeds{suffix}"])
    return Verdict(
        mean=float(row.get(gain, math.nan)),
        low=float(row.get(f"{gain}_low", math.nan)),
        high=float(row.get(f"{gain}_high", math.nan)),
        p=float(row[f"{gain}_p"]),
        verdict=row[f"verdict{suffix}"],
        more_seeds=int(row[f"more_seeds{suffix}"]),
        seeds=judged_seeds(row) - failed,
        failed=failed,
        margin=float(row["margin"]),
        level=LEVEL if math.isnan(level) else level,
    )


def judged_seeds(row: Mapping[str, Any]) -> int:
    """Number of paired seeds behind the gains of a confirmed trial; 0 if they were not judged."""
    return int(row.get("judged_seeds", row["seeds"]))
