"""Runs a sweep: data, teacher, search, confirmation."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from ray import tune
from ray.exceptions import RayError
from ray.tune import TuneError

from kdsweep import models, tasks
from kdsweep.config.spec import SweepSpec, read_spec
from kdsweep.errors import InputError, Interrupted, KdsweepError, SweepDirError, SweepError
from kdsweep.results.frames import Results, load_results, write_frame, write_frames
from kdsweep.search.space import SearchSpace
from kdsweep.search.study import State, Study
from kdsweep.storage.environment import describe_environment
from kdsweep.storage.files import write_json
from kdsweep.storage.paths import SweepDir
from kdsweep.tasks import Prepared
from kdsweep.teacher.build import TeacherCard
from kdsweep.terminal.progress import Progress, SearchStatus, Silent
from kdsweep.tune.cluster import Share, connected, share
from kdsweep.tune.confirm import Chosen
from kdsweep.tune.confirm import confirm as train_again
from kdsweep.tune.prepare import places, prepare
from kdsweep.tune.scheduler import StudyScheduler
from kdsweep.tune.searcher import StudySearcher
from kdsweep.tune.trainable import DistillTrial

SAME_FAILURE_LIMIT = 5


def run(spec: SweepSpec, address: str | None = None, progress: Progress | None = None) -> Results:
    """Run a sweep to its end.

    Args:
        spec: The sweep, from `load_spec`.
        address: Of a Ray cluster; None starts a local one.
        progress: Hears what happens.

    Raises:
        SweepDirError: If the sweep's directory is in use, by another spec or by this sweep already.
        Interrupted: After Ctrl-C or SIGTERM; everything is kept.
        KdsweepError: If the sweep cannot go on.
    """
    sweep = spec.sweep_dir
    if _has_begun(sweep):
        raise SweepDirError(_taken(spec, sweep))
    _make_directory(sweep)
    with _only_driver(sweep):
        _clear_failed_start(sweep)
        spec.save(sweep.spec)
        return _drive(spec, sweep, address, progress or Silent())


def resume(
    path: str | Path, trials: int | None = None, address: str | None = None, progress: Progress | None = None
) -> Results:
    """Go on with a sweep from its directory alone.

    Args:
        path: The sweep's directory.
        trials: A new total, to extend a sweep.
        address: Of a Ray cluster; None starts a local one.
        progress: Hears what happens.

    Raises:
        SweepDirError: If there is no sweep at `path`, or another driver is at it.
        InputError: If `trials` is less than what was asked for.
    """
    sweep = SweepDir.existing(path)
    with _only_driver(sweep):
        spec = _as_it_lies(sweep)
        if trials is not None:
            if trials < spec.search.trials:
                raise InputError(f"--trials {trials}: accepted: at least {spec.search.trials}, which were asked for")
            spec = spec.replaced(search=spec.search.model_copy(update={"trials": trials}))
        spec.save(sweep.spec)
        return _drive(spec, sweep, address, progress or Silent())


def confirm(
    path: str | Path,
    top: int | None = None,
    seeds: int | None = None,
    address: str | None = None,
    progress: Progress | None = None,
) -> Results:
    """Train the best of a sweep again on fresh seeds, beside plain students, and score them on the test split.

    What was confirmed before is not trained again.

    Args:
        path: The sweep's directory.
        top: How many of the best; None is what the sweep file says.
        seeds: On how many seeds each; None is what the sweep file says.
        address: Of a Ray cluster; None starts a local one.
        progress: Hears what happens.

    Raises:
        SweepDirError: If there is no sweep at `path`, or another driver is at it.
        InputError: If nothing can be confirmed.
    """
    sweep = SweepDir.existing(path)
    with _only_driver(sweep):
        spec = _as_it_lies(sweep)
        asked = {"top": top, "seeds": seeds}
        wanted = spec.confirm.model_copy(update={name: value for name, value in asked.items() if value is not None})
        if load_results(path).best().empty:
            raise InputError(f"{sweep.root}: no trial has finished an epoch; accepted: a sweep that has run")
        if not wanted.top:
            raise InputError("confirm.top is 0 in the sweep file; accepted: --top N")
        return _drive(spec.replaced(confirm=wanted), sweep, address, progress or Silent(), search=False)


def _as_it_lies(sweep: SweepDir) -> SweepSpec:
    """The spec of a sweep whose directory may have been moved or renamed since."""
    return read_spec(sweep).replaced(storage=str(sweep.root.parent), name=sweep.root.name)


def _taken(spec: SweepSpec, sweep: SweepDir) -> str:
    """Why a sweep cannot be run into a directory that holds one, and what can be done."""
    resume_it = f"kdsweep resume {sweep.root}"
    changes = differences(read_spec(sweep).comparable(), spec.comparable())
    if not changes:
        return f"{sweep.root} holds this sweep already; accepted: {resume_it}, or another --name"
    more = f" and {len(changes) - 5} more" if len(changes) > 5 else ""
    shown = "; ".join(changes[:5]) + more
    return f"{sweep.root} holds another sweep ({shown}); accepted: another --name, or {resume_it} for the one there"


def differences(there: Mapping[str, Any], here: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What two resolved specs say differently: `path: there -> here`."""
    found: list[str] = []
    for key in sorted({*there, *here}):
        before, after = there.get(key), here.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key}: {before} -> {after}")
    return found


def _has_begun(sweep: SweepDir) -> bool:
    """Whether a directory holds a sweep that reached its search."""
    return sweep.spec.is_file() and sweep.journal.is_file() and sweep.journal.stat().st_size > 0


def _clear_failed_start(sweep: SweepDir) -> None:
    """Remove what a start left that failed before its search; data and teachers stay in the store."""
    for path in (sweep.spec, sweep.data, sweep.environment, sweep.probe):
        path.unlink(missing_ok=True)
    for folder in (sweep.teacher, sweep.tune):
        shutil.rmtree(folder, ignore_errors=True)


def _make_directory(sweep: SweepDir) -> None:
    try:
        sweep.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SweepDirError(
            f"{sweep.root}: cannot be made: {error.strerror}; accepted: a storage to write to"
        ) from error


@contextmanager
def _only_driver(sweep: SweepDir) -> Iterator[None]:
    """Hold the sweep's directory; two drivers would write over each other."""
    lock = FileLock(sweep.lock, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise SweepDirError(f"{sweep.root}: another driver is at this sweep; accepted: one at a time") from None
    except OSError as error:
        raise SweepDirError(f"{sweep.root}: cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()


def _drive(spec: SweepSpec, sweep: SweepDir, address: str | None, progress: Progress, search: bool = True) -> Results:
    go_on = f"go on with: kdsweep resume {sweep.root}"
    with _terminable(), progress:
        try:
            _phases(spec, sweep, address, progress, search)
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted; everything is kept, {go_on}") from None
        except OSError as error:
            what = f"{error.strerror or error}: {error.filename or sweep.root}"
            raise SweepError(f"the storage fails: {what}; what was written is kept, {go_on}") from error
        except (RayError, TuneError) as error:
            lines = [line for line in str(error).strip().splitlines() if line.strip()]
            last = lines[-1].strip() if lines else type(error).__name__
            # Ray hands on what a callback of ours raised as text.
            what = f"the storage fails: {last.partition('] ')[2]}" if "Error: [Errno" in last else f"Ray failed: {last}"
            raise SweepError(f"{what}; what was written is kept, {go_on}") from error
    return load_results(sweep.root)


def _phases(spec: SweepSpec, sweep: SweepDir, address: str | None, progress: Progress, search: bool) -> None:
    progress.phase("data", spec.dataset.name)
    task = tasks.of(spec.dataset)
    data = task.prepare(spec.dataset, spec.seed, sweep.store)
    _note_data(sweep, data)
    shape = "x".join(str(size) for size in data.input_spec.shape)
    train, val = data.count("train"), data.count("val")
    progress.phase("data", f"{train} training {task.noun}, {val} for validation, {shape}, {data.num_classes} classes")
    space = _within_constraints(spec, data)
    with connected(address), _terminable():  # again: joining Ray installs a handler of its own
        part = share(spec.resources, can_grow=address is not None)
        write_json(sweep.environment, describe_environment(sys.argv))
        card, probe = prepare(spec, sweep, data, part, address is not None, progress)
        part = share(spec.resources, can_grow=address is not None, per_gpu=probe.trials_per_gpu)
        if search:
            _search(spec, Study(spec, sweep, space), sweep, data, card, part, progress)
        if spec.confirm.top:
            _confirm(spec, sweep, data, part, progress)
    shutil.rmtree(sweep.tune, ignore_errors=True)


def _note_data(sweep: SweepDir, data: Prepared) -> None:
    """Keep what the data are.

    Raises:
        SweepDirError: If the sweep began with others: its trials could not be compared.
    """
    before = json.loads(sweep.data.read_text())["digest"] if sweep.data.is_file() else data.digest
    if before != data.digest:
        raise SweepDirError(
            f"{sweep.root}: its data set has changed since it began; accepted: the data it began with, or a new sweep"
        )
    write_json(sweep.data, data.described())


def _within_constraints(spec: SweepSpec, data: Prepared) -> SearchSpace:
    """The space without students that would break a constraint."""
    limits = spec.constraints
    if not limits.parameters and not limits.size_mb:
        return spec.search_space

    def fits(width: float) -> bool:
        parameters, size_mb = models.count(
            spec.student.model, data.input_spec, data.num_classes, width, **spec.student.options
        )
        small = not limits.parameters or parameters <= limits.parameters
        return small and (not limits.size_mb or size_mb <= limits.size_mb)

    space = spec.search_space.limit_width(fits)
    if space is None:
        widths = spec.search_space.shared["width"].written()
        wanted = {key: value for key, value in limits.model_dump().items() if value}
        raise InputError(f"constraints: no student {spec.student.model} of width {widths} keeps {wanted}")
    return space


def _search(
    spec: SweepSpec,
    study: Study,
    sweep: SweepDir,
    data: Prepared,
    card: TeacherCard,
    part: Share,
    progress: Progress,
) -> None:
    try:
        if not study.done:
            _run_trials(spec, study, sweep, data, card, part, progress)
    except BaseException:
        with suppress(OSError, KdsweepError):  # what ended the search is what the user must hear
            study.close()
            write_frames(sweep)
        raise
    study.close()
    write_frames(sweep)


def _run_trials(
    spec: SweepSpec,
    study: Study,
    sweep: SweepDir,
    data: Prepared,
    card: TeacherCard,
    part: Share,
    progress: Progress,
) -> None:
    """Run trials until every one has ended.

    Raises:
        KeyboardInterrupt: If it was stopped.
        SweepError: If the first trials all fail alike.
    """
    already = sum(len(trial.values) for trial in study.running.values())
    progress.phase(
        "search",
        f"{study.target} trials of {spec.train.epochs} epochs, {part.places} at a time"
        + (f", going on with {len(study.running)} after {already} epochs" if study.running else ""),
    )
    status = _StatusReporter(study, card, progress)
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(part.places)
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "1e9"  # nothing of Ray Tune's own state is ever restored
    searcher = StudySearcher(study, places(sweep, data), part.places)
    scheduler = StudyScheduler(study, spec.resources, status.changed)
    tuner = tune.Tuner(
        tune.with_resources(DistillTrial, {"cpu": part.cpus, "gpu": part.gpus}),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=lambda trial: str(trial.config["key"]),
            trial_dirname_creator=lambda trial: str(trial.config["key"]),
        ),
        run_config=tune.RunConfig(
            name="search",
            storage_path=str(sweep.tune),
            failure_config=tune.FailureConfig(max_failures=spec.resources.max_failures),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )
    tuner.fit()
    if study.abort:
        raise SweepError(f"{study.abort}; what was written is kept, go on with: kdsweep resume {sweep.root}")
    if not study.done:
        raise KeyboardInterrupt
    if not any(study.counts[state] for state in (State.COMPLETE, State.PRUNED)):
        raise SweepError(f"all {study.counts[State.FAILED]} trials failed: {study.last_error}")


class _StatusReporter:
    """Turns the study's state into what is shown, and sees when a sweep is hopeless."""

    def __init__(self, study: Study, card: TeacherCard, progress: Progress):
        self._study = study
        self._card = card
        self._progress = progress
        self._epochs = 0
        self._stopping = False
        progress.search(self.status())

    def changed(self, epochs: int) -> None:
        """Epochs were noted or a trial ended."""
        study = self._study
        self._epochs += epochs
        self._progress.search(self.status())
        failed = study.counts[State.FAILED]
        others = study.counts[State.COMPLETE] + study.counts[State.PRUNED]
        if failed >= SAME_FAILURE_LIMIT and not others and study.same_error:
            study.abort = f"the first {failed} trials all failed alike: {study.last_error}"
        if study.abort and not self._stopping:
            self._stopping = True
            signal.raise_signal(signal.SIGINT)  # Ray Tune's own way of being asked to stop

    def status(self) -> SearchStatus:
        """The present state."""
        study = self._study
        return SearchStatus(
            target=study.target,
            running=len(study.running),
            complete=study.counts[State.COMPLETE],
            pruned=study.counts[State.PRUNED],
            failed=study.counts[State.FAILED],
            epochs=self._epochs,
            objective=study.spec.goal.column,
            best_value=study.leader.best if study.leader else math.nan,
            best_config=study.leader.config if study.leader else {},
            teacher_value=self._card.measured.get(study.spec.goal.column, math.nan),
        )


def _confirm(spec: SweepSpec, sweep: SweepDir, data: Prepared, part: Share, progress: Progress) -> None:
    results = load_results(sweep.root)
    chosen = [Chosen.of(results, str(key)) for key in results.distinct(spec.confirm.top)["trial"]]
    if not data.task.prepare_test(spec.dataset, data):
        progress.phase("confirm", f"left out: {spec.dataset.name} has no test split")
        return
    progress.phase("confirm", f"the best {len(chosen)} and their plain students on {spec.confirm.seeds} fresh seeds")

    def on_done(done: int, total: int) -> None:
        progress.counted("confirm", done, total, "trainings")

    write_frame(train_again(spec, sweep, places(sweep, data), chosen, part, on_done), sweep.confirmed_frame)


@contextmanager
def _terminable() -> Iterator[None]:
    """Treat SIGTERM, which schedulers and spot machines send, as Ctrl-C."""

    def interrupt(number: int, frame: Any) -> None:
        # A shell has what it runs in the background ignore SIGINT; while trials run, Ray Tune handles it nevertheless.
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread: whoever runs us there handles signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
