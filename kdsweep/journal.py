"""Append-only logs: Optuna's journal written in batches, and lines of JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend

from kdsweep.errors import SweepDirError


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
        with path.open("rb") as file:
            self._written = sum(1 for _ in file)

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        """What is in the file, then what waits to be written."""
        if log_number_from < self._written:
            yield from super().read_logs(log_number_from)
        yield from list(self._pending[max(0, log_number_from - self._written) :])

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write at the end of the batch, or at once outside one."""
        self._pending += logs
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
            self._written += len(self._pending)
            self._pending = []


class LineLog:
    """A file of JSON lines with one writer.

    Args:
        path: The file; a torn last line, left by a crash, is cut off.
    """

    def __init__(self, path: Path):
        cut_torn_line(path)
        self._file = path.open("a", encoding="utf-8")

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add one line and hand it to the operating system."""
        self._file.write(json.dumps(entry, separators=(",", ":")) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Have it on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Sync and close; a second time does nothing."""
        if not self._file.closed:
            self.sync()
            self._file.close()


def read_lines(path: Path, *, wanted: Iterable[str] = ()) -> Iterator[dict[str, Any]]:
    """The entries of a file of JSON lines; a torn last line is left out, a missing file is empty.

    Args:
        path: The file.
        wanted: Keys that every entry has.

    Raises:
        SweepDirError: If a line is damaged.
    """
    if not path.is_file():
        return
    keys = frozenset(wanted)
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                entry = json.loads(line)
            except ValueError as error:
                raise SweepDirError(f"{path}:{number}: damaged: {error}; accepted: a line of JSON") from error
            if not isinstance(entry, dict) or not keys <= entry.keys():
                raise SweepDirError(
                    f"{path}:{number}: damaged; accepted: a line of JSON with {', '.join(sorted(keys))}"
                )
            yield entry


def cut_torn_line(path: Path) -> None:
    """Make a log end with a whole line."""
    if not path.is_file():
        return
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 65536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        file.truncate(end)
