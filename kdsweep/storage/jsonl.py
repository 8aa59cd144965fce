"""Append-only JSON Lines files that survive crashes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kdsweep.errors import SweepDirError
from kdsweep.storage import following


class LineLog:
    """A JSON Lines file with a single writer.

    Args:
        path: The file; an incomplete last line, left by a crash, is removed.
    """

    def __init__(self, path: Path):
        cut_torn_line(path)
        self._path = path
        self._file = path.open("a", encoding="utf-8")

    def append(self, entry: Mapping[str, Any]) -> None:
        """Append one line and flush it to the operating system."""
        self._file.write(json.dumps(entry, separators=(",", ":")) + "\n")
        self._file.flush()
        following.grown(self._path)

    def sync(self) -> None:
        """Flush the file to disk (fsync)."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Sync and close; calling it again does nothing."""
        if not self._file.closed:
            self.sync()
            self._file.close()
            following.closed(self._path)


def read_lines(path: Path, *, wanted: Iterable[str] = ()) -> Iterator[dict[str, Any]]:
    """Yield the entries of a JSON Lines file; skip an incomplete last line, treat a missing file as empty.

    Args:
        path: The file.
        wanted: Keys that every entry must have.

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
                raise SweepDirError(f"{path}:{number}: damaged: {error}; accepted: a JSON object") from error
            if not isinstance(entry, dict) or not keys <= entry.keys():
                raise SweepDirError(f"{path}:{number}: damaged; accepted: a JSON object with {', '.join(sorted(keys))}")
            yield entry


def cut_torn_line(path: Path) -> None:
    """Remove an incomplete last line."""
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
