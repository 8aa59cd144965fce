"""The phases of a sweep: data, teacher, search, confirmation. Independent phases overlap."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from kdsweep import tasks
from kdsweep.config.constraints import within_constraints
from kdsweep.config.sizes import batch_note, subset_fault
from kdsweep.config.spec import SweepSpec
from kdsweep.errors import InputError
from kdsweep.results import earlier
from kdsweep.search.space import SearchSpace
from kdsweep.search.study import Study
from kdsweep.storage.environment import EnvironmentFile, describe_environment, utc_now
from kdsweep.storage.following import publish
from kdsweep.tasks import Prepared
from kdsweep.terminal.progress import Progress
from kdsweep.tune import accelerators, origins, packing
from kdsweep.tune.agenda import Agenda, Background, End, Outcome, Stage
from kdsweep.tune.cluster import Address, Share, cluster_size, connected, share
from kdsweep.tune.confirm import Confirmation, most_trainings
from kdsweep.tune.costs import Costs
from kdsweep.tune.lanes import run_lanes
from kdsweep.tune.observed import Observed
from kdsweep.tune.predict import Prediction
from kdsweep.tune.prepare import Preparation
from kdsweep.tune.search import Search
from kdsweep.tune.signals import terminable
from kdsweep.tune.timeline import Timeline
from kdsweep.words import count_of
from kdsweep.worker import capacity
from kdsweep.worker.place import WorkerPlace

RECORD_SECONDS = 10.0  # how often the times are written to environment.json


def run_phases(spec: SweepSpec, address: str | None, progress: Progress, search: bool) -> Outcome:
    """Run a sweep to its end.

    Args:
        spec: The sweep.
        address: As in `driver.run`.
        progress: Receives status updates.
        search: Whether to run trials. If False, only the best existing trials are confirmed.

    Returns:
        How the sweep ended.
    """
    return _Phases(spec, address, progress).run(search)


class _Phases:
    def __init__(self, spec: SweepSpec, address: str | None, progress: Progress):
        self._spec = spec
        self._sweep = spec.sweep_dir
        self._address = Address.chosen(address)
        self._progress: Progress = Observed(progress, self._sweep.root.name)
        self._timeline = Timeline()
        self._environment = EnvironmentFile(self._sweep.environment, describe_environment(sys.argv))
        self._written = 0.0
        self._has_test: Background[bool] | None = None
        self._space: SearchSpace | None = None
        self._objects = packing.packed(spec)
        self._progress.phase("data", spec.dataset.name)
        self._data = Background(self._read_data)
        self._place = Background(lambda: WorkerPlace(self._sweep, self._data.result().root, Path.cwd()))

    def run(self, search: bool) -> Outcome:
        with connected(self._address), self._progress, terminable():  # again: ray.init installs its own handler
            self._tell_cluster()
            if self._data.done():
                self._data.result()  # report data errors at once
            self._write_environment()
            part = self._share(capacity.stored(self._sweep), search)
            threads = self._spec.resources.cpus_per_trial if self._address.text else os.cpu_count() or 1
            # Saved only when the cluster and the data are fine, so that a failed `resume --trials` changes nothing.
            save = (lambda: self._spec.save(self._sweep.spec)) if search else (lambda: None)
            preparation = Preparation(self._spec, self._place, threads, self._progress, save, self._on_prepared)
            self._preparation = preparation
            stages: list[Stage] = [preparation]
            if part.gpus and self._spec.resources.gpus_per_trial == "auto":
                # The number of trials per GPU is measured on a whole GPU, so lanes are resized after preparation. Also
                # when the sweep is resumed, because this may be another GPU.
                outcome = self._run_lanes(stages, Share(part.cpus, 1, 1, 1, accelerators.smallest(part.cpus)))
                if outcome.end is not End.ENDED:
                    return outcome
                part, stages = self._share(preparation.probe, search), []
            if part.most > part.slots:
                told = f"places for {count_of(part.slots, 'trial')} at a time"
                self._progress.phase("cluster", f"{told}; the autoscaler is asked for more while trials wait")
            searching: Search | None = None
            if search:
                searching = Search(
                    self._spec,
                    self._place,
                    self._study,
                    lambda: preparation.card,
                    lambda: preparation.probe,
                    lambda: self._timeline.workers,
                    self._progress,
                    lambda: self._timeline.load(Search.name),
                )
                stages.append(searching)
            if self._spec.confirm.top:
                confirming = Confirmation(
                    self._spec,
                    self._place,
                    self._prepare_test,
                    self._progress,
                    lambda: self._timeline.load(Confirmation.name),
                )
                stages += [confirming, Prediction(self._sweep, self._place, self._progress)]
            written = searching.finish if searching is not None else lambda: None
            stages.append(Costs(self._spec, self._place, self._progress, written))
            try:
                outcome = self._run_lanes(stages, part)
            except BaseException:
                with suppress(Exception):  # the user must see the original error
                    self._end_environment()
                    if searching is not None:
                        searching.finish()
                raise
            self._end_environment()
            if searching is not None:
                searching.finish()
            self._progress.phase("time", self._timeline.text())
        shutil.rmtree(self._sweep.tune, ignore_errors=True)
        return outcome

    def _tell_cluster(self) -> None:
        """Say which cluster is used, if not one of our own."""
        if self._address.text:
            told = self._address.source.removeprefix("--address ")
            self._environment.add(address=self._address.text)
            self._progress.phase("cluster", f"joined {told}: {cluster_size()}")

    def _run_lanes(self, stages: Sequence[Stage], part: Share) -> Outcome:
        resources = self._spec.resources
        self._timeline.workers = part.slots
        agenda = Agenda(stages, part.slots, resources.cpus_per_trial, self._timeline, self._note)
        return run_lanes(agenda, part, resources.max_failures, self._sweep.tune, self._objects)

    def _share(self, probe: capacity.Probe | None, search: bool) -> Share:
        """Return the resources per lane and the number of lanes, at most one lane per piece of work."""
        spec = self._spec
        per_gpu = probe.lanes_per_gpu(probe.cohort_of(spec.train.cohort)) if probe else 1
        can_grow = self._address.text is not None
        tell = lambda line: self._progress.phase("cluster", line)  # noqa: E731
        part = share(spec.resources, can_grow, tell, per_gpu, spec.train.capture)
        return part.at_most(max(spec.search.trials if search else 1, most_trainings(spec.confirm)))

    def _read_data(self) -> Prepared:
        task = tasks.of(self._spec.dataset)
        data = task.prepare(self._spec.dataset, self._spec.seed, self._sweep.store)
        publish(data.root)
        check_sizes(self._spec, data, self._progress)
        if note := origins.record_data(self._sweep, data, scores=self._spec.confirm.top > 0):
            self._progress.phase("data", note)
        # Before anything is trained, because it may fail.
        self._space = within_constraints(self._spec, data.input_spec, data.num_classes)
        shape = "x".join(str(size) for size in data.input_spec.shape)
        self._progress.phase(
            "data",
            f"{_counted(data)} training {task.noun}, {data.count('val')} for validation, {shape}, "
            f"{data.num_classes} classes",
        )
        if data.skipped:
            self._progress.phase("data", f"skipped unreadable {task.noun}: {tasks.counted(data.skipped)}")
        return data

    def _on_prepared(self, device: str) -> None:
        self._environment.add(gpus=[device] if device else [])
        self._write_environment()
        if self._spec.confirm.top:
            data = self._data.result()
            self._has_test = Background(lambda: self._read_test(data))

    def _read_test(self, data: Prepared) -> bool:
        there = data.task.prepare_test(self._spec.dataset, data)
        publish(data.root)
        return there

    def _prepare_test(self) -> bool:
        """Wait until the test split is prepared. Return False if the data set has none."""
        assert self._has_test is not None
        return self._has_test.result()

    def _study(self) -> Study:
        space = self._preparation.space or self._space
        assert space is not None
        for line in earlier.record(self._spec, space):
            self._progress.phase("search", line)
        return Study(self._spec, self._sweep, space)

    def _note(self, report: Mapping[str, Any]) -> None:
        """Record new workers, and now and then the times, so that a driver that is killed leaves them behind."""
        for worker in report.get("worker", ()):
            self._environment.add_worker(worker)
        if "worker" in report or self._timeline.now - self._written > RECORD_SECONDS:
            self._write_environment()

    def _end_environment(self) -> None:
        self._environment.add(ended=utc_now())
        self._write_environment()

    def _write_environment(self) -> None:
        self._written = self._timeline.now
        self._environment.write(self._timeline.described(), self._timeline.trained)


def _counted(data: Prepared) -> str:
    """Format the number of training samples."""
    count = data.count("train")
    if data.unlabelled == count:
        return f"{count} unlabelled"
    return f"{count - data.unlabelled} labelled + {data.unlabelled} unlabelled" if data.unlabelled else str(count)


def check_sizes(spec: SweepSpec, data: Prepared, progress: Progress) -> None:
    """Compare `subset` and `batch_size` with the number of samples. Earlier versions began sweeps without that check.

    Raises:
        InputError: If a new sweep asks for more samples than there are.
    """
    count = data.count("train") - (0 if data.task.label_free else data.unlabelled)
    own_val = "val" in data.contents  # otherwise validation samples were taken from the training split
    fault = subset_fault(spec, count if own_val else count + data.count("val"))
    if fault and not spec.sweep_dir.data.is_file():
        raise InputError(f"dataset.subset: {fault}")
    for note in (fault and f"dataset.subset: {fault}", batch_note(spec, data.count("train"))):
        if note:
            progress.phase("data", f"note: {note}")
