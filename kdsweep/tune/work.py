"""The kinds of work that a lane does. The driver creates a piece of work; Ray ships it to a lane, which runs it.

Any piece of work can be restarted on any node: it continues from the state saved in the sweep directory. This covers
lost workers, lost nodes, killed drivers and resumed sweeps.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator
from copy import copy
from dataclasses import dataclass
from typing import Any, Self

from kdsweep import tasks
from kdsweep.config.constraints import within_constraints
from kdsweep.config.spec import SweepSpec, read_spec
from kdsweep.distributions import Config
from kdsweep.errors import KdsweepError
from kdsweep.lazy import torch
from kdsweep.models import count_flops
from kdsweep.registry import import_from
from kdsweep.results.frames import load_results
from kdsweep.results.predictor import predict
from kdsweep.search.plan import budget_of, rule_of
from kdsweep.search.space import SearchSpace
from kdsweep.seeds import derived_seed, run_name
from kdsweep.storage.files import write_json
from kdsweep.storage.following import discard
from kdsweep.training.trainer import DivergedError
from kdsweep.tune.lease import device_name, leased_device, warm_workbench
from kdsweep.worker import gpu, latency, probe, process
from kdsweep.worker.guarded import GuardedRun, prepare
from kdsweep.worker.measures import agreement, metrics_of, not_measured, sizes, speed, tested
from kdsweep.worker.place import WorkerPlace
from kdsweep.worker.workbench import Workbench, open_workbench, prepared_teacher

# The settings on which the duration of an epoch depends.
DURATION = ("student", "width", "method", "batch_size", "augment", "precision", "teacher")


@dataclass(frozen=True)
class Report:
    """A report from a lane to the driver.

    Attributes:
        kind: Kind of report, such as `epochs`.
        value: The reported value.
        pause: Whether the work pauses until the driver has received the report.
    """

    kind: str
    value: Any
    pause: bool = False


class Work:
    """A piece of work.

    Attributes:
        name: Unique within the sweep.
        alone: Whether nothing else runs meanwhile.
        epochs: Number of epochs at most; 0 if it is not known.
        shape: What the duration of an epoch depends on, besides the device.
        moving: Whether it is on its way to a faster lane.
    """

    name: str
    alone = False
    epochs = 0
    shape: Hashable = None
    moving = False

    def by_itself(self) -> Self:
        """Return the same work, to be run while nothing else runs."""
        found = copy(self)
        found.alone = True
        return found

    def lasting(self, epochs: int, config: Config) -> Self:
        """Note how long the work takes: the number of epochs, and the configuration that it trains."""
        self.epochs, self.shape = epochs, tuple(config.get(name) for name in DURATION)
        return self

    def steps(self) -> Iterator[Report]:
        """Do the work and yield reports for the driver."""
        raise NotImplementedError

    def save(self) -> None:
        """Save the progress before the lane stops."""


class Wait(Work):
    """Import torch, then keep the lane warm until there is work for it.

    Args:
        number: Makes the name unique.
        seconds: Polling interval.
        threads: PyTorch threads.
    """

    def __init__(self, number: int, seconds: float, threads: int):
        self.name = f"wait-{number}"
        self._seconds = seconds
        self._threads = threads

    def steps(self) -> Iterator[Report]:
        """Set up the process, then report `waits` at every interval."""
        process.set_up(self._threads)
        gpu.release()  # for the work that runs meanwhile
        while True:
            yield Report("waits", True, pause=True)
            time.sleep(self._seconds)


class Prepare(Work):
    """Prepare the teacher, its outputs and the probe in the sweep directory.

    Reports `epochs` while the teacher trains, then `prepared`: its card, the probe, the device name, and the
    search space within the latency that the sweep allows (None if it allows any).

    Args:
        place: The sweep's paths for workers.
        threads: PyTorch threads for training the teacher. No student trains meanwhile.
    """

    name = "prepare"
    alone = True

    def __init__(self, place: WorkerPlace, threads: int):
        self._place = place
        self._threads = threads

    def steps(self) -> Iterator[Report]:
        """Train the teacher or load it from the store, then probe."""
        import_from(str(self._place.code))
        self._place.fetch()
        sweep, device = self._place.sweep, leased_device(self.alone)
        spec = read_spec(sweep)
        data = tasks.of(spec.dataset).load(self._place.data)
        process.set_up(self._threads)
        card = yield from _report_each("epochs", prepared_teacher(spec, sweep, data, device))
        process.set_up(spec.resources.cpus_per_trial)
        measured = probe.provide(spec, sweep, open_workbench(self._place, device))
        space = self._space(spec, open_workbench(self._place, device)) if spec.constraints.latency_ms else None
        yield Report("prepared", (card, measured, device_name(device), space), pause=True)

    def _space(self, spec: SweepSpec, bench: Workbench) -> SearchSpace:
        data = bench.data
        space = within_constraints(spec, data.input_spec, data.num_classes)
        return latency.within_latency(
            spec, space, self._place.sweep, bench.samples(1), data.input_spec, data.num_classes
        )


class TrialRun(Work):
    """Train one trial. Reports `before` (epochs in the saved state, possibly not yet reported), then `epochs`.

    It saves its state and pauses wherever the scheduler may stop the trial, so that no epoch is wasted.

    Args:
        place: The sweep's paths for workers.
        key: Key of the trial.
        config: Configuration of the trial.
    """

    def __init__(self, place: WorkerPlace, key: str, config: Config):
        self.name = key
        self._config = config
        self._place = place
        self._run: GuardedRun | None = None

    def steps(self) -> Iterator[Report]:
        """Train epoch by epoch."""
        bench = warm_workbench(self._place, self.alone)
        milestones = rule_of(bench.spec, budget_of(bench.spec, self._config)).milestones
        folder = self._place.sweep.trial(self.name)
        prepare(folder)
        run = self._run = GuardedRun(folder.state, folder.best, folder.hang, bench.spec)
        run.watch()
        training = run.training = bench.training(self._config, derived_seed(bench.spec.seed, "trial"), folder.state)
        run.resumed_at(training.epoch)
        student = sizes(training, bench) | speed(bench, training, self._place.sweep)
        yield from (Report("before", metrics | student) for metrics in training.history)
        while not training.done:
            metrics = run.epoch()
            may_end = training.done or training.epoch in milestones
            run.save_if(may_end)
            yield Report("epochs", metrics | student, pause=may_end)

    def save(self) -> None:
        """Save the state."""
        if self._run is not None:
            self._run.save()


class ConfirmRun(Work):
    """Train a configuration on a fresh seed and score it once on the test split. Reports `confirmed`: the metrics.

    They are NaN if the training diverged, or if it exhausts the memory of a GPU that it has for itself. The latter,
    reported as `exhausted`, is not kept as a result, so that another confirmation, perhaps on a larger GPU, repeats it.

    Args:
        place: The sweep's paths for workers.
        config: The configuration.
        seed: Seed for weights, sample order and dropout.
    """

    def __init__(self, place: WorkerPlace, config: Config, seed: int):
        self.name = run_name(config, seed)
        self.seed = seed
        self._config = config
        self._place = place
        self._run: GuardedRun | None = None

    def steps(self) -> Iterator[Report]:
        """Train to the end, restore the best epoch and evaluate."""
        bench = warm_workbench(self._place, self.alone)
        self._place.fetch()  # the test split may have been prepared since
        folder = self._place.sweep.confirmation(self.name)
        prepare(folder)
        run = self._run = GuardedRun(folder.state, None, folder.hang, bench.spec)
        run.watch()
        training = run.training = bench.training(self._config, self.seed, folder.state)
        measured = {
            **sizes(training, bench),
            "first_layer_norm": training.first_layer_norm,
            "epochs": training.recipe.optimization.epochs,
        }
        try:
            while not training.done:
                metrics = run.epoch()
                run.save_if(False)
                yield Report("epochs", metrics)
        except DivergedError:
            measured |= not_measured(bench)
        except RuntimeError as error:
            if not (self.alone and gpu.ran_out_of_memory(error)) or gpu.fault():
                raise
            self._run = None
            yield Report("exhausted", True)
            yield Report("confirmed", measured | not_measured(bench), pause=True)
            return
        else:
            training.restore_best()
            measured |= {bench.spec.goal.column: training.best_value} | tested(bench, training.inference)
            measured |= agreement(bench, training.inference, self._config)
        write_json(folder.result, measured)
        self._run = None
        discard(folder.state, folder.hang)
        yield Report("confirmed", measured, pause=True)

    def save(self) -> None:
        """Save the state, unless the run is finished."""
        if self._run is not None:
            self._run.save()


class ScoreTeacher(Work):
    """Score the teacher once on the test split. Reports `test_scored`.

    Args:
        place: The sweep's paths for workers.
    """

    name = "score-teacher"

    def __init__(self, place: WorkerPlace):
        self._place = place

    def steps(self) -> Iterator[Report]:
        """Evaluate the teacher and write the metrics."""
        bench = warm_workbench(self._place, self.alone)
        self._place.fetch()
        for name in bench.spec.teacher_names:
            sweep = self._place.sweep.of_teacher(name)
            measured = tested(bench, bench.taught_by(name).teacher.model)
            if bench.spec.label_free:  # it agrees with itself; the accuracy is left
                measured = {
                    key: measured[key] for key in measured if key.removeprefix("test_") not in metrics_of(bench)
                }
            write_json(sweep.teacher_test, measured)
        yield Report("test_scored", True, pause=True)


class Predict(Work):
    """Predict the test split for the report. Reports `predicted`: why it was not possible, or an empty string.

    Args:
        place: The sweep's paths for workers.
    """

    name = "predict"
    alone = True

    def __init__(self, place: WorkerPlace):
        self._place = place

    def steps(self) -> Iterator[Report]:
        """Predict with the models that the results name. A failure must not fail the sweep."""
        try:
            self._place.fetch()
            predict(load_results(self._place.sweep), warm_workbench(self._place, self.alone))
        except (KdsweepError, OSError) as error:
            yield Report("predicted", " ".join(str(error).split()), pause=True)
        else:
            yield Report("predicted", "", pause=True)


class MeasureCosts(Work):
    """Measure latency, throughput and memory of students and of the teacher. Reports `measuring` and then `costs`.

    Args:
        place: The sweep's paths for workers.
        configs: One configuration for each distinct student.
    """

    name = "measure-costs"
    alone = True

    def __init__(self, place: WorkerPlace, configs: list[Config]):
        self._place = place
        self._configs = configs

    def steps(self) -> Iterator[Report]:
        """Build each student untrained, and measure it unless the sweep has seen its architecture."""
        bench, sweep = warm_workbench(self._place, self.alone), self._place.sweep
        samples = bench.samples(latency.BATCH)
        students: list[dict[str, Any]] = []
        for place, config in enumerate(self._configs):
            yield Report("measuring", place)
            model = bench.training(config, 0, sweep.root / "none").inference
            measured = latency.costs(sweep, model, samples)
            which = {name: config[name] for name in ("student", "width", "method") if name in config}
            students.append(which | measured)
        yield Report("measuring", len(self._configs))
        teachers = {}
        for name in bench.spec.teacher_names:
            model = bench.taught_by(name).teacher.model
            teachers[name] = {**latency.costs(sweep, model, samples), "flops": count_flops(model, samples[:1])}
        found = {"teachers": teachers} if bench.spec.teachers else {"teacher": teachers[""]}
        where = {"device": bench.device.type, "threads": torch.get_num_threads(), "machine": device_name(bench.device)}
        yield Report("costs", {"students": students, **found, **where}, pause=True)


def _report_each(kind: str, values: Any) -> Any:
    """Report every value that a generator yields. Return its return value."""
    while True:
        try:
            value = next(values)
        except StopIteration as end:
            return end.value
        yield Report(kind, value)
