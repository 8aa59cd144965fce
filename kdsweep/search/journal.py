"""Optuna's journal, written in batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend

from kdsweep.storage.jsonl import cut_torn_line


class BatchedJournal(JournalFileBackend):
    """Optuna's journal file for a single writer, which may write many entries at once.

    Every entry of Optuna's own backend is a lock, a write and a sync of its own; a trial has dozens.

    Args:
        path: The journal; a torn last line, left by a crash, is cut off.
    """

    def __init__(self, path: Path):
        cut_torn_line(path)
        super().__init__(str(path))
        self._pending: list[dict[str, Any]] = []
        self._batching = False
        # What was appended here and not read since, from the entry of this number on: to look for it in the file would
        # take longer with every trial.
        self._unread: list[dict[str, Any]] = []
        with path.open("rb") as file:
            self._first_unread = sum(1 for _ in file)

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        """What is in the file, then what was appended."""
        known = log_number_from - self._first_unread
        if known < 0:
            yield from islice(super().read_logs(log_number_from), -known)
        else:
            del self._unread[:known]
            self._first_unread = log_number_from
        yield from list(self._unread)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write at the end of the batch, or at once outside one."""
        self._pending += logs
        self._unread += logs
        if not self._batching:
            self._flush()

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Write everything that is appended meanwhile in one go."""
        self._batching = True
        try:
            yield
        finally:
            self._batching = False
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            super().append_logs(self._pending)
            self._pending = []
