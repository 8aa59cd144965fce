"""Optuna's journal, written in batches."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages.journal import JournalFileBackend

from kdsweep.errors import SweepDirError
from kdsweep.storage.following import grown
from kdsweep.storage.jsonl import cut_torn_line
from kdsweep.storage.logs import no_journal
from kdsweep.storage.paths import SweepDir


@contextmanager
def readable(sweep: SweepDir) -> Iterator[None]:
    """Report a damaged journal as a one-line error.

    Raises:
        SweepDirError: If the journal cannot be read, or is missing or empty although trials have run.
    """
    if sweep.epochs_log.is_file() and not sweep.journal.stat().st_size:
        raise no_journal(sweep)
    try:
        yield
    except (KeyError, ValueError, AssertionError) as error:
        raise SweepDirError(f"{sweep.journal}: damaged: {error}; accepted: the journal as kdsweep wrote it") from error


class BatchedJournal(JournalFileBackend):
    """Optuna's journal file for a single writer, with batched writes.

    Optuna's own backend locks, writes and syncs once per entry, and a trial has dozens of entries.

    Args:
        path: The journal file. A torn last line, left by a crash, is cut off.
    """

    def __init__(self, path: Path):
        cut_torn_line(path)
        super().__init__(str(path))
        self._path = path
        self._pending: list[dict[str, Any]] = []
        self._batching = False
        # Entries appended here but not read since, starting at entry number `_first_unread`. Reading them back from the
        # file would take longer with every trial.
        self._unread: list[dict[str, Any]] = []
        with path.open("rb") as file:
            self._first_unread = sum(1 for _ in file)

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        """Yield the entries in the file, then those appended since."""
        known = log_number_from - self._first_unread
        if known < 0:
            yield from islice(super().read_logs(log_number_from), -known)
        else:
            del self._unread[:known]
            self._first_unread = log_number_from
        yield from list(self._unread)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append entries. They are written at the end of the batch, or immediately outside a batch."""
        self._pending += logs
        self._unread += logs
        if not self._batching:
            self._flush()

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Write everything appended inside the context in a single write."""
        self._batching = True
        try:
            yield
        finally:
            self._batching = False
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            # Optuna would begin a new journal if the directory disappeared and a worker has made it again.
            self._path.stat()
            super().append_logs(self._pending)
            self._pending = []
            grown(self._path)


def name_objectives(study: optuna.Study, names: Sequence[str]) -> None:
    """Name the objectives of a study, for Optuna's dashboard and data frames."""
    with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
        study.set_metric_names(list(names))
