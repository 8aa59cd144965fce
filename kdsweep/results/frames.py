"""Results as data frames; needs neither torch nor Ray."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from kdsweep.config.spec import SweepSpec, read_spec
from kdsweep.distributions import Config
from kdsweep.errors import InputError, SweepDirError
from kdsweep.params import named
from kdsweep.search.stopping import STOPPING_RULES, rule_of
from kdsweep.storage.files import replacing
from kdsweep.storage.jsonl import read_lines
from kdsweep.storage.paths import SweepDir
from kdsweep.tasks import Goal, Task

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

# By the names of Optuna's states.
_STATES = {"COMPLETE": "COMPLETE", "PRUNED": "PRUNED", "FAIL": "FAILED", "RUNNING": "RUNNING", "WAITING": "RUNNING"}
_LEADING = ("trial", "number", "state", "method", "width", "temperature", "alpha", "lr")
_COSTS = ("parameters", "size_mb", "train_seconds")
_SIZES = ("parameters", "size_mb")
LOSSES = ("train_loss", "task_loss", "distill_loss")  # the last two are missing in what version 0.1.0 wrote


class Results:
    """What a sweep found.

    Args:
        sweep: Its directory.

    Attributes:
        spec: The sweep's spec.
        trials: One row per trial: trial, number, state, method, width, temperature, alpha, lr, dotted parameters of
            methods, rung.N (the best value up to epoch N, where trials were compared), epochs, the objective (best) and
            the same with _last, the other metrics at the best epoch, parameters, size_mb, train_seconds, error, and
            config (its JSON form).
        epochs: One row per trial and epoch: trial, epoch, train_loss, task_loss, distill_loss, each metric as val_NAME,
            lr, seconds, parameters, size_mb.
        confirmed: One row per confirmed trial, see `tune.confirm`; empty before.
        teacher: What is known of the teacher.
    """

    def __init__(self, sweep: SweepDir):
        self.sweep = sweep

    @property
    def path(self) -> Path:
        """The sweep's directory."""
        return self.sweep.root

    @cached_property
    def spec(self) -> SweepSpec:
        """The sweep's spec."""
        return read_spec(self.sweep)

    @property
    def goal(self) -> Goal:
        """What is best in the sweep."""
        return self.spec.goal

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row per trial."""
        if self._fresh(self.sweep.trials_frame):
            return pd.read_parquet(self.sweep.trials_frame)
        return _trials_frame(self.sweep, self.epochs)

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """One row per trial and epoch."""
        if self._fresh(self.sweep.epochs_frame):
            return _in_order(pd.read_parquet(self.sweep.epochs_frame))
        return _epochs_frame(self.sweep)

    @cached_property
    def confirmed(self) -> pd.DataFrame:
        """One row per confirmed trial."""
        if not self.sweep.confirmed_frame.is_file():
            return pd.DataFrame()
        return pd.read_parquet(self.sweep.confirmed_frame)

    @cached_property
    def teacher(self) -> dict[str, Any]:
        """model, origin, its metrics as val_NAME, parameters, size_mb, ...; empty before the teacher is there.

        Its metrics as test_NAME are there once something was confirmed.
        """
        files = (self.sweep.teacher_card, self.sweep.teacher_test)
        return {name: value for file in files if file.is_file() for name, value in json.loads(file.read_text()).items()}

    def best(self, top: int = 1) -> pd.DataFrame:
        """The best trials by the sweep's objective, the smaller student first where they are equal."""
        measured = self.trials[self.trials[self.goal.column].notna() & (self.trials["state"] != "FAILED")]
        return ranked(measured, self.goal).head(top)

    def distinct(self, top: int) -> pd.DataFrame:
        """`best`, each configuration once: a small space is tried out before the trials are."""
        return self.best(len(self.trials)).drop_duplicates("config").head(top).reset_index(drop=True)

    def pareto(self) -> pd.DataFrame:
        """The trials that no student of the same or a smaller size beats, from small to large."""
        rising = self.best(len(self.trials)).sort_values("parameters", kind="stable")
        scores = rising[self.goal.column].map(self.goal.score).astype(float)
        return rising[scores > scores.cummax().shift(fill_value=-math.inf)].reset_index(drop=True)

    def plain(self, width: float | None = None) -> pd.DataFrame:
        """The best trial without distillation, of any width or of one, if the sweep had any."""
        plain = self.best(len(self.trials))
        plain = plain[plain["method"] == "none"]
        return (plain if width is None else plain[plain["width"] == width]).head(1).reset_index(drop=True)

    def importance(self) -> pd.DataFrame:
        """Which settings mattered, by the trials that ran to the end: parameter, importance, trials."""
        from kdsweep.results.importance import importance

        return importance(_frozen_trials(self.sweep), self.goal.direction)

    def config(self, key: str) -> Config:
        """The configuration of one trial.

        Args:
            key: The trial's key, its number, or the beginning of its key.

        Raises:
            InputError: If no trial, or more than one, is called so.
        """
        row = self.trial(key)
        drawn = json.loads(row["config"])
        return dict(drawn)

    def trial(self, key: str) -> dict[str, Any]:
        """The row of one trial, found as `config` finds it."""
        trials = self.trials
        named = trials[trials["trial"] == key]
        if named.empty and key.isdecimal():
            named = trials[trials["number"] == int(key)]
        if named.empty:
            named = trials[trials["trial"].str.startswith(key)]
        if len(named) != 1:
            found = "no trial" if named.empty else f"{len(named)} trials"
            examples = ", ".join(trials["trial"].head(3))
            raise InputError(f"trial {key!r}: {found} called so; accepted: a key or number such as {examples}")
        return {str(name): value for name, value in named.iloc[0].items()}

    def export(self, out: str | Path, top: int = 3, trial: str = "") -> list[Path]:
        """Write the best students, or one trial's, as files anyone can load.

        Args:
            out: A directory; each student is a folder in it.
            top: How many of the best.
            trial: A trial's key or number instead.

        Returns:
            The students' folders, the best first.

        Raises:
            InputError: If there is no such trial or its weights were not kept.
        """
        from kdsweep.results.export import export_students

        return export_students(self, Path(out), top=top, trial=trial)

    def _fresh(self, frame: Path) -> bool:
        """Whether a frame on disk is not older than the logs it was made from."""
        logs = [path for path in (self.sweep.journal, self.sweep.epochs_log) if path.is_file()]
        return frame.is_file() and all(frame.stat().st_mtime_ns >= log.stat().st_mtime_ns for log in logs)


def ranked(trials: pd.DataFrame, goal: Goal) -> pd.DataFrame:
    """Trials, the best first, those without a value last; of equal ones the smaller student first."""
    order = [goal.column, "parameters", "number"]
    ascending = [goal.mode == "min", True, True]
    return trials.sort_values(order, ascending=ascending, na_position="last").reset_index(drop=True)


def load_results(path: str | Path) -> Results:
    """Open the results of a sweep, running or ended.

    Raises:
        SweepDirError: If there is no sweep at `path`.
    """
    return Results(SweepDir.existing(path))


def write_frames(sweep: SweepDir) -> None:
    """Write the frames of a sweep as parquet, made from its logs."""
    epochs = _epochs_frame(sweep)
    trials = _trials_frame(sweep, epochs)
    write_frame(epochs, sweep.epochs_frame)
    write_frame(trials, sweep.trials_frame)


def write_frame(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame as parquet, whole or not at all."""
    with replacing(path) as partial:
        frame.to_parquet(partial, index=False)


def _epochs_frame(sweep: SweepDir) -> pd.DataFrame:
    frame = _in_order(pd.DataFrame(list(read_lines(sweep.epochs_log))))
    # An epoch that was repeated after an interruption is written twice; the last one counts.
    return frame.drop_duplicates(["trial", "epoch"], keep="last").reset_index(drop=True)


def _in_order(epochs: pd.DataFrame) -> pd.DataFrame:
    """The columns of epochs in one order, also those that nothing was written to."""
    metrics = _metrics(epochs)
    known = ["trial", "epoch", *LOSSES, *metrics, "lr", "seconds", *_SIZES]
    parts = [name for name in epochs.columns if name not in known]
    return epochs.reindex(columns=["trial", "epoch", *LOSSES, *parts, *metrics, "lr", "seconds", *_SIZES])


def _metrics(epochs: pd.DataFrame) -> list[str]:
    """The columns of metrics: first those that every task measures."""
    usual = [f"val_{name}" for name in reversed(Task.always)]
    return usual + [name for name in epochs.columns if name.startswith("val_") and name not in usual]


def _trials_frame(sweep: SweepDir, epochs: pd.DataFrame) -> pd.DataFrame:
    goal = read_spec(sweep).goal
    rows = [_row(frozen) for frozen in _frozen_trials(sweep)]
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
        frame["train_seconds"] = frame["trial"].map(epochs.groupby("trial")["seconds"].sum())
    measured = ["epochs", goal.column, last_value, *others, *_COSTS, "error"]
    frame = frame.reindex(columns=list(dict.fromkeys([*_LEADING, *frame.columns, *measured])))
    own = sorted(set(frame.columns) - {*_LEADING, *measured, "config"})
    rungs = _rung_columns(sweep, frame["trial"], epochs, goal)
    settings = ["width", "temperature", "alpha", "lr"]
    numeric = [*settings, goal.column, last_value, *others, "size_mb", "train_seconds"]
    frame[numeric] = frame[numeric].astype(float)
    frame["epochs"] = frame["epochs"].fillna(0).astype(int)
    frame["error"] = frame["error"].fillna("").astype(str)
    frame = frame[[*_LEADING, *own, *measured, "config"]]
    place = frame.columns.get_loc("epochs")
    return pd.concat([frame.iloc[:, :place], rungs, frame.iloc[:, place:]], axis=1)


def _best_epochs(epochs: pd.DataFrame, goal: Goal) -> pd.Series:
    """The row of each trial's best epoch, the first where several are."""
    values = epochs.groupby("trial")[goal.column]
    return values.idxmax() if goal.mode == "max" else values.idxmin()


def _rung_columns(sweep: SweepDir, trials: pd.Series, epochs: pd.DataFrame, goal: Goal) -> pd.DataFrame:
    """What each trial had reached at each rung; missing where it did not come so far."""
    spec = read_spec(sweep)
    # The user's own rule may not lie where results are read.
    milestones = rule_of(spec).milestones if named(spec.scheduler.name)[0] in STOPPING_RULES else ()
    ordered = epochs.astype({"epoch": int, goal.column: float}).sort_values("epoch")
    values = ordered.groupby("trial")[goal.column]
    reached = ordered.assign(best=values.cummax() if goal.mode == "max" else values.cummin())
    return pd.DataFrame({
        f"rung.{epoch}": trials.map(reached[reached["epoch"] == epoch].set_index("trial")["best"]).astype(float)
        for epoch in milestones
    }, index=trials.index)  # fmt: skip


def _row(frozen: FrozenTrial) -> dict[str, Any]:
    config: Config = frozen.user_attrs["config"]
    own = [value for name, value in config.items() if name.endswith(".temperature")]
    row: dict[str, Any] = {
        "trial": frozen.user_attrs["key"], "number": frozen.number, "state": _STATES[frozen.state.name], **config,
    }  # fmt: skip
    row.setdefault("temperature", own[0] if own else None)
    row["error"] = frozen.user_attrs.get("summary", {}).get("error", "")
    row["config"] = json.dumps(config)
    return row


def _frozen_trials(sweep: SweepDir) -> Sequence[FrozenTrial]:
    if not sweep.journal.is_file() or not sweep.journal.stat().st_size:
        return []
    # Optuna is needed only where there are no fresh frames.
    import optuna
    from optuna.storages import JournalStorage

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        storage = JournalStorage(optuna.storages.journal.JournalFileBackend(str(sweep.journal)))
        study = optuna.load_study(storage=storage, study_name=None)
    except (KeyError, ValueError) as error:
        raise SweepDirError(f"{sweep.journal}: not a readable journal: {error}") from error
    return [frozen for frozen in study.get_trials(deepcopy=False) if "key" in frozen.user_attrs]
