"""Atomic file writes."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kdsweep.errors import SweepDirError
from kdsweep.storage.following import written
from kdsweep.words import kind_of

REPAIR = "restore it from a backup, or delete it and run kdsweep resume"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` at the end; after an error `path` is unchanged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_of(path)
    try:
        yield partial
        partial.replace(path)
        written(path)
    finally:
        partial.unlink(missing_ok=True)


def partial_of(path: Path) -> Path:
    """Path of the temporary file next to `path`, unique to this process."""
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def write_json(path: Path, value: Mapping[str, Any] | Iterable[Any]) -> None:
    """Write a JSON file atomically."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(value, indent=2) + "\n")


def read_json(path: Path, advice: str = REPAIR) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: The file.
        advice: What to do if it is damaged; the end of the error message.

    Raises:
        SweepDirError: If the file is missing or damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"found {kind_of(found)}; accepted: a JSON object")
    except FileNotFoundError as error:
        raise SweepDirError(f"{path}: missing; {advice}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise SweepDirError(f"{path}: damaged: {error}; {advice}") from error
    return found


def replace_files(folder: Path, files: Mapping[str, bytes], stale: Iterable[str] = ()) -> None:
    """Write several files into a folder: all of them, or none if anything fails.

    They are written next to the folder first, so that a full disk leaves no incomplete file in it. Other files in the
    folder are kept.

    Args:
        folder: The folder; created if it does not exist.
        files: Content by name.
        stale: Names of files that are removed if they exist and are not written.

    Raises:
        OSError: If the folder cannot be written, or a directory has the name of one of the files.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent) as beside:
        for name, content in files.items():
            (Path(beside) / name).write_bytes(content)
        folder.mkdir(exist_ok=True)
        in_the_way = [folder / name for name in files if (folder / name).is_dir()]
        if in_the_way:
            raise IsADirectoryError(errno.EISDIR, "a directory is in the way", str(in_the_way[0]))
        for name in files:
            (Path(beside) / name).replace(folder / name)
        for name in set(stale) - set(files):
            (folder / name).unlink(missing_ok=True)
