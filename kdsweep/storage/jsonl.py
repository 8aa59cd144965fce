"""Append-only files of JSON lines: whole lines or none."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kdsweep.errors import SweepDirError


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
