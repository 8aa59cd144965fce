"""Hashes of files that are remembered between runs, so that only new and changed files are read."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

from kdsweep.storage.files import write_json

# A file that was changed so recently may change again without a change of its times, which are kept in ticks.
SETTLED_SECONDS = 2.0


class FileHashes:
    """Hashes files, and remembers the hashes in a JSON file.

    A remembered hash is used if the file's size, modification time and change time are as they were. The operating
    system sets the change time, so a file with a restored modification time is still read again.

    Args:
        path: The JSON file; a damaged one is replaced. None remembers nothing.
    """

    def __init__(self, path: Path | None):
        self._path = path
        self._known: dict[str, list[str | int]] = {}
        self._remembered: dict[str, list[str | int]] = {} if path is None else _read(path)

    def of(self, file: Path) -> str:
        """Return the SHA-256 of a file, as 32 hexadecimal digits. Threads may call this.

        Raises:
            OSError: If the file cannot be read.
        """
        stat = file.stat()
        stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        entry = self._remembered.get(str(file), [])
        if entry[1:] != stamp:
            with file.open("rb") as opened:
                entry = [hashlib.file_digest(opened, "sha256").hexdigest()[:32], *stamp]
        if max(stat.st_mtime_ns, stat.st_ctime_ns) < (time.time() - SETTLED_SECONDS) * 1e9:
            self._known[str(file)] = entry
        return str(entry[0])

    def save(self) -> None:
        """Remember the hashes of the files asked for, and of those remembered before."""
        if self._path is not None and any(self._remembered.get(name) != entry for name, entry in self._known.items()):
            write_json(self._path, self._remembered | self._known)


def _read(path: Path) -> dict[str, list[str | int]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    whole = isinstance(found, dict) and all(isinstance(entry, list) and len(entry) == 4 for entry in found.values())
    return found if whole else {}
