"""Sweeps that are stored in an object store, and what of them lies on this machine.

Every process works on local files below `Mirror.root`; what it writes as a whole is uploaded at once. The driver's logs
become segments (see `segments`). Nothing lies only here, so the cache may remove everything.

    ROOT/driver/NAME/...     <->  URI/NAME/...      the driver's own files of a sweep
    ROOT/copy/NAME/...       <->  URI/NAME/...      those of workers and readers on this machine
    ROOT/.cache/...          <->  URI/.cache/...    data sets, teachers and their outputs, by hashes of their content
    ROOT/.tags/...                                  which version of an object a local file is
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path, PurePosixPath

from filelock import FileLock

from kdsweep.errors import SweepDirError
from kdsweep.storage import following, segments
from kdsweep.storage.bucket import Bucket, Found, bucket
from kdsweep.storage.cache import SWEEPS, cache_root, make_room, note_use
from kdsweep.storage.driver_lease import NAME as LEASE
from kdsweep.storage.segments import FOLDER as LOG
from kdsweep.storage.segments import Logs, SegmentWriter

DRIVER, COPY, CACHE, TAGS = "driver", "copy", ".cache", ".tags"
AT_ONCE = 8
SETTLED_SECONDS = 60.0
UPLOADED = ("teachers", "outputs", "objects")  # of the cache; data sets are published, the rest is of this machine
RUNS = ("trials", "confirmed")
_NOT_UPLOADED = (".lock", ".tune", LOG, LEASE)


def is_told(name: str) -> bool:
    """Whether a file of a sweep is one that results are read from: no states, weights and reports."""
    folder, _, rest = name.partition("/")
    if folder in ("tensorboard", RUNS[0]) and rest:
        return False
    return folder != "report.html" and not name.endswith((".safetensors", ".txt"))


def is_needed(name: str) -> bool:
    """Whether a file of a sweep is one that every worker reads."""
    return name in ("spec.yaml", "data.json", "probe.json") or name.startswith(("teacher/", "teachers/", "latency/"))


def is_log(name: str) -> bool:
    """Whether a file of a sweep is a log, which segments tell."""
    return name == "study.journal" or name.endswith(".jsonl")


def is_any(name: str) -> bool:
    """Return True."""
    return True


class Mirror:
    """The local side of a storage in an object store. `mirror_of` returns the one of a URI.

    Args:
        uri: The storage.

    Attributes:
        uri: The storage.
        root: The local folder.
        logs: Writes the logs of the sweep that this process drives; None if it drives none.
    """

    def __init__(self, uri: str):
        self.uri = uri
        self.root = cache_root() / SWEEPS / hashlib.sha256(uri.encode()).hexdigest()[:16]
        self.logs: SegmentWriter | None = None

    @property
    def bucket(self) -> Bucket:
        """The objects."""
        return bucket(self.uri)

    def drives(self, folder: Path) -> bool:
        """Whether this process is the driver of the sweep whose local folder this is."""
        return self._logs_of(folder) is not None

    def uri_of(self, path: Path) -> str:
        """Return the URI of a local file."""
        return self.bucket.at(self._key_of_folder(path))

    # What `following` tells

    def written(self, path: Path) -> None:
        """Upload a file. What only the next worker of a trial needs is not kept here."""
        key = self._key(path)
        if key is None:
            return
        if (logs := self._logs_of(path)) and logs.failed:
            raise logs.failed
        tag = self.bucket.put(key, path)
        parts = path.relative_to(self.root).parts
        if parts[0] == COPY and parts[2] in RUNS and path.suffix != ".json":
            path.unlink(missing_ok=True)
        else:
            self._note(path, tag)

    def grown(self, path: Path) -> None:
        """Let the next segment have the lines that were appended to a log."""
        if logs := self._logs_of(path):
            logs.grown(path)

    def closed(self, path: Path) -> None:
        """Write a segment now."""
        if logs := self._logs_of(path):
            logs.grown(path)
            logs.flush()

    def removed(self, path: Path, is_folder: bool) -> None:
        """Remove objects; those of a trial only once the logs tell that it has ended."""
        key, logs = self._key(path), self._logs_of(path)
        if key is None:
            return
        key += "/" * is_folder
        self._tag_file(path).unlink(missing_ok=True)
        if logs and logs.is_log(path):
            logs.cut(path)
        elif logs and path.relative_to(self.root).parts[2] == RUNS[0]:
            logs.remove_later([key])
        else:
            self.bucket.delete(self.bucket.listed(key) if is_folder else [key])

    def fetch(self, path: Path) -> None:
        """Bring a file up to date."""
        key = self._key(path)
        if key is None:
            return
        found = self.bucket.head(key)
        if found is None:
            path.unlink(missing_ok=True)
        elif not self._is_current(path, found):
            self._download(key, found, path)

    def fetch_folder(self, path: Path) -> None:
        """Bring the files of a folder up to date; keep those that the store does not have."""
        self.sync(path, is_any)

    def publish(self, path: Path) -> None:
        """Upload the files of a folder that are not there, or were written since they were uploaded."""
        there = self.bucket.listed(self._key_of_folder(path))
        for file in sorted(path.rglob("*")):
            if not file.is_file() or _is_partial(file):
                continue
            key, tag = self._key_of_folder(file), self._tag_file(file)
            same = key in there and self._is_current(file, there[key])
            if not same or file.stat().st_mtime_ns > tag.stat().st_mtime_ns:
                self._note(file, self.bucket.put(key, file))

    # Whole folders

    def sync(self, folder: Path, include: Callable[[str], bool], drop: Callable[[str], bool] | None = None) -> None:
        """Bring a folder up to date. Processes of this machine take turns, so that each object is fetched once.

        Args:
            folder: The local folder.
            include: Whether a file is wanted, by its name relative to the folder.
            drop: Which of the wanted files are removed if the store does not have them; None keeps all.
        """
        prefix = self._key_of_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        note_use(self._unit(folder))
        with FileLock(self.root / ".fetch.lock"):
            listed = self.bucket.listed(prefix)
            found = {key.removeprefix(f"{prefix}/"): (key, one) for key, one in listed.items()}
            wanted = {
                name: one
                for name, one in found.items()
                if include(name) and self._is_mirrored(folder / _safe(name, self.uri))
            }
            missing = {name: one for name, one in wanted.items() if not self._is_current(folder / name, one[1])}
            if missing:
                make_room(sum(one.size for _, one in missing.values()), self.bucket.at(prefix))
            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(lambda name: self._download(*missing[name], folder / name), missing))
            for file in sorted(folder.rglob("*")) if drop else ():
                name = str(file.relative_to(folder))
                if name not in found and include(name) and drop and drop(name) and self._is_mirrored(file):
                    _remove(file)

    def restore_logs(self, folder: Path) -> None:
        """Write the logs of a sweep into a reader's folder of it, if they have changed."""
        name, state = folder.name, folder / LOG
        with FileLock(self.root / ".fetch.lock"):
            if state.is_file() and state.read_text() == segments.state_of(self.bucket, name):
                return
            logs = segments.read_logs(self.bucket, name)
            self.write_logs(folder, logs)
            state.write_text(logs.state)

    def forget_log(self, path: Path) -> None:
        """Remove a log from a reader's folder of a sweep; the next reader restores all of them."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / ".fetch.lock"):
            (path.parent / LOG).unlink(missing_ok=True)
            path.unlink(missing_ok=True)

    def write_logs(self, folder: Path, logs: Logs) -> None:
        """Write logs as files."""
        for name, content in logs.content.items():
            path = folder / _safe(name, self.uri)
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = _partial(path)
            partial.write_bytes(content)
            partial.replace(path)

    def _download(self, key: str, found: Found, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = _partial(path)
        try:
            if self.bucket.download(key, found.size, partial):
                partial.replace(path)
                self._note(path, found.tag)
        finally:
            partial.unlink(missing_ok=True)

    def _logs_of(self, path: Path) -> SegmentWriter | None:
        return self.logs if path.is_relative_to(self.root / DRIVER) else None

    def _is_mirrored(self, path: Path) -> bool:
        return self._key(path) is not None or path.is_relative_to(self.root / CACHE)

    def _key(self, path: Path) -> str | None:
        """The key of a file that is uploaded when it is written; None if it is not."""
        parts = path.relative_to(self.root).parts
        if parts[0] == CACHE and len(parts) > 2 and parts[1] in UPLOADED and not _is_partial(path):
            return "/".join(parts)
        if parts[0] in (DRIVER, COPY) and len(parts) > 2 and parts[2] not in _NOT_UPLOADED and not _is_partial(path):
            return "/".join(parts[1:])
        return None

    def _key_of_folder(self, folder: Path) -> str:
        parts = folder.relative_to(self.root).parts
        return "/".join(parts if parts[0] == CACHE else parts[1:])

    def _unit(self, folder: Path) -> Path:
        """What the cache removes as a whole."""
        parts = folder.relative_to(self.root).parts
        return self.root.joinpath(*parts[: 3 if parts[0] == CACHE else 2])

    def _is_current(self, path: Path, found: Found) -> bool:
        try:
            return path.is_file() and self._tag_file(path).read_text() == found.tag
        except OSError:
            return False

    def _note(self, path: Path, tag: str) -> None:
        file = self._tag_file(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(tag)

    def _tag_file(self, path: Path) -> Path:
        return self.root / TAGS / path.relative_to(self.root)


@lru_cache(maxsize=16)
def mirror_of(uri: str) -> Mirror:
    """Return the mirror of a storage, which follows what this process writes below its local folder."""
    mirror = Mirror(uri)
    following.follow(mirror.root, mirror)
    return mirror


def is_settled(path: Path) -> bool:
    """Whether no process of this machine can be about to upload a file."""
    try:
        return time.time() - path.stat().st_mtime > SETTLED_SECONDS
    except OSError:
        return False


def _remove(path: Path) -> None:
    if path.is_file():
        path.unlink(missing_ok=True)


def _is_partial(path: Path) -> bool:
    return path.suffix in (".partial", ".lock", ".claim") or path.name == ".used"


def _partial(path: Path) -> Path:
    """A file of this process and thread beside another one."""
    return path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.partial")


def _safe(name: str, uri: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise SweepDirError(f"{uri}: an object is called {name!r}; accepted: names that stay in their folder")
    return path
