"""Results as data frames. Needs neither torch nor Ray."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from kdsweep.config.spec import SweepSpec, read_spec
from kdsweep.distributions import Config
from kdsweep.errors import InputError, SweepDirError
from kdsweep.params import named
from kdsweep.results import several
from kdsweep.results.confirmed import upgraded
from kdsweep.search.baseline import PLAIN
from kdsweep.search.plan import rule_of
from kdsweep.search.stopping import STOPPING_RULES
from kdsweep.storage.files import read_json, replacing
from kdsweep.storage.jsonl import read_lines
from kdsweep.storage.paths import SweepDir
from kdsweep.tasks import Goal, Task
from kdsweep.tasks.metrics import COSTS

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

# Optuna state -> state in the results.
_STATES = {"COMPLETE": "COMPLETE", "PRUNED": "PRUNED", "FAIL": "FAILED", "RUNNING": "RUNNING", "WAITING": "RUNNING"}
_LEADING = ("trial", "number", "state", "method", "width", "temperature", "alpha", "lr")
_SIZES = ("parameters", "size_mb")
LOGS = b"kdsweep.logs"  # metadata key of a frame: the fingerprint of the logs it was built from
LOSSES = ("train_loss", "task_loss", "distill_loss")  # version 0.1.0 wrote only train_loss


class Results:
    """The results of a sweep.

    Args:
        sweep: The sweep's directory.

    Attributes:
        spec: The sweep's spec.
        trials: One row per trial: trial, number, state, method, width, temperature, alpha, lr, dotted parameters of
            methods, rung.N (the best value of the objective up to epoch N, where trials are compared), epochs, the best
            value of the objective, its last value (with the suffix _last), the other metrics at the best epoch,
            parameters, size_mb, train_seconds, error, and config (the configuration as JSON).
        epochs: One row per trial and epoch: trial, epoch, train_loss, task_loss, distill_loss, each metric as val_NAME,
            lr, seconds, parameters, size_mb.
        confirmed: One row per confirmed trial, see `tune.confirm`; empty before confirmation.
        teacher: Description of the teacher.
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
        """The first objective of the sweep."""
        return self.spec.goal

    @property
    def goals(self) -> tuple[Goal, ...]:
        """The objectives of the sweep."""
        return self.spec.goals

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row per trial."""
        kept = self._kept(self.sweep.trials_frame)
        return _trials_frame(self.sweep, self.epochs) if kept is None else kept

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """One row per trial and epoch."""
        kept = self._kept(self.sweep.epochs_frame)
        return _epochs_frame(self.sweep) if kept is None else _in_order(kept)

    @cached_property
    def confirmed(self) -> pd.DataFrame:
        """One row per confirmed trial."""
        if not self.sweep.confirmed_frame.is_file():
            return pd.DataFrame()
        try:
            return upgraded(pd.read_parquet(self.sweep.confirmed_frame))
        except (OSError, ValueError) as error:
            raise SweepDirError(
                f"{self.sweep.confirmed_frame}: damaged; remove it with kdsweep doctor {self.path}, then rebuild it "
                f"with kdsweep confirm {self.path}"
            ) from error

    @cached_property
    def teacher(self) -> dict[str, Any]:
        """model, origin, metrics as val_NAME, parameters, size_mb, ...; empty until the teacher is ready.

        After confirmation it also contains the metrics on the test split, as test_NAME.
        """
        files = (self.sweep.teacher_card, self.sweep.teacher_test)
        return {name: value for file in files if file.is_file() for name, value in self._described(file).items()}

    def best(self, top: int = 1) -> pd.DataFrame:
        """The best trials by the sweep's objective; on a tie, the smaller student comes first.

        With several objectives, the trials of the front come first, and those of one rank are ordered by the first one.
        Confirmed trials are ordered among themselves by their mean on the validation split over the fresh seeds.
        """
        ordered = self._by_search() if len(self.goals) == 1 else several.ranked(self._by_search(), self.goals)
        return by_confirmation(ordered, self.confirmed, self.goal).head(top)

    def distinct(self, top: int) -> pd.DataFrame:
        """`best` without duplicate configurations; trials of a small search space repeat them."""
        return _distinct(self.best(len(self.trials)), top)

    def candidates(self, top: int) -> pd.DataFrame:
        """The trials to confirm: as `distinct`, but by the results of the search alone.

        With several objectives, they are evenly spaced along the front.
        """
        if len(self.goals) > 1:
            return several.spread_along(self.pareto(), top)
        return _distinct(self._by_search(), top)

    def _by_search(self) -> pd.DataFrame:
        """The trials with a result, from best to worst on the seed of the search."""
        measured = self.trials[self.trials[self.goal.column].notna() & (self.trials["state"] != "FAILED")]
        return ranked(measured, self.goal)

    def pareto(self) -> pd.DataFrame:
        """The trials that no student of the same or smaller size beats, from small to large.

        With several objectives, the trials that no other is at least as good as in all of them and better in one, from
        the best by the first objective; only the first of equal ones.
        """
        if len(self.goals) > 1:
            return several.front(self.trials, self.goals)
        rising = self._by_search().sort_values("parameters", kind="stable")
        scores = rising[self.goal.column].map(self.goal.score).astype(float)
        return rising[scores > scores.cummax().shift(fill_value=-math.inf)].reset_index(drop=True)

    def hypervolume(self, reference: Mapping[str, float] | None = None) -> float:
        """How much of the space of objectives the front dominates, in the product of their units; larger is better.

        Args:
            reference: The value of each objective, by column, that counts as worthless. A missing one is the worst
                value in the trials, so give all of them to compare sweeps.

        Raises:
            InputError: If the sweep has one objective, or the reference names something else.
        """
        return several.hypervolume(self.trials, self.goals, reference or {})

    def plain(self, width: float | None = None) -> pd.DataFrame:
        """The best complete trial without distillation, of one width or of any; empty if there is none.

        A trial that was stopped early does not count: it was not trained as long as the students it is compared to.
        """
        plain = self._by_search()
        plain = plain[(plain["method"] == PLAIN) & (plain["state"] == "COMPLETE")]
        return (plain if width is None else plain[plain["width"] == width]).head(1).reset_index(drop=True)

    def effort(self) -> pd.DataFrame:
        """How much the search spent on each method at each width: width, method, trials, complete, epochs.

        `complete` is the number of trials that reached the last epoch; failed trials count as trials.
        """
        counted = self.trials.assign(complete=self.trials["state"] == "COMPLETE")
        groups = counted.groupby(["width", "method"], as_index=False)
        return groups.agg(trials=("trial", "size"), complete=("complete", "sum"), epochs=("epochs", "sum"))

    def tuning_curves(self, n: int = 32, width: float | None = None, confidence: float = 0.95) -> pd.DataFrame:
        """How good the best of 1 to n random trials of each method is expected to be.

        Compares methods, and plain students, at equal tuning effort. Only trials drawn at random are used: all of the
        sampler `random`, and the first `startup_trials` of `tpe`, without points. A trial that was stopped early counts
        with its best value so far, as it does in the search.

        Args:
            n: Length of the curves.
            width: Only trials of this width; None uses all.
            confidence: Confidence of the band, for a whole curve.

        Returns:
            One row per method and number of trials: method, n, expected_best, low, high, trials (the number of random
            trials behind the curve). low and high are the ends of the band; they are empty if the objective is not an
            accuracy, because the range of its values is unknown. Empty if no trial was drawn at random.
        """
        from kdsweep.results.tuning import tuning_curves

        trials = self.trials if width is None else self.trials[self.trials["width"] == width]
        return tuning_curves(trials, self.spec, n, confidence)

    def importance(self) -> pd.DataFrame:
        """Importance of each setting, based on the complete trials: parameter, importance, trials."""
        from kdsweep.results.importance import importance

        return importance(frozen_trials(self.sweep), self.goal.direction)

    def config(self, key: str) -> Config:
        """The configuration of one trial.

        Args:
            key: The trial's key, number or key prefix.

        Raises:
            InputError: If no trial matches, or more than one does.
        """
        row = self.trial(key)
        drawn = json.loads(row["config"])
        return dict(drawn)

    def trial(self, key: str) -> dict[str, Any]:
        """The row of one trial, given its key, number or key prefix.

        Raises:
            InputError: If no trial matches, or more than one does.
        """
        trials = self.trials
        named = trials[trials["trial"] == key]
        if named.empty and key.isdecimal():
            named = trials[trials["number"] == int(key)]
        if named.empty:
            named = trials[trials["trial"].str.startswith(key)]
        if len(named) != 1:
            found = "no trial matches" if named.empty else f"{len(named)} trials match"
            examples = ", ".join(trials["trial"].head(3))
            raise InputError(f"trial {key!r}: {found}; accepted: a key or number such as {examples}")
        return {str(name): value for name, value in named.iloc[0].items()}

    def export(self, out: str | Path, top: int = 3, trial: str = "") -> list[Path]:
        """Export the best students, or the student of one trial, as files anyone can load.

        Args:
            out: Output directory; each student gets a folder in it.
            top: Number of best students to export.
            trial: Key or number of a single trial to export instead.

        Returns:
            The students' folders, best first.

        Raises:
            InputError: If there is no such trial or its weights were not kept.
        """
        from kdsweep.results.export import export_students

        chosen = [self.trial(trial)] if trial else self.distinct(top).to_dict("records")
        if not chosen:
            raise InputError(f"{self.path}: no trial has finished an epoch yet; export once one has")
        return export_students(self.sweep, chosen, self.confirmed, self.teacher, Path(out))

    @classmethod
    def from_logs(cls, sweep: SweepDir) -> Results:
        """Build the results from the logs, ignoring the frames on disk."""
        found = cls(sweep)
        found.epochs = _epochs_frame(sweep)
        found.trials = _trials_frame(sweep, found.epochs)
        return found

    def is_current(self, frame: Path) -> bool:
        """Whether a frame on disk is intact and was built from the current logs."""
        return self._kept(frame) is not None

    @cached_property
    def _logs(self) -> bytes:
        return _fingerprint(self.sweep)

    def _kept(self, frame: Path) -> pd.DataFrame | None:
        """A frame on disk; None if it is missing, damaged or was built from other logs."""
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(frame)
        except (OSError, ValueError):  # damaged or missing: the logs contain everything
            return None
        built_from = (table.schema.metadata or {}).get(LOGS)
        return table.to_pandas() if built_from == self._logs else None

    def _described(self, file: Path) -> dict[str, Any]:
        """The content of one of the teacher's JSON files."""
        command = "confirm" if file == self.sweep.teacher_test else "resume"
        return read_json(
            file, f"remove it with kdsweep doctor {self.path}, then rebuild it with kdsweep {command} {self.path}"
        )


def _fingerprint(sweep: SweepDir) -> bytes:
    """Lengths and hashes of the logs; they tell whether a frame was built from the current logs."""
    parts = []
    for log in (sweep.journal, sweep.epochs_log):
        if log.is_file():
            with log.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                parts.append(f"{log.name} {file.tell()} {digest}")
    return "\n".join(parts).encode()


def ranked(trials: pd.DataFrame, goal: Goal, *further: Goal) -> pd.DataFrame:
    """Sort trials from best to worst, failed ones last; on a tie, the smaller student comes first."""
    if further:
        return several.ranked(trials, (goal, *further))
    order = ["failed", goal.column, "parameters", "number"]
    ascending = [True, goal.mode == "min", True, True]
    marked = trials.assign(failed=trials["state"] == "FAILED")
    return marked.sort_values(order, ascending=ascending).drop(columns="failed").reset_index(drop=True)


def by_confirmation(trials: pd.DataFrame, confirmed: pd.DataFrame, goal: Goal) -> pd.DataFrame:
    """Order the confirmed trials among themselves by their mean on the validation split over the fresh seeds.

    The other trials keep their places: their values come from one seed, and the best of many such values are too high
    to be compared with means over fresh seeds. A trial that diverged on a fresh seed comes last among the confirmed.

    Args:
        trials: Trials from best to worst.
        confirmed: The frame of confirmed trials; may be empty.
        goal: The objective.
    """
    if confirmed.empty:
        return trials
    fresh = confirmed.set_index("trial")[goal.column].map(goal.score)
    places = trials.index[trials["trial"].isin(fresh.index)]
    scores = trials.loc[places, "trial"].map(fresh)
    order = trials.index.to_series()
    order[places] = scores.sort_values(ascending=False, kind="stable", na_position="last").index
    return trials.loc[order].reset_index(drop=True)


def _distinct(trials: pd.DataFrame, top: int) -> pd.DataFrame:
    return trials.drop_duplicates("config").head(top).reset_index(drop=True)


def load_results(path: str | Path) -> Results:
    """Open the results of a running or finished sweep.

    Raises:
        SweepDirError: If there is no sweep at `path`.
    """
    return Results(SweepDir.existing(path))


def write_frames(sweep: SweepDir) -> None:
    """Build the data frames of a sweep from its logs and write them as parquet."""
    logs = _fingerprint(sweep)  # before reading them: a log that grows meanwhile makes the frames stale, not wrong
    found = Results.from_logs(sweep)
    write_frame(found.epochs, sweep.epochs_frame, logs)
    write_frame(found.trials, sweep.trials_frame, logs)


def write_frame(frame: pd.DataFrame, path: Path, logs: bytes = b"") -> None:
    """Write a frame as parquet, atomically.

    Args:
        frame: The frame to write.
        path: Output file.
        logs: Fingerprint of the logs that the frame was built from; stored in the file's metadata.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(frame, preserve_index=False)
    with replacing(path) as partial:
        pq.write_table(table.replace_schema_metadata({**table.schema.metadata, LOGS: logs}), partial)


def _epochs_frame(sweep: SweepDir) -> pd.DataFrame:
    frame = _in_order(pd.DataFrame(list(read_lines(sweep.epochs_log))))
    # An epoch repeated after an interruption is logged twice; the last entry counts.
    return frame.drop_duplicates(["trial", "epoch"], keep="last").reset_index(drop=True)


def _in_order(epochs: pd.DataFrame) -> pd.DataFrame:
    """Put the columns of `epochs` in a fixed order, and add those that are missing."""
    metrics = _metrics(epochs)
    last = [*metrics, "lr", "seconds", *_costs(epochs)]
    known = ["trial", "epoch", *LOSSES, *last]
    parts = [name for name in epochs.columns if name not in known]
    return epochs.reindex(columns=["trial", "epoch", *LOSSES, *parts, *last])


def _costs(epochs: pd.DataFrame) -> list[str]:
    """Names of the columns of costs; the latency is measured only if it is an objective."""
    return [name for name in COSTS if name in _SIZES or name in epochs.columns]


def _metrics(epochs: pd.DataFrame) -> list[str]:
    """Names of the metric columns: loss and accuracy, the others that are usually measured, then further ones."""
    found = [name for name in epochs.columns if name.startswith("val_")]
    usual = [name for name in (f"val_{metric}" for metric in Task.always) if name in found]
    return list(dict.fromkeys(["val_loss", "val_accuracy", *usual, *sorted(found)]))


def _trials_frame(sweep: SweepDir, epochs: pd.DataFrame) -> pd.DataFrame:
    goal = read_spec(sweep).goal
    rows = [_row(frozen) for frozen in frozen_trials(sweep)]
    _need_epochs(sweep, rows, epochs)
    names = dict.fromkeys(name for row in rows for name in row)
    frame = pd.DataFrame(rows, columns=list(names) or [*_LEADING, "config"])
    last_value = f"{goal.column}_last"
    others = [name for name in _metrics(epochs) if name != goal.column]
    costs = _costs(epochs)
    if not epochs.empty:
        best = epochs.loc[_best_epochs(epochs, goal)].set_index("trial")
        last = epochs.loc[epochs.groupby("trial")["epoch"].idxmax()].set_index("trial")
        frame["epochs"] = frame["trial"].map(last["epoch"]).fillna(0).astype(int)
        for name in (goal.column, *others):
            frame[name] = frame["trial"].map(best[name])
        frame[last_value] = frame["trial"].map(last[goal.column])
        frame["parameters"] = frame["trial"].map(last["parameters"]).astype("Int64")
        for name in costs[1:]:
            frame[name] = frame["trial"].map(last[name])
        frame["train_seconds"] = frame["trial"].map(epochs.groupby("trial")["seconds"].sum())
    measured = ["epochs", goal.column, last_value, *others, *costs, "train_seconds", "error"]
    frame = frame.reindex(columns=list(dict.fromkeys([*_LEADING, *frame.columns, *measured])))
    own = sorted(set(frame.columns) - {*_LEADING, *measured, "config"})
    rungs = _rung_columns(sweep, frame["trial"], epochs, goal)
    settings = ["width", "temperature", "alpha", "lr"]
    numeric = [*settings, goal.column, last_value, *others, *costs[1:], "train_seconds"]
    frame[numeric] = frame[numeric].astype(float)
    frame["epochs"] = frame["epochs"].fillna(0).astype(int)
    frame["error"] = frame["error"].fillna("").astype(str)
    if skipped := _skipped(sweep):
        frame["skipped_images"] = sum(skipped.values())
        measured.append("skipped_images")
    frame = frame[[*_LEADING, *own, *measured, "config"]]
    place = frame.columns.get_loc("epochs")
    return pd.concat([frame.iloc[:, :place], rungs, frame.iloc[:, place:]], axis=1)


def _skipped(sweep: SweepDir) -> dict[str, int]:
    """Number of unreadable files that were left out, by split."""
    try:
        return dict(json.loads(sweep.data.read_text(encoding="utf-8")).get("skipped", {}))
    except (OSError, ValueError):  # missing before the data is read; kdsweep doctor reports damage
        return {}


def _need_epochs(sweep: SweepDir, rows: list[dict[str, Any]], epochs: pd.DataFrame) -> None:
    """Raise an error if the log lacks the epochs of a finished trial."""
    logged = set(epochs["trial"])
    lost = [row["trial"] for row in rows if row["state"] in ("COMPLETE", "PRUNED") and row["trial"] not in logged]
    if lost:
        log = sweep.epochs_log
        found = f"no epochs of trial {lost[0]}" if log.is_file() else f"missing, but {sweep.journal.name} exists"
        raise SweepDirError(f"{log}: {found}; restore both logs as kdsweep wrote them")


def _best_epochs(epochs: pd.DataFrame, goal: Goal) -> pd.Series:
    """Row label of each trial's best epoch; on a tie, the first one."""
    values = epochs.groupby("trial")[goal.column]
    return values.idxmax() if goal.mode == "max" else values.idxmin()


def _rung_columns(sweep: SweepDir, trials: pd.Series, epochs: pd.DataFrame, goal: Goal) -> pd.DataFrame:
    """Best value of each trial up to each rung; missing if the trial did not reach the rung."""
    spec = read_spec(sweep)
    # A user-defined rule may not be importable where results are read.
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


def frozen_trials(sweep: SweepDir) -> Sequence[FrozenTrial]:
    """The trials in a sweep's journal.

    Raises:
        SweepDirError: If the journal is damaged, or if it is missing although epochs were logged.
    """
    if not sweep.journal.is_file() or not sweep.journal.stat().st_size:
        if sweep.epochs_log.is_file() and sweep.epochs_log.stat().st_size:
            log = sweep.epochs_log.name
            raise SweepDirError(f"{sweep.journal}: missing or empty, but {log} exists; restore both logs")
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
