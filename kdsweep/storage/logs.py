"""The errors for logs of a sweep that are incomplete."""

from __future__ import annotations

from kdsweep.errors import SweepDirError
from kdsweep.storage.paths import SweepDir


def no_journal(sweep: SweepDir) -> SweepDirError:
    """Return the error for a journal that is missing or empty although epochs were logged."""
    return SweepDirError(f"{sweep.journal}: missing or empty, but {sweep.epochs_log.name} exists; restore both logs")


def no_epochs(sweep: SweepDir, key: str) -> SweepDirError:
    """Return the error for a finished trial without epochs."""
    log = sweep.epochs_log
    found = f"no epochs of trial {key}" if log.is_file() else f"missing, but {sweep.journal.name} exists"
    return SweepDirError(f"{log}: {found}; restore both logs as kdsweep wrote them")


def no_trial(sweep: SweepDir, key: str) -> SweepDirError:
    """Return the error for epochs of a trial that is not in the journal, which records each trial before it starts."""
    found = f"has no trial {key}, whose epochs are in {sweep.epochs_log.name}"
    return SweepDirError(f"{sweep.journal}: {found}; restore both logs as kdsweep wrote them")
