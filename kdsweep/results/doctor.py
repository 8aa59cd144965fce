"""`kdsweep doctor`: checks the files of a sweep and rebuilds those that derive from the logs."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from kdsweep.config.spec import read_spec
from kdsweep.errors import KdsweepError, SweepDirError
from kdsweep.results.frames import Results, write_frames
from kdsweep.results.from_logs import frozen_trials
from kdsweep.results.predictions import checked
from kdsweep.storage import weights
from kdsweep.storage.driving import driving
from kdsweep.storage.files import read_json
from kdsweep.storage.following import discard
from kdsweep.storage.jsonl import read_lines
from kdsweep.storage.mirror import DRIVER
from kdsweep.storage.paths import SweepDir

_DATA = "without it, a change of the data set since the sweep began is not noticed"
_CODE = "without it, an edit of your own code since the sweep began is not noticed"


@dataclass(frozen=True)
class Finding:
    """The state of one file of a sweep.

    Attributes:
        file: Path relative to the sweep's directory.
        state: `whole`, `damaged` or `repaired`.
        note: What the file contains, or what is wrong with it and what to do.
    """

    file: str
    state: str
    note: str


def examine(sweep: SweepDir) -> list[Finding]:
    """Check every file of a sweep and repair what can be rebuilt.

    Frames are rebuilt from the logs. Damaged files that `kdsweep resume` or `confirm` rebuild are removed. Files that
    cannot be rebuilt are never changed.

    Raises:
        SweepDirError: If the sweep is running, or its directory cannot be written.
    """
    try:
        if sweep.uri:
            sweep = SweepDir.at(sweep.place, DRIVER)
            with driving(sweep, lambda line: None, everything=True):
                return list(_findings(sweep))
        with FileLock(sweep.lock, timeout=0):
            return list(_findings(sweep))
    except Timeout:
        raise SweepDirError(f"{sweep}: the sweep is running; wait for it or stop it") from None
    except OSError as error:
        raise SweepDirError(f"{sweep}: cannot be written: {error.strerror}") from error


def _findings(sweep: SweepDir) -> Iterator[Finding]:
    spec = _looked_at(sweep, sweep.spec, lambda: f"sweep {read_spec(sweep).name}")
    journal = _looked_at(sweep, sweep.journal, lambda: _count(len(frozen_trials(sweep)), "trial"))
    if {spec.state, journal.state} == {"whole"}:
        epochs = _looked_at(sweep, sweep.epochs_log, lambda: _count(len(Results.from_logs(sweep).epochs), "epoch"))
    else:
        epochs = _looked_at(sweep, sweep.epochs_log, lambda: _count(len(list(read_lines(sweep.epochs_log))), "line"))
    logs = [spec, journal, epochs]
    yield from logs
    if sweep.specs.is_file():
        yield _looked_at(
            sweep,
            sweep.specs,
            lambda: _count(len(list(read_lines(sweep.specs))), "version") + " of spec.yaml",
            "it only detects edits of spec.yaml and numbers changed search spaces; if spec.yaml was not edited, delete "
            "it, and kdsweep resume writes it again",
        )
    if sweep.search_time.is_file():
        yield _looked_at(sweep, sweep.search_time, lambda: _count(len(list(read_lines(sweep.search_time))), "line"))
    if all(finding.state == "whole" for finding in logs):
        yield from _frames(sweep)
    yield from _removable(sweep, sweep.confirmed_frame, "kdsweep confirm rebuilds it from confirmed/")
    if all(finding.state == "whole" for finding in logs):
        yield from _removable(sweep, sweep.predictions, "kdsweep report makes it again", partial(_predictions, sweep))
    yield from _removable(sweep, sweep.teacher_card, "kdsweep resume rebuilds it")
    yield from _removable(sweep, sweep.teacher_test, "kdsweep confirm rebuilds it")
    yield from _removable(sweep, sweep.environment, "kdsweep resume rebuilds it")
    yield from _removable(sweep, sweep.probe, "kdsweep resume measures again")
    for path in sorted(sweep.latency.glob("*.json")):
        yield from _removable(sweep, path, "the next trial of this architecture measures it again")
    yield from _removable(sweep, sweep.costs, "kdsweep resume measures again")
    for path in sorted(sweep.confirmed.glob("*/result.json")):
        yield from _removable(sweep, path, "kdsweep confirm trains and scores this student again")
    for path in sorted(sweep.tracking.glob("*.jsonl")):
        advice = "without it, kdsweep resume logs all trials again, as new runs"
        yield _looked_at(sweep, path, partial(_lines, path), advice)
    for path, advice in ((sweep.data, _DATA), (sweep.code, _CODE), (sweep.warm_start, "")):
        if path.is_file():
            yield _looked_at(sweep, path, partial(_json, path), advice)
    for path in sorted([*sweep.root.glob("teacher*/**/*.safetensors"), *sweep.trials.glob("*/*.safetensors")]):
        finding = _looked_at(sweep, path, partial(_weights, path))
        if finding.state == "damaged":
            advice = "the next kdsweep resume rebuilds it"
            if path.is_relative_to(sweep.trials):
                advice = _of_trial(sweep, path.parent.name)
            finding = replace(finding, note=f"{finding.note}; {advice}")
        yield finding


def _of_trial(sweep: SweepDir, key: str) -> str:
    """What to do about the damaged weights of a trial."""
    try:
        row = Results.from_logs(sweep).trial(key)
    except (KdsweepError, OSError, ValueError):
        return "its trial cannot be exported"
    if row["state"] == "RUNNING":
        return "kdsweep resume restarts its trial"
    if row["state"] == "FAILED":
        return "its trial failed; delete the file"
    point = row["config"].replace("'", "\\u0027")  # JSON, in quotes of the shell
    return (
        "its trial cannot be exported; other students can; to train this one again, from the same seed: kdsweep run "
        f"{shlex.quote(str(sweep.spec))} --name {shlex.quote(f'{sweep.name}-{key}')} --set search.trials=1 "
        f"--set search.plain_share=0 --set confirm.top=0 --set 'search.points=[{point}]'"
    )


def _looked_at(sweep: SweepDir, path: Path, look: Callable[[], str], advice: str = "") -> Finding:
    file = str(path.relative_to(sweep.root))
    try:
        return Finding(file, "whole", look())
    except (KdsweepError, OSError, ValueError) as error:
        what = " ".join(
            str(error).removeprefix(f"{path}:1: ").removeprefix(f"{path}: ").removeprefix("damaged: ").split()
        )
        return Finding(file, "damaged", f"{what}; {advice}" if advice else what)


def _frames(sweep: SweepDir) -> Iterator[Finding]:
    """Rebuild the frames that were not built from the current logs."""
    results = Results(sweep)
    stale = [path for path in (sweep.trials_frame, sweep.epochs_frame) if not results.is_current(path)]
    if stale:
        write_frames(sweep)
    for path in (sweep.trials_frame, sweep.epochs_frame):
        state = "repaired" if path in stale else "whole"
        yield Finding(path.name, state, "rebuilt from the logs" if path in stale else "agrees with the logs")


def _removable(sweep: SweepDir, path: Path, how: str, look: Callable[[], str] | None = None) -> Iterator[Finding]:
    """Check a file that another command rebuilds, and remove it if it is damaged."""
    if not path.is_file():
        return
    by_ending = _parquet if path.suffix == ".parquet" else _json
    finding = _looked_at(sweep, path, look or partial(by_ending, path))
    if finding.state == "damaged":
        discard(path)
        what = "outdated" if finding.note.startswith("outdated") else "damaged"
        finding = Finding(finding.file, "repaired", f"was {what} and has been removed; {how}")
    yield finding


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"


def _json(path: Path) -> str:
    count = len(read_json(path))
    return f"{count} entries" if count != 1 else "1 entry"


def _lines(path: Path) -> str:
    return _count(len(list(read_lines(path))), "line")


def _parquet(path: Path) -> str:
    import pandas as pd

    return _count(len(pd.read_parquet(path)), "row")


def _predictions(sweep: SweepDir) -> str:
    return _count(len(checked(Results(sweep))), "row")


def _weights(path: Path) -> str:
    weights.metadata(path)
    return f"{path.stat().st_size:,} bytes"
