"""Atomic file writes."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


def write_json(path: Path, value: Mapping[str, Any] | Iterable[Any]) -> None:
    """Write a JSON file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(value, indent=2) + "\n")
    partial.replace(path)


def replace_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Have a folder hold these files, all of them or, if anything fails, what was there before.

    They are written beside the folder first, so that a full disk leaves no half of a file in it. Other files in the
    folder stay.

    Raises:
        OSError: If the folder cannot be written, or something that is not a file is in the way.
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
