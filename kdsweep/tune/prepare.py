"""The stage before the search: prepares the teacher, its outputs and the probe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kdsweep.config.spec import SweepSpec
from kdsweep.errors import SweepError
from kdsweep.search.space import SearchSpace
from kdsweep.tasks.metrics import shown
from kdsweep.teacher.build import TeacherCard
from kdsweep.terminal.progress import Progress
from kdsweep.tune.agenda import Background
from kdsweep.tune.work import Prepare, Work
from kdsweep.worker.capacity import Pace, Probe
from kdsweep.worker.place import WorkerPlace


class Preparation:
    """Prepares the teacher, its outputs and the probe in the sweep directory, once the data is read.

    Args:
        spec: The sweep.
        place: The sweep's paths for workers; available once the data is read.
        threads: PyTorch threads for training the teacher.
        progress: Receives status updates.
        on_data: Called when the data is read and a lane is ready.
        on_prepared: Called with the device name when the stage is done.

    Attributes:
        card: Describes the teacher; set when the stage is done.
        probe: The measurements of the machine; None until the stage is done.
        space: The search space within the latency that the sweep allows; None if it allows any.
    """

    name = "prepare"

    def __init__(
        self,
        spec: SweepSpec,
        place: Background[WorkerPlace],
        threads: int,
        progress: Progress,
        on_data: Callable[[], None],
        on_prepared: Callable[[str], None],
    ):
        self._spec = spec
        self._place = place
        self._threads = threads
        self._progress = progress
        self._on_data = on_data
        self._on_prepared = on_prepared
        self._handed_out = False
        self.card: TeacherCard
        self.space: SearchSpace | None = None
        self.probe: Probe | None = None

    @property
    def done(self) -> bool:
        """Whether the teacher, its outputs and the probe are ready."""
        return self.probe is not None

    def begin(self) -> None:
        """Do nothing: reading the data starts before this stage."""

    def next(self) -> Work | None:
        """Return the single piece of work, once the data is read."""
        if self._handed_out or not self._place.done():
            return None
        place = self._place.result()
        self._handed_out = True
        self._on_data()
        teachers = {name: self._spec.of_teacher(name).teacher.model for name in self._spec.teacher_names}
        self._progress.phase(
            "teacher", ", ".join(f"{name}: {model}" if name else model for name, model in teachers.items())
        )
        return Prepare(place, self._threads)

    def on_report(self, work: Work, report: Mapping[str, Any]) -> bool:
        """Show the teacher's epochs and record its card and the probe.

        Raises:
            SweepError: If the teacher cannot be prepared.
        """
        if "failure" in report:
            raise report.get("error") or SweepError(f"cannot prepare the teacher: {report['failure']}")
        for metrics in report.get("epochs", ()):
            text = f"epochs, {self._shown(metrics)}"
            self._progress.counted("teacher", int(metrics["epoch"]), int(metrics["of"]), text)
        for card, probe, device, self.space in report.get("prepared", ()):
            self._take(card, probe, device)
        return not self.done

    def give_back(self, work: Work) -> None:
        """Requeue the work after its lane was lost."""
        self._handed_out = False

    def on_lost(self, work: Work) -> None:
        """Abort the sweep: the work lost its worker too often.

        Raises:
            SweepError: Always.
        """
        times = self._spec.resources.max_failures
        raise SweepError(f"teacher preparation lost its worker more than {times} times (killed, or out of memory)")

    def close(self) -> None:
        """Do nothing: the lane has written everything."""

    def _shown(self, measured: Mapping[str, float]) -> str:
        """Format the objective's value, such as `val accuracy 98.90%`."""
        column = self._spec.goal.column
        return f"{column.replace('_', ' ')} {shown(column, measured[column])}"

    def _take(self, card: TeacherCard, probe: Probe, device: str) -> None:
        self.card, self.probe = card, probe
        self._on_prepared(device)
        sweep = self._spec.sweep_dir
        named = {name: TeacherCard.read(sweep.of_teacher(name).teacher_card) for name in self._spec.teachers}
        for name, one in (named or {"": card}).items():
            told = f"{name}: {one.origin}" if name else one.origin
            size = f"{one.parameters:,} parameters, {one.size_mb:.3f} MiB"
            good = "" if self._spec.label_free else f"{self._shown(one.measured)}, "  # it agrees with itself
            self._progress.phase("teacher", f"{told}, {good}{size}")
        if probe.step_ms:
            steps = ", ".join(f"{name} {milliseconds:g}" for name, milliseconds in probe.step_ms.items())
            self._progress.phase("probe", f"students train in {probe.precision} (ms per step: {steps})")
        for pace in probe.paces or ():
            self._progress.phase("probe", told_pace(pace))
        if probe.gpu_bytes and self._spec.resources.gpus_per_trial == "auto":
            self._progress.phase("probe", told_crowd(probe, probe.cohort_of(self._spec.train.cohort)))


def told_pace(pace: Pace) -> str:
    """Say how many students of a shape train fastest as one, and what was measured."""
    size = pace.fastest
    steps = ", ".join(f"{number} {milliseconds:g}" for number, milliseconds in pace.step_ms.items())
    student = f"{pace.student} of width" if pace.student else "students of width"
    how = "one by one" if size == 1 else f"in cohorts of {size}"
    return f"{student} {pace.width:g} train fastest {how} (ms per step of a trial, by cohort: {steps})"


def told_crowd(probe: Probe, cohort: int) -> str:
    """Say how many workers share a GPU, and why."""
    number, fit = probe.lanes_per_gpu(cohort), probe.fitting(cohort)
    rates = ", ".join(f"{count} {rate:g}" for count, rate in probe.steps_per_second.items())
    why = f"steps of trials per second, by workers: {rates}" if rates else "their speed is not measured"
    return f"{number} of the {fit} workers that fit share a GPU ({why})"
