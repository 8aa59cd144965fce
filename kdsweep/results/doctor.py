"""What of a sweep is whole and what is damaged; what can be made again from the logs is made again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from kdsweep.config.spec import read_spec
from kdsweep.errors import KdsweepError, SweepDirError
from kdsweep.results.frames import Results, frozen_trials, write_frames
from kdsweep.storage import weights
from kdsweep.storage.paths import SweepDir


@dataclass(frozen=True)
class Finding:
    """One file of a sweep.

    Attributes:
        file: Below the sweep's directory.
        state: `whole`, `damaged` or `repaired`.
        note: What it holds, or what is wrong and what can be done.
    """

    file: str
    state: str
    note: str


def examine(sweep: SweepDir) -> list[Finding]:
    """Look at every file of a sweep, and repair what the logs allow.

    Frames are made again from the logs. Damaged descriptions of the teacher are removed: `kdsweep resume` or `confirm`
    makes them again. Nothing that cannot be made again is touched, and nothing at all while a driver is at the sweep.

    Raises:
        SweepDirError: If a driver is at the sweep.
    """
    try:
        with FileLock(sweep.lock, timeout=0):
            return list(_findings(sweep))
    except Timeout:
        raise SweepDirError(f"{sweep.root}: a sweep that is running; accepted: one that has ended or stopped") from None
    except OSError as error:
        raise SweepDirError(f"{sweep.root}: cannot be written: {error.strerror}") from error


def _findings(sweep: SweepDir) -> Iterator[Finding]:
    logs = [
        _looked_at(sweep, sweep.spec, lambda: f"the sweep {read_spec(sweep).name}"),
        _looked_at(sweep, sweep.journal, lambda: f"{len(frozen_trials(sweep))} trials"),
        _looked_at(sweep, sweep.epochs_log, lambda: f"{len(Results.from_logs(sweep).epochs)} epochs"),
    ]
    yield from logs
    if all(finding.state == "whole" for finding in logs):
        yield from _frames(sweep)
    yield from _made_again(sweep, sweep.confirmed_frame, "kdsweep confirm makes it again from confirmed/")
    yield from _made_again(sweep, sweep.teacher_card, "kdsweep resume makes it again")
    yield from _made_again(sweep, sweep.teacher_test, "kdsweep confirm makes it again")
    lost = "cannot be made again from the logs; take it from a copy, or delete it and run kdsweep resume"
    for path in (sweep.data, sweep.environment, sweep.probe, *sorted(sweep.confirmed.glob("*/result.json"))):
        if path.is_file():
            yield _looked_at(sweep, path, partial(_json, path), lost)
    again = "its trial cannot be exported; the next kdsweep resume starts a running one again"
    for path in sorted([*sweep.teacher.glob("*.safetensors"), *sweep.trials.glob("*/*.safetensors")]):
        advice = again if path.is_relative_to(sweep.trials) else "the next kdsweep resume makes it again"
        yield _looked_at(sweep, path, partial(_weights, path), advice)


def _looked_at(sweep: SweepDir, path: Path, look: Callable[[], str], advice: str = "") -> Finding:
    file = str(path.relative_to(sweep.root))
    try:
        return Finding(file, "whole", look())
    except (KdsweepError, OSError, ValueError) as error:
        what = " ".join(str(error).removeprefix(f"{path}: ").split())
        return Finding(file, "damaged", f"{what}; {advice}" if advice else what)


def _frames(sweep: SweepDir) -> Iterator[Finding]:
    """The frames, made again where they are not those of the logs."""
    results = Results(sweep)
    stale = [path for path in (sweep.trials_frame, sweep.epochs_frame) if not results.holds(path)]
    if stale:
        write_frames(sweep)
    for path in (sweep.trials_frame, sweep.epochs_frame):
        state = "repaired" if path in stale else "whole"
        yield Finding(path.name, state, "made again from the logs" if path in stale else "as the logs say")


def _made_again(sweep: SweepDir, path: Path, how: str) -> Iterator[Finding]:
    """A file that another command makes, removed if it cannot be read."""
    if not path.is_file():
        return
    look = _parquet if path.suffix == ".parquet" else _json
    finding = _looked_at(sweep, path, partial(look, path))
    if finding.state == "damaged":
        path.unlink()
        finding = Finding(finding.file, "repaired", f"was damaged and is removed; {how}")
    yield finding


def _json(path: Path) -> str:
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"holds {type(found).__name__}; accepted: a JSON object")
    return f"{len(found)} entries"


def _parquet(path: Path) -> str:
    import pandas as pd

    return f"{len(pd.read_parquet(path))} rows"


def _weights(path: Path) -> str:
    weights.metadata(path)
    return f"{path.stat().st_size:,} bytes"
