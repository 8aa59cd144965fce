"""Confirmation: retrains the best configurations and plain students on fresh seeds and scores them on test."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from kdsweep.config.spec import SELECTION, ConfirmSection, SweepSpec
from kdsweep.errors import SweepError
from kdsweep.results.confirmed import confirmed_frame
from kdsweep.results.designs import JUDGED, AutoSeeds, Chosen, Design, FixedSeeds, finished, named
from kdsweep.results.frames import Results, load_results, write_frame
from kdsweep.results.order import groups_of
from kdsweep.results.sizes import as_columns
from kdsweep.search.plan import budget_of
from kdsweep.seeds import derived_seed
from kdsweep.storage.files import read_json
from kdsweep.storage.paths import SweepDir
from kdsweep.terminal.progress import Progress
from kdsweep.tune.agenda import Background
from kdsweep.tune.work import ConfirmRun, ScoreTeacher, Work
from kdsweep.worker.place import WorkerPlace

Measured = dict[str, float]


class Confirmation:
    """Trains the best configurations and their plain students on fresh seeds, and scores each once on the test split.

    A design says which trainings are needed, given the results so far; those that have a result are not repeated.

    Args:
        spec: The sweep.
        place: The sweep's paths for workers.
        has_test: Prepares the test split and returns whether the data set has one.
        progress: Receives status updates.
        load: Returns the share of the workers' time that was spent on trainings.
    """

    name = "confirm"

    def __init__(
        self,
        spec: SweepSpec,
        place: Background[WorkerPlace],
        has_test: Callable[[], bool],
        progress: Progress,
        load: Callable[[], float],
    ):
        self._spec = spec
        self._sweep = spec.sweep_dir
        self._place = place
        self._has_test = has_test
        self._progress = progress
        self._load = load
        self._design: Design | None = None
        self._results: dict[str, Measured] = {}
        self._wanted: set[str] = set()
        self._waiting: list[Work] = []
        self._teacher_scored = True

    @property
    def done(self) -> bool:
        """Whether every training has a result."""
        return self._teacher_scored and self._wanted <= self._results.keys()

    def begin(self) -> None:
        """Choose the configurations from the results of the search."""
        if not self._has_test():
            self._progress.phase("confirm", f"skipped: {self._spec.dataset.name} has no test split")
            return
        chosen = chosen_of(load_results(self._sweep), self._spec.confirm.top)
        self._design = design_of(self._spec, chosen)
        self._progress.phase("confirm", _announced(self._design, chosen, self._spec))
        self._want_more()
        self._tell()
        if not all(self._sweep.of_teacher(name).teacher_test.is_file() for name in self._spec.teacher_names):
            self._teacher_scored = False
            self._waiting.append(ScoreTeacher(self._place.result()))

    def next(self) -> Work | None:
        """Return the next run."""
        return self._waiting.pop(0) if self._waiting else None

    def on_report(self, work: Work, report: Mapping[str, Any]) -> bool:
        """Record the result of a run.

        Raises:
            SweepError: If the run failed.
        """
        if "failure" in report:
            raise report.get("error") or SweepError(f"confirmation failed: {report['failure']}")
        if report.get("test_scored"):
            self._teacher_scored = True
            return False
        if "exhausted" in report:
            self._progress.phase(
                "confirm",
                f"note: {work.name} is out of GPU memory even alone and is left out; "
                f"kdsweep confirm {self._sweep} repeats it",
            )
        for measured in report.get("confirmed", ()):
            self._results[work.name] = measured
            self._want_more()
            self._tell()
        return work.name not in self._results

    def give_back(self, work: Work) -> None:
        """Requeue a run whose lane was lost."""
        self._waiting.append(work)

    def on_lost(self, work: Work) -> None:
        """Abort the sweep: a run lost its worker too often.

        Raises:
            SweepError: Always.
        """
        times = self._spec.resources.max_failures
        raise SweepError(f"a confirmation run lost its worker more than {times} times (killed, or out of memory)")

    def close(self) -> None:
        """Write the frame behind `Results.confirmed`, if every training has a result."""
        if self._design is None or not self.done:
            return
        done, most = len(self._wanted), self._design.most
        if done < most:
            self._progress.phase("confirm", f"decided after {done} of at most {most} trainings")
        frame = confirmed_frame(self._design, self._results, self._spec.goal, self._spec.gain_margin())
        write_frame(frame, self._sweep.confirmed_frame)

    def _want_more(self) -> None:
        """Queue the trainings that the design needs next. Results that are on disk already are read."""
        assert self._design is not None
        while True:
            wanted = named(self._design.wanted(self._results))
            new = {name: training for name, training in wanted.items() if name not in self._wanted}
            self._wanted |= new.keys()
            found = {name: measured for name in new if (measured := _result(self._sweep, name))}
            self._results |= found
            place = self._place.result()
            for name, (config, seed) in new.items():
                if name not in found:
                    work = ConfirmRun(place, config, seed)
                    self._waiting.append(work.lasting(budget_of(self._spec, config), config))
            if not found or not finished(list(wanted.values()), self._results):
                return

    def _tell(self) -> None:
        assert self._design is not None
        done = len(self._wanted & self._results.keys())
        auto = self._spec.confirm.seeds == "auto"
        load = self._load()
        busy = "" if math.isnan(load) else f", workers {min(1.0, load):.0%} busy".replace("%", " %")
        self._progress.counted("confirm", done, self._design.most, f"trainings{' at most' if auto else ''}{busy}")


def chosen_of(results: Results, top: int) -> list[Chosen]:
    """Choose the configurations to confirm from the results of the search."""
    candidates = results.candidates(top)
    found = []
    for key, group in zip(
        candidates["trial"], groups_of(candidates, (*results.group_by, *results.taught_by)), strict=True
    ):
        config = results.config(str(key))
        plain = results.plain(like=as_columns(config))
        tuned = results.config(str(plain["trial"][0])) if len(plain) else None
        found.append(Chosen.of(str(key), config, tuned, group, alone=results.spec.label_free))
    return found


def most_trainings(section: ConfirmSection) -> int:
    """Upper bound on the trainings of a confirmation, known before its students are chosen."""
    settings = 3  # a student, its plain twin and the tuned plain student
    if section.seeds != "auto":
        return settings * section.top * section.seeds
    if section.trainings != "auto":
        return section.trainings
    return (SELECTION + settings * JUDGED) * section.top


def design_of(spec: SweepSpec, chosen: list[Chosen]) -> Design:
    """Create the design of a sweep's confirmation."""

    def seed_of(number: int) -> int:
        return derived_seed(spec.seed, "confirm", number) % 2**31

    seeds, trainings = spec.confirm.seeds, spec.confirm.trainings
    if seeds != "auto":
        return FixedSeeds(chosen, [seed_of(number) for number in range(seeds)])
    return AutoSeeds(chosen, None if trainings == "auto" else trainings, seed_of, spec.goal, spec.gain_margin())


def _announced(design: Design, chosen: list[Chosen], spec: SweepSpec) -> str:
    """Say what confirmation will do."""
    several = len(chosen) > 1
    best = f"retraining the best {len(chosen) if several else 'student'}"
    if not spec.label_free:
        best += f" and {'their' if several else 'its'} plain students"
    best += " on"
    if not isinstance(design, AutoSeeds):
        seeds = spec.confirm.seeds
        return f"{best} {seeds} fresh seed{'s' if seeds != 1 else ''}"
    if design.leaders and design.plan is None:
        return f"{best} fresh seeds; {design.most} trainings are too few to judge gains"
    return f"{best} fresh seeds, at most {design.most} trainings"


def _result(sweep: SweepDir, name: str) -> Measured:
    path = sweep.confirmation(name).result
    return read_json(path) if path.is_file() else {}
