"""Runs, resumes and confirms a sweep. A lock allows one driver per sweep directory."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

from ray.exceptions import RayError
from ray.tune import TuneError

from kdsweep.config.changes import changed_spec
from kdsweep.config.load import load_spec
from kdsweep.config.several import confirm_faults
from kdsweep.config.spec import SweepSpec, differences, read_spec, was_resolved
from kdsweep.config.yaml import need_overrides
from kdsweep.errors import InputError, Interrupted, SpecError, SweepDirError, SweepError
from kdsweep.results.frames import Results, load_results
from kdsweep.storage.driver_log import driver_log
from kdsweep.storage.driving import driving
from kdsweep.storage.following import discard, discard_folder
from kdsweep.storage.mirror import DRIVER
from kdsweep.storage.paths import SweepDir
from kdsweep.storage.places import Place
from kdsweep.terminal.live import shown
from kdsweep.terminal.progress import Progress
from kdsweep.tracking.session import tracked
from kdsweep.tune.agenda import End
from kdsweep.tune.cluster import joined
from kdsweep.tune.origins import record_code
from kdsweep.tune.packing import need_objects
from kdsweep.tune.phases import run_phases
from kdsweep.tune.signals import terminable


def run(
    spec: SweepSpec | str | Path | Mapping[str, Any],
    address: str | None = None,
    progress: Progress | bool = True,
    overrides: Mapping[str, Any] | None = None,
    again: bool = False,
) -> Results:
    """Run a sweep to its end.

    Args:
        spec: The sweep, from `load_spec`; or what that takes: a sweep file, or a dict with the keys of one.
        address: Address of a Ray cluster, or `local` for a new one; None is RAY_ADDRESS, and `local` without it.
        progress: Whether to show it: redrawn in place on a terminal and in a notebook, else as plain lines on standard
            error. Or an object of one's own that receives it.
        overrides: Values by dotted path, as for `load_spec`.
        again: Whether to continue the sweep if its directory has it already, as a job that is started again must.

    Raises:
        SpecError: If the sweep file or the dict is not valid; one line per fault.
        SweepDirError: If the directory already holds a sweep, or another process is running it.
        Interrupted: After Ctrl-C or SIGTERM. The sweep can be resumed.
        KdsweepError: If the sweep cannot continue.
    """
    if not isinstance(spec, SweepSpec):
        spec = load_spec(spec, overrides)
    elif overrides:
        raise InputError("overrides: found some for a loaded spec; accepted: pass them to load_spec")
    spec.tracking.check()
    sweep, view = spec.sweep_dir, shown(progress)
    if not sweep.uri:
        _refuse_begun(spec, sweep, again)
    with joined(address):
        return _begin(spec, sweep, again, address, view)


def _begin(spec: SweepSpec, sweep: SweepDir, again: bool, address: str | None, progress: Progress) -> Results:
    if not sweep.uri and not has_begun(sweep):
        _make_directory(sweep)
        _refuse_other_files(sweep)
    with _only_driver(sweep, progress):
        if sweep.uri:  # its files are fetched now
            _refuse_begun(spec, sweep, again)
        if has_begun(sweep):
            return _go_on(sweep, {}, address, progress)
        if sweep.uri:
            _refuse_other_files(sweep)
        _clear_failed_start(sweep)
        spec.save(sweep.spec)
        record_code(spec, sweep)
        return _drive(spec, sweep, address, progress)


def resume(
    path: str | Path | Place,
    trials: int | None = None,
    address: str | None = None,
    progress: Progress | bool = True,
    overrides: Mapping[str, Any] | None = None,
) -> Results:
    """Resume a sweep from its directory alone.

    Args:
        path: The sweep's directory.
        trials: New total number of trials, to extend the sweep; None keeps the total.
        address: Address of a Ray cluster, or `local` for a new one; None is RAY_ADDRESS, and `local` without it.
        progress: Whether to show it, or what receives it; as for `run`.
        overrides: New values by dotted path, for the settings that leave trials comparable, such as
            `{"resources.max_concurrent": 2}`.

    Raises:
        SweepDirError: If there is no sweep at `path`, or another process is running it.
        SpecError: If a setting cannot change, or if `trials` is less than the sweep's present total.
    """
    need_overrides(overrides)
    sweep, view = _to_drive(path), shown(progress)
    with joined(address), _only_driver(sweep, view):
        extended = {} if trials is None else {"search.trials": trials}
        return _go_on(sweep, {**(overrides or {}), **extended}, address, view)


def confirm(
    path: str | Path | Place,
    top: int | None = None,
    seeds: int | Literal["auto"] | None = None,
    address: str | None = None,
    progress: Progress | bool = True,
    trainings: int | None = None,
) -> Results:
    """Retrain the best configurations and plain students on fresh seeds, and score them on the test split.

    Runs that already have a result are skipped.

    Args:
        path: The sweep's directory.
        top: Number of configurations to confirm; None uses the sweep file's value.
        seeds: Number of seeds for each, or `auto`; None uses the sweep file's value.
        address: Address of a Ray cluster, or `local` for a new one; None is RAY_ADDRESS, and `local` without it.
        progress: Whether to show it, or what receives it; as for `run`.
        trainings: Most trainings with `auto`, including plain students; None uses the sweep file's value.

    Raises:
        SweepDirError: If there is no sweep at `path`, or another process is running it.
        InputError: If nothing can be confirmed, or the number of trainings contradicts the other arguments.
    """
    sweep, view = _to_drive(path), shown(progress)
    with joined(address), _only_driver(sweep, view):
        spec = _moved(read_spec(sweep), sweep)
        need_objects(spec, sweep)
        asked = {"top": top, "seeds": seeds, "trainings": trainings}
        if seeds not in (None, "auto") and trainings is None:
            asked["trainings"] = "auto"  # a fixed number of seeds replaces the sweep file's number of trainings
        wanted = spec.confirm.model_copy(update={name: value for name, value in asked.items() if value is not None})
        if load_results(sweep).best().empty:
            raise InputError(f"{sweep}: no trial has finished an epoch; first run: kdsweep resume {sweep}")
        if not wanted.top:
            raise InputError("confirm.top is 0 in the sweep file; pass --top N")
        for key, message in (*wanted.faults(), *confirm_faults(spec, wanted)):
            raise InputError(f"--{key}: {message}")
        spec.tracking.check()
        record_code(spec, sweep)
        return _drive(spec.replaced(confirm=wanted), sweep, address, view, search=False)


def _moved(spec: SweepSpec, sweep: SweepDir) -> SweepSpec:
    """Adapt the spec to a sweep directory that may have been moved or renamed."""
    return spec.replaced(storage=sweep.storage, name=sweep.name)


def _to_drive(path: str | Path | Place) -> SweepDir:
    """Return the directory of an existing sweep, for its driver."""
    place = Place.of(path)
    SweepDir.need(place)
    return SweepDir.at(place, DRIVER)


def _go_on(sweep: SweepDir, changes: Mapping[str, Any], address: str | None, progress: Progress) -> Results:
    need_objects(read_spec(sweep), sweep)
    spec = _moved(changed_spec(sweep, changes), sweep)
    spec.tracking.check()
    record_code(spec, sweep)
    return _drive(spec, sweep, address, progress)


def _refuse_begun(spec: SweepSpec, sweep: SweepDir, again: bool) -> None:
    if has_begun(sweep) and (_changes(spec, sweep) or not again):
        raise SweepDirError(_taken(spec, sweep))


def _changes(spec: SweepSpec, sweep: SweepDir) -> list[str]:
    """Return how a sweep differs from the one that the directory contains."""
    return differences(read_spec(sweep).comparable(), spec.comparable())


def _taken(spec: SweepSpec, sweep: SweepDir) -> str:
    """Return the error for a directory that already contains a sweep."""
    resume_it = f"kdsweep resume {sweep}"
    changes = _changes(spec, sweep)
    if not changes:
        return f"{sweep} already contains this sweep; continue with: {resume_it}, or choose another --name"
    more = f" and {len(changes) - 5} more" if len(changes) > 5 else ""
    shown = "; ".join(changes[:5]) + more
    return f"{sweep} contains a different sweep ({shown}); choose another --name, or continue it: {resume_it}"


def has_begun(sweep: SweepDir) -> bool:
    """Whether the directory contains a sweep whose search has begun."""
    return sweep.spec.is_file() and sweep.journal.is_file() and sweep.journal.stat().st_size > 0


def _refuse_other_files(sweep: SweepDir) -> None:
    """Raise an error if the directory contains files, but not those of a run that failed before its search."""
    started = was_resolved(sweep.spec) or (sweep.specs.is_file() and not sweep.spec.exists())
    hidden = "." if sweep.uri else ""  # the cache has files of its own there
    others = (path for path in sweep.root.iterdir() if path != sweep.lock and not (hidden and path.name[0] == hidden))
    if not started and any(others):
        raise SweepDirError(f"{sweep} contains files but no sweep; choose another --name or --storage")


def _clear_failed_start(sweep: SweepDir) -> None:
    """Remove the files of a run that failed before its search. The store keeps data and teachers."""
    logs = (sweep.specs, sweep.search_time)
    discard(sweep.spec, *logs, sweep.data, sweep.code, sweep.environment, sweep.probe, sweep.warm_start)
    for folder in (sweep.teacher, sweep.root / "teachers", sweep.tune):
        discard_folder(folder)


def _make_directory(sweep: SweepDir) -> None:
    try:
        sweep.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SweepDirError(f"{sweep}: cannot create directory: {error.strerror}; choose a writable storage") from error


def _only_driver(sweep: SweepDir, progress: Progress) -> AbstractContextManager[None]:
    return driving(sweep, lambda line: progress.phase("storage", line))


def _drive(spec: SweepSpec, sweep: SweepDir, address: str | None, progress: Progress, search: bool = True) -> Results:
    hint = f"progress is saved; continue with: kdsweep resume {sweep}"
    if spec.given_objects:
        hint = "progress is saved; continue with the same call of kdsweep.sweep"
    if not search:  # the number of students and seeds may differ from the sweep file's, by which resume goes
        hint = "progress is saved; continue with the same kdsweep confirm"
    tracking = tracked(spec.tracking, sweep, spec.goal, lambda line: progress.phase("tracking", line))
    with driver_log(sweep), terminable(), progress, tracking:
        try:
            outcome = run_phases(spec, address, progress, search)
            if outcome.reason is not None:
                raise outcome.reason
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted; {hint}") from None
        except SweepError as error:
            raise SweepError(f"{error}; {hint}") from error
        except SpecError as error:
            if sweep.spec.is_file():
                raise
            raise SweepError(f"storage error: {sweep.spec} is missing; {hint}") from error
        except OSError as error:
            what = f"{error.strerror or error}: {error.filename or sweep}"
            raise SweepError(f"storage error: {what}; {hint}") from error
        except (RayError, TuneError) as error:
            lines = [line for line in str(error).strip().splitlines() if line.strip()]
            last = lines[-1].strip() if lines else type(error).__name__
            raise SweepError(f"Ray failed: {last}; {hint}") from error
        if outcome.end is End.INTERRUPTED:
            raise Interrupted(f"interrupted; {hint}")
        _write_report(sweep, progress)
    return load_results(sweep)


def _write_report(sweep: SweepDir, progress: Progress) -> None:
    """Write report.html. Whatever goes wrong, the sweep has ended and its results are safe."""
    try:
        from kdsweep.results.report.page import write_report

        written = write_report(load_results(sweep), running=False)
        progress.phase("report", str(sweep.place / written.name if sweep.uri else written))
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        progress.phase("report", f"warning: not written: {reason}; to try again: kdsweep report {sweep}")
