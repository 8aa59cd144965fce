"""The cache of this machine for what is kept in object stores, with a size limit."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from kdsweep.errors import InputError

LIMIT = "KDSWEEP_CACHE_GB"
FOLDER = "KDSWEEP_CACHE"
SWEEPS = "sweeps"  # the folder for sweeps that are stored in object stores; see `mirror`
DEFAULT_GB = 50.0
IN_USE_SECONDS = 3600.0  # what was asked for so recently is not removed
_USED = ".used"


def cache_root() -> Path:
    """The folder of the cache, on this machine."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get(FOLDER) or Path(base) / "kdsweep").absolute()


def note_use(folder: Path) -> None:
    """Note that a folder of the cache is in use."""
    with suppress(OSError):
        (folder / _USED).touch()


def make_room(size: int, what: object) -> None:
    """Remove what was not used for longest, until `size` more bytes fit within the limit.

    Args:
        size: In bytes.
        what: What needs the room, for the error.

    Raises:
        InputError: If it cannot fit.
    """
    limit, now = _limit_bytes(), time.time()
    kept = sorted((_last_use(folder), folder) for folder in _folders(cache_root()))
    sizes = {folder: _size(folder) for _, folder in kept}
    total = sum(sizes.values())
    for used, folder in kept:
        if total + size <= limit or now - used < IN_USE_SECONDS:
            break
        shutil.rmtree(folder, ignore_errors=True)
        total -= sizes[folder]
    if total + size > limit:
        raise InputError(
            f"{what}: {size / 1e9:.3g} GB do not fit into the cache {cache_root()}, which holds {total / 1e9:.3g} of "
            f"{limit / 1e9:.3g} GB; set {LIMIT} to a larger number, or {FOLDER} to another folder"
        )


def _folders(root: Path) -> Iterator[Path]:
    """Yield what can be removed as a whole: copies of a URI, sweeps, data sets, teachers and their outputs."""
    for pattern in ("*", f"{SWEEPS}/*/*/*", f"{SWEEPS}/*/.cache/*/*"):
        for folder in root.glob(pattern):
            if folder.is_dir() and folder.name != SWEEPS and folder.parent.name not in (".cache", ".tags"):
                yield folder


def _limit_bytes() -> float:
    text = os.environ.get(LIMIT) or str(DEFAULT_GB)
    try:
        limit = float(text)
    except ValueError:
        limit = -1.0
    if not 0 < limit < 1e9:
        raise InputError(f"{LIMIT}: found {text!r}; accepted: a number above 0, the size of the cache in 1e9 bytes")
    return limit * 1e9


def _last_use(folder: Path) -> float:
    try:
        return (folder / _USED).stat().st_mtime
    except OSError:
        return folder.stat().st_mtime if folder.exists() else 0.0


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total
