"""Builds the frames of trials and epochs from the logs of a sweep."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from kdsweep.config.spec import read_spec
from kdsweep.distributions import Config
from kdsweep.errors import SweepDirError
from kdsweep.params import named
from kdsweep.results.sizes import BUDGET, as_columns, size_key
from kdsweep.search.baseline import PLAIN
from kdsweep.search.plan import rule_of
from kdsweep.search.stopping import STOPPING_RULES
from kdsweep.storage.files import read_json
from kdsweep.storage.jsonl import read_lines
from kdsweep.storage.logs import no_epochs, no_journal, no_trial
from kdsweep.storage.paths import SweepDir
from kdsweep.tasks import Goal, Task

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

# Optuna state -> state in the results.
_STATES = {"COMPLETE": "COMPLETE", "PRUNED": "PRUNED", "FAIL": "FAILED", "RUNNING": "RUNNING", "WAITING": "RUNNING"}
_LEADING = ("trial", "number", "state", "method", "width", "temperature", "alpha", "lr")
_SIZES = ("parameters", "size_mb", "flops")  # version 0.1.0 did not write flops
SPEEDS = ("latency_ms", "latency_iqr_ms", "throughput", "activation_mb")
_COSTS = (*_SIZES, *SPEEDS, "train_seconds")
COHORT = "cohort"  # how many trials trained as one; the log has none for a trial by itself
PLACES = ("node", "device")  # where an epoch was trained; earlier versions did not write them
_TIMES = ("started_at", "ended_at")  # ISO 8601, UTC
LOSSES = ("train_loss", "task_loss", "distill_loss")  # version 0.1.0 wrote only train_loss


def fingerprint(sweep: SweepDir) -> bytes:
    """Lengths and hashes of the logs; they tell whether a frame was built from the current logs."""
    parts = []
    for log in (sweep.journal, sweep.epochs_log, sweep.costs):
        if log.is_file():
            with log.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                parts.append(f"{log.name} {file.tell()} {digest}")
    return "\n".join(parts).encode()


def epochs_frame(sweep: SweepDir) -> pd.DataFrame:
    """Build `Results.epochs`."""
    frame = in_order(pd.DataFrame(list(read_lines(sweep.epochs_log))), sweep)
    # An epoch repeated after an interruption is logged twice; the last entry counts.
    return frame.drop_duplicates(["trial", "epoch"], keep="last").reset_index(drop=True)


def in_order(epochs: pd.DataFrame, sweep: SweepDir) -> pd.DataFrame:
    """Put the columns of `epochs` in a fixed order, and add those that are missing."""
    metrics = _metrics(epochs)
    if epochs.empty:  # its log does not name the objectives yet
        metrics += [goal.column for goal in read_spec(sweep).goals if goal.column.startswith("val_")]
        metrics = list(dict.fromkeys(metrics))
    last = [*metrics, "lr", "seconds", *_costs(epochs), *PLACES, *([COHORT] if COHORT in epochs.columns else [])]
    known = ["trial", "epoch", *LOSSES, *last]
    parts = [name for name in epochs.columns if name not in known]
    ordered = epochs.reindex(columns=["trial", "epoch", *LOSSES, *parts, *last])
    together = {COHORT: ordered[COHORT].fillna(1).astype("Int64")} if COHORT in ordered else {}
    return ordered.assign(**{name: _texts(ordered[name]) for name in PLACES}, **together)


def _texts(column: pd.Series) -> pd.Series:
    """Return a column of text; what is missing is empty."""
    return column.astype(object).where(column.notna(), "").astype(str)


def _costs(epochs: pd.DataFrame) -> list[str]:
    """Names of the columns of costs; every epoch has the latency only if it is an objective."""
    return [*_SIZES, *(name for name in ("latency_ms",) if name in epochs.columns)]


def _metrics(epochs: pd.DataFrame) -> list[str]:
    """Names of the metric columns: loss and accuracy, the others that are usually measured, then further ones."""
    found = [name for name in epochs.columns if name.startswith("val_")]
    usual = [name for name in (f"val_{metric}" for metric in Task.always) if name in found]
    return list(dict.fromkeys(["val_loss", "val_accuracy", *usual, *sorted(found)]))


def trials_frame(sweep: SweepDir, epochs: pd.DataFrame) -> pd.DataFrame:
    """Build `Results.trials`.

    Raises:
        SweepDirError: If a log is damaged, or lacks a trial that the other one shows to have run.
    """
    goal = read_spec(sweep).goal
    rows = [_row(frozen) for frozen in frozen_trials(sweep)]
    _refuse_lost_trials(sweep, rows, epochs)
    names = dict.fromkeys(name for row in rows for name in row)
    frame = pd.DataFrame(rows, columns=list(names) or [*_LEADING, "config"])
    last_value = f"{goal.column}_last"
    others = [name for name in _metrics(epochs) if name != goal.column]
    if not epochs.empty:
        best = epochs.loc[_best_epochs(epochs, goal)].set_index("trial")
        last = epochs.loc[epochs.groupby("trial")["epoch"].idxmax()].set_index("trial")
        frame["epochs"] = frame["trial"].map(last["epoch"]).fillna(0).astype(int)
        for name in (goal.column, *others):
            frame[name] = frame["trial"].map(best[name])
        frame[last_value] = frame["trial"].map(last[goal.column])
        frame["parameters"] = frame["trial"].map(last["parameters"]).astype("Int64")
        frame["size_mb"] = frame["trial"].map(last["size_mb"])
        frame["flops"] = frame["trial"].map(last["flops"]).astype("Int64")
        if "latency_ms" in epochs:  # it is an objective
            frame["latency_ms"] = frame["trial"].map(last["latency_ms"])
        for name in PLACES:
            frame[name] = frame[name].where(frame[name] != "", frame["trial"].map(last[name]))
        frame["train_seconds"] = frame["trial"].map(epochs.groupby("trial")["seconds"].sum())
    frame = _with_speeds(frame, costs_of(sweep))
    measured = ["epochs", goal.column, last_value, *others, *_COSTS, "space", *PLACES, *_TIMES, "error"]
    frame = frame.reindex(columns=list(dict.fromkeys([*_LEADING, *frame.columns, *measured])))
    own = sorted(set(frame.columns) - {*_LEADING, *measured, "config"})
    rungs = _rung_columns(sweep, frame, epochs, goal)
    settings = ["width", "temperature", "alpha", "lr"]
    numeric = [*settings, goal.column, last_value, *others, "size_mb", *SPEEDS, "train_seconds"]
    frame[numeric] = frame[numeric].astype(float)
    frame["epochs"] = frame["epochs"].fillna(0).astype(int)
    frame["space"] = frame["space"].fillna(0).astype(int)
    for name in (*PLACES, *_TIMES, "error"):
        frame[name] = _texts(frame[name])
    recorded = _recorded_data(sweep)
    if unlabelled := int(recorded.get("unlabelled", 0)):
        frame["unlabelled_images"] = (frame["method"] != PLAIN) * unlabelled
        measured.append("unlabelled_images")
    if skipped := recorded.get("skipped"):
        frame["skipped_images"] = sum(skipped.values())
        measured.append("skipped_images")
    frame = frame[[*_LEADING, *own, *measured, "config"]]
    place = frame.columns.get_loc("epochs")
    return pd.concat([frame.iloc[:, :place], rungs, frame.iloc[:, place:]], axis=1)


def costs_of(sweep: SweepDir) -> dict[str, Any]:
    """What the sweep measured after its search: `students`, a list, `teacher`, `device`, `threads`; empty before."""
    try:
        return read_json(sweep.costs)
    except SweepDirError:  # not measured yet, or damaged: measured again at the end of the next session
        return {}


def _with_speeds(frame: pd.DataFrame, costs: Mapping[str, Any]) -> pd.DataFrame:
    """Add what was measured to the trials of the same student, width and method."""
    found = {cost_key(row): row for row in costs.get("students", ())}
    rows = [found.get(cost_key(row), {}) for row in frame.to_dict("records")] if found else []
    if not rows:
        return frame
    speeds = pd.DataFrame([[row.get(name) for name in SPEEDS] for row in rows], frame.index, SPEEDS, dtype=float)
    return frame.combine_first(speeds) if "latency_ms" in frame else frame.join(speeds)


def cost_key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What the speed of a student depends on."""
    return (*size_key({**row, BUDGET: None}), row["method"])


def _recorded_data(sweep: SweepDir) -> dict[str, Any]:
    """What is recorded of the data set."""
    try:
        return dict(json.loads(sweep.data.read_text(encoding="utf-8")))
    except (OSError, ValueError):  # missing before the data is read; kdsweep doctor reports damage
        return {}


def _refuse_lost_trials(sweep: SweepDir, rows: list[dict[str, Any]], epochs: pd.DataFrame) -> None:
    """Raise an error if a log lacks a trial that the other one shows to have run."""
    logged = set(epochs["trial"])
    if unknown := sorted(logged.difference(row["trial"] for row in rows)):
        raise no_trial(sweep, unknown[0])
    lost = [row["trial"] for row in rows if row["state"] in ("COMPLETE", "PRUNED") and row["trial"] not in logged]
    if lost:
        raise no_epochs(sweep, lost[0])


def _best_epochs(epochs: pd.DataFrame, goal: Goal) -> pd.Series:
    """Row label of each trial's best epoch; on a tie, the first one."""
    values = epochs.groupby("trial")[goal.column]
    return values.idxmax() if goal.mode == "max" else values.idxmin()


def _rung_columns(sweep: SweepDir, frame: pd.DataFrame, epochs: pd.DataFrame, goal: Goal) -> pd.DataFrame:
    """Best value of each trial up to each rung; missing if the trial did not reach the rung."""
    spec, trials = read_spec(sweep), frame["trial"]
    # A user-defined rule may not be importable where results are read.
    known = named(spec.scheduler.name)[0] in STOPPING_RULES
    rungs = {budget: rule_of(spec, budget).milestones for budget in spec.budgets if known}
    ordered = epochs.astype({"epoch": int, goal.column: float}).sort_values("epoch")
    values = ordered.groupby("trial")[goal.column]
    reached = ordered.assign(best=values.cummax() if goal.mode == "max" else values.cummin())
    budgets = frame[BUDGET].fillna(spec.train.epochs) if BUDGET in frame else None
    columns = {}
    for epoch in sorted({epoch for milestones in rungs.values() for epoch in milestones}):
        best = trials.map(reached[reached["epoch"] == epoch].set_index("trial")["best"]).astype(float)
        compared = [budget for budget, milestones in rungs.items() if epoch in milestones]
        columns[f"rung.{epoch}"] = best if budgets is None else best.where(budgets.isin(compared))
    return pd.DataFrame(columns, index=trials.index)


def _row(frozen: FrozenTrial) -> dict[str, Any]:
    config: Config = frozen.user_attrs["config"]
    own = [value for name, value in config.items() if name.endswith(".temperature")]
    row: dict[str, Any] = {
        "trial": frozen.user_attrs["key"], "number": frozen.number, "state": _STATES[frozen.state.name],
        **as_columns(config),
    }  # fmt: skip
    row.setdefault("temperature", own[0] if own else None)
    summary = frozen.user_attrs.get("summary", {})
    row |= {name: summary.get(name, "") for name in (*PLACES, "ended_at", "error")}
    row["started_at"] = frozen.user_attrs.get("started_at", "")
    row["space"] = frozen.user_attrs.get("space", 0)
    row["config"] = json.dumps(config)
    return row


def frozen_trials(sweep: SweepDir) -> Sequence[FrozenTrial]:
    """The trials in a sweep's journal.

    Raises:
        SweepDirError: If the journal is damaged, or if it is missing although epochs were logged.
    """
    if not sweep.journal.is_file() or not sweep.journal.stat().st_size:
        if sweep.epochs_log.is_file() and sweep.epochs_log.stat().st_size:
            raise no_journal(sweep)
        return []
    # Imported here because Optuna is needed only if the frames are out of date.
    import optuna
    from optuna.storages import JournalStorage

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        storage = JournalStorage(optuna.storages.journal.JournalFileBackend(str(sweep.journal)))
        study = optuna.load_study(storage=storage, study_name=None)
    except (KeyError, ValueError) as error:
        raise SweepDirError(f"{sweep.journal}: not a readable journal: {error}") from error
    return [frozen for frozen in study.get_trials(deepcopy=False) if "key" in frozen.user_attrs]
