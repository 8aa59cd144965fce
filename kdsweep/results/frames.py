"""Results as data frames. Needs neither torch nor Ray."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from functools import cached_property
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

import pandas as pd

from kdsweep.config.spec import SweepSpec, read_spec
from kdsweep.distributions import Config
from kdsweep.errors import InputError, SweepDirError
from kdsweep.results import several
from kdsweep.results.confirmed import upgraded
from kdsweep.results.from_logs import SPEEDS, costs_of, epochs_frame, fingerprint, frozen_trials, in_order, trials_frame
from kdsweep.results.order import by_confirmation, distinct, group_keys, in_turn, ranked
from kdsweep.results.plots import Plots
from kdsweep.results.sizes import BUDGET, columns_of, of_size, of_sizes
from kdsweep.search.baseline import PLAIN
from kdsweep.storage.files import read_json, replacing
from kdsweep.storage.paths import SweepDir
from kdsweep.storage.places import Place
from kdsweep.tasks import Goal

if TYPE_CHECKING:
    from kdsweep.results.export import Exported

LOGS = b"kdsweep.logs"  # metadata key of a frame: the fingerprint of the logs it was built from


def _ignore(line: str) -> None:
    """Do nothing with a line."""


class Results(Plots):
    """The results of a sweep.

    Args:
        sweep: The sweep's directory.

    Attributes:
        spec: The sweep's spec.
        trials: One row per trial: trial, number, state, method, width, temperature, alpha, lr, dotted parameters of
            methods, other settings that are searched (the budget of `space.epochs` as budget_epochs), rung.N (the best
            value of the objective up to epoch N, where trials are compared), epochs, the best value of the objective,
            its last value (with the suffix _last), the other metrics at the best epoch, parameters, size_mb,
            train_seconds, space (number of the search space that it was drawn from; 0 until the space is changed), node
            and device that trained it last, started_at and ended_at (ISO 8601, UTC), error, and config (the
            configuration as JSON).
        epochs: One row per trial and epoch: trial, epoch, train_loss, task_loss, distill_loss, each metric as val_NAME,
            lr, seconds, parameters, size_mb, node, device.
        confirmed: One row per confirmed trial, see `tune.confirm`; empty before confirmation.
        predictions: One row per sample of the test split; empty before the end of the sweep.
        teacher: Description of the teacher.
    """

    def __init__(self, sweep: SweepDir):
        self.sweep = sweep

    @property
    def path(self) -> Path:
        """The sweep's directory; of a sweep in an object store, that of its files on this machine."""
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
        if kept is None or not {"space", "node"} <= set(kept.columns):  # version 0.1.0 wrote no such columns
            return trials_frame(self.sweep, self.epochs)
        return kept

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """One row per trial and epoch."""
        kept = self._kept(self.sweep.epochs_frame)
        return epochs_frame(self.sweep) if kept is None else in_order(kept, self.sweep)

    @cached_property
    def confirmed(self) -> pd.DataFrame:
        """One row per confirmed trial."""
        if not self.sweep.confirmed_frame.is_file():
            return pd.DataFrame()
        try:
            confirmed = upgraded(pd.read_parquet(self.sweep.confirmed_frame))
        except (OSError, ValueError) as error:
            raise SweepDirError(
                f"{self.sweep.confirmed_frame}: damaged; remove it with kdsweep doctor {self.sweep}, then rebuild it "
                f"with kdsweep confirm {self.sweep}"
            ) from error
        costs = self.trials.set_index("trial")[["flops", *SPEEDS]]
        confirmed = confirmed.drop(columns=costs.columns, errors="ignore")  # of a frame that was written with them
        place = confirmed.columns.get_loc("size_mb") + 1
        return pd.concat(
            [confirmed.iloc[:, :place], costs.reindex(confirmed["trial"]).set_axis(confirmed.index),
             confirmed.iloc[:, place:]], axis=1,
        )  # fmt: skip

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """Predictions on the test split by the best confirmed student, its tuned plain student and the teacher.

        One row per sample: sample, label, student_class, student_confidence, the same for plain and teacher, and image
        (PNG or JPEG; only of the samples that the report shows). Classes are numbers; the confidence is the
        probability of the predicted class. Columns of a model whose weights are missing are left out. The frame is
        empty if there are no current predictions.
        """
        from kdsweep.results.predictions import current

        return current(self)

    @cached_property
    def teacher(self) -> dict[str, Any]:
        """model, origin, metrics as val_NAME, parameters, size_mb, ...; empty until the teacher is ready.

        After confirmation it also contains the metrics on the test split, as test_NAME. Of several teachers, it is the
        best by the objective.
        """
        known = [teacher for teacher in self.teachers.values() if teacher]
        return max(
            known, key=lambda one: self.goal.score(float(one.get(self.goal.column, self.goal.worst))), default={}
        )

    @cached_property
    def teachers(self) -> dict[str, dict[str, Any]]:
        """Every teacher by its name, each as `teacher` describes it; the name of the only one is empty."""
        costs = costs_of(self.sweep)
        found = {}
        for name in self.spec.teacher_names:
            sweep = self.sweep.of_teacher(name)
            files = (sweep.teacher_card, sweep.teacher_test)
            described = {key: value for file in files if file.is_file() for key, value in self._described(file).items()}
            measured = costs.get("teachers", {}).get(name, {}) if name else costs.get("teacher", {})
            found[name] = described | (measured if described else {})
        return found

    @cached_property
    def taught(self) -> pd.DataFrame:
        """What each of several teachers gave at each size; empty before confirmation, or with one teacher.

        One row per size and teacher or ensemble, the best first: student and budget_epochs if searched, width, teacher,
        trial (its best confirmed student), method, seeds, the objective on both splits, the gain over the tuned plain
        student with its verdict (kd_gain_tuned, ...), test_agreement (the share of test samples that the student
        classifies as its teacher does), teacher_parameters and other costs (of an ensemble, the sum), the teacher's own
        objective, and the comparison with the best teacher of the size (versus): versus_gain, versus_low, versus_high,
        versus_p and versus_verdict. They are empty with `confirm.seeds: auto`.
        """
        from kdsweep.results.taught import taught_frame

        return taught_frame(self)

    def best(self, top: int = 1) -> pd.DataFrame:
        """The best trials by the sweep's objective; on a tie, the smaller student comes first.

        With several objectives, the trials of the front come first, and those of one rank are ordered by the first one.
        Confirmed trials are ordered among themselves by their mean on the validation split over the fresh seeds.

        Args:
            top: Number of trials.

        Raises:
            InputError: If `top` is not a whole number from 0 on.
        """
        if not isinstance(top, SupportsIndex) or index(top) < 0:
            raise InputError(f"best: found {top!r}; accepted: a number of trials, such as 5")
        ordered = self._by_search() if len(self.goals) == 1 else several.ranked(self._by_search(), self.goals)
        return by_confirmation(ordered, self.confirmed, self.goal, self.group_by).head(top)

    def distinct(self, top: int) -> pd.DataFrame:
        """`best` without duplicate configurations; trials of a small search space repeat them."""
        return distinct(self.best(len(self.trials))).head(top)

    def candidates(self, top: int) -> pd.DataFrame:
        """The trials to confirm, by the results of the search alone.

        They are chosen from all groups in turn: the best of every group, then the second of every group, and so on.
        With several teachers, the students of each teacher are a group, and plain students are only compared with.
        With several objectives, they are evenly spaced along the front.
        """
        if len(self.goals) > 1:
            return several.spread_along(self.pareto(), top)
        found = distinct(self._by_search())
        if self.taught_by and (found["method"] != PLAIN).any():
            found = found[found["method"] != PLAIN]
        return in_turn(found, top, (*self.group_by, *self.taught_by))

    @property
    def taught_by(self) -> tuple[str, ...]:
        """`("teacher",)` if several teachers are searched, else empty."""
        teacher = self.spec.search_space.shared.get("teacher")
        return ("teacher",) if teacher is not None and teacher.size > 1 else ()

    @cached_property
    def group_by(self) -> tuple[str, ...]:
        """The settings of `scheduler.group_by` that make groups of trials, such as `("width",)`."""
        return group_keys(self.spec)

    def _by_search(self) -> pd.DataFrame:
        """The trials with a result, from best to worst by the first objective on the seed of the search."""
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

    def plain(self, width: float | None = None, *, like: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """The best complete trial without distillation, of one width or of any; empty if there is none.

        A trial that was stopped early does not count: it was not trained as long as the students it is compared to.

        Args:
            width: Only trials of this width; None for all.
            like: Only trials of the student, budget and width of this row of `trials` or `confirmed`; None for all.
        """
        plain = self._by_search()
        plain = plain[(plain["method"] == PLAIN) & (plain["state"] == "COMPLETE")]
        plain = plain if width is None else plain[plain["width"] == width]
        return (plain if like is None else of_size(plain, like)).head(1).reset_index(drop=True)

    def effort(self) -> pd.DataFrame:
        """How much the search spent on each method at each width: width, method, trials, complete, epochs.

        If students or budgets are searched, their columns come first.
        `complete` is the number of trials that reached the last epoch; failed trials count as trials.
        """
        counted = self.trials.assign(complete=self.trials["state"] == "COMPLETE")
        groups = counted.groupby([*columns_of(counted), "method"], as_index=False, dropna=False)
        return groups.agg(trials=("trial", "size"), complete=("complete", "sum"), epochs=("epochs", "sum"))

    def tuning_curves(
        self,
        n: int = 32,
        width: float | None = None,
        confidence: float = 0.95,
        *,
        pooled: bool = False,
        student: str = "",
        budget_epochs: int = 0,
    ) -> pd.DataFrame:
        """How good the best of 1 to n random trials of each method is expected to be.

        Compares methods, and plain students, at equal tuning effort. Only trials drawn at random are used: all of the
        sampler `random`, and the first `startup_trials` of `tpe`, without points. A trial that was stopped early counts
        with its best value so far, as it does in the search.

        Args:
            n: Length of the curves.
            width: Only trials of this width; None uses all.
            confidence: Confidence of the band, for a whole curve.
            pooled: Whether all methods except plain students make one curve, named `any method`.
            student: Only trials of this student, as the column `student` names it; empty for all.
            budget_epochs: Only trials of this budget; 0 for all.

        Returns:
            One row per method and number of trials: method, n, expected_best, low, high, trials (the number of random
            trials behind the curve). low and high are the ends of the band; they are empty if the objective is not an
            accuracy, because the range of its values is unknown. A method without a trial drawn at random has no row.

        Raises:
            InputError: If no trial has the width, student or budget.
        """
        from kdsweep.results.tuning import tuning_curves

        wanted = {"width": width, "student": student or None, BUDGET: budget_epochs or None}
        trials = of_sizes(self.trials, {name: value for name, value in wanted.items() if value is not None})
        return tuning_curves(trials, self.spec, n, confidence, pooled=pooled)

    def importance(self) -> pd.DataFrame:
        """Importance of each setting, based on the complete trials: parameter, importance, trials."""
        from kdsweep.results.importance import importance

        return importance(frozen_trials(self.sweep), self.goal.direction)

    def config(self, key: str) -> Config:
        """The configuration of one trial.

        Args:
            key: As for `trial`.

        Raises:
            InputError: If no trial matches, or more than one does.
        """
        row = self.trial(key)
        drawn = json.loads(row["config"])
        return dict(drawn)

    def trial(self, key: str) -> dict[str, Any]:
        """The row of one trial.

        Args:
            key: Its key or number, such as `0007-3fa2c1`, `7` or `0007`, or a prefix of its key beyond the number.

        Raises:
            InputError: If no trial matches, or more than one does.
        """
        trials = self.trials
        named = trials[trials["trial"] == key]
        if key.isdecimal():
            numbers = trials["trial"].str.partition("-")[0] if len(trials) else trials["trial"]
            named = trials[(trials["number"].astype(str) == key) | (numbers == key)]
        elif named.empty:
            named = trials[trials["trial"].str.startswith(key)]
        if len(named) != 1:
            found = "no trial matches" if named.empty else f"{len(named)} trials match"
            examples = ", ".join(trials["trial"].head(3))
            raise InputError(f"trial {key!r}: {found}; accepted: a key or number such as {examples}")
        return {str(name): value for name, value in named.iloc[0].items()}

    def export(
        self,
        out: str | Path,
        top: int = 3,
        trial: str = "",
        *,
        onnx: bool = False,
        torch_export: bool = False,
        quantize: str = "",
        tell: Callable[[str], object] = _ignore,
    ) -> list[Path]:
        """Export the best students, or the student of one trial, as files anyone can load.

        Args:
            out: Output directory; each student gets a folder in it.
            top: Number of best students to export.
            trial: Key or number of a single trial to export instead.
            onnx: Whether to write `model.onnx` too; needs the extra `onnx`.
            torch_export: Whether to write `model.pt2`, a program of torch.export, too.
            quantize: `int8` to write `model.int8.onnx` too; needs the extra `onnx`.
            tell: Receives a line before each step that takes time.

        Each further file is compared with the student over the whole validation split; the model card tells the result.

        Returns:
            The students' folders, best first.

        Raises:
            InputError: If there is no such trial, its weights were not kept, it cannot be converted, a package is
                missing, or `out` is a URI, which `export_to` takes.
        """
        folder = Place.of(out).local("export writes to this machine; results.export_to takes a URI")
        made = self.export_to(folder, top, trial, onnx=onnx, torch_export=torch_export, quantize=quantize, tell=tell)
        return [Path(out) / one.place.name for one in made]

    def export_to(
        self,
        out: str | Path | Place,
        top: int = 3,
        trial: str = "",
        *,
        onnx: bool = False,
        torch_export: bool = False,
        quantize: str = "",
        tell: Callable[[str], object] = len,
    ) -> list[Exported]:
        """Export students as `export` does, to a directory or to a URI such as s3://bucket/students.

        Returns:
            The students with their places, best first. In an object store, config.json is written last.
        """
        from kdsweep.results.export import Wanted, check_kept, export_students

        wanted = Wanted(onnx, torch_export, quantize)
        wanted.check()
        chosen = [self.trial(trial)] if trial else self.distinct(top).to_dict("records")
        self.sweep.fetch_weights(row["trial"] for row in chosen)
        if not trial:
            check_kept(self.sweep, [row["trial"] for row in chosen], self.spec.search.keep_weights)
        if not chosen:
            raise InputError(f"{self.sweep}: no trial has finished an epoch yet; export once one has")
        return export_students(self.sweep, chosen, self.confirmed, self.teacher, Place.of(out), wanted, tell)

    @classmethod
    def from_logs(cls, sweep: SweepDir) -> Results:
        """Build the results from the logs, ignoring the frames on disk."""
        found = cls(sweep)
        found.epochs = epochs_frame(sweep)
        found.trials = trials_frame(sweep, found.epochs)
        return found

    def is_current(self, frame: Path) -> bool:
        """Whether a frame on disk is intact and was built from the current logs."""
        return self._kept(frame) is not None

    @cached_property
    def _logs(self) -> bytes:
        return fingerprint(self.sweep)

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
        command = "confirm" if file.name == self.sweep.teacher_test.name else "resume"
        return read_json(
            file, f"remove it with kdsweep doctor {self.sweep}, then rebuild it with kdsweep {command} {self.sweep}"
        )


def load_results(path: str | Path | Place | SweepDir) -> Results:
    """Open the results of a running or finished sweep.

    Args:
        path: Its directory, or its URI in an object store, of which the files are fetched to this machine.

    Raises:
        SweepDirError: If there is no sweep at `path`.
    """
    return Results(SweepDir.existing(path))


def write_frames(sweep: SweepDir) -> None:
    """Build the data frames of a sweep from its logs and write them as parquet."""
    logs = fingerprint(sweep)  # before reading them: a log that grows meanwhile makes the frames stale, not wrong
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
