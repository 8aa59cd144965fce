"""Local copies of files and folders in object stores, each fetched once and kept within a size limit."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from kdsweep.errors import InputError
from kdsweep.storage.bucket import AT_ONCE, Found, bucket, split
from kdsweep.storage.cache import cache_root, make_room, note_use
from kdsweep.storage.places import Place, reason_of

LOOK_AGAIN_SECONDS = 60  # how long a process assumes that the objects at a URI are as they were


def local_copy(place: str | Path | Place, what: str = "file or folder") -> Path:
    """Return the local path of a place; of a URI, that of a copy in the cache.

    A copy is found by the URI and by the names, sizes and tags of its objects, so that a changed object is
    fetched again. Copies that were not used for longest are removed when the cache exceeds its limit.

    Args:
        place: The place.
        what: What should be there, for the error.

    Raises:
        InputError: If there is nothing at a URI, if it cannot be read, or if it does not fit into the cache.
    """
    place = Place.of(place)
    if not place.is_remote:
        return Path(place.text)
    now = int(time.monotonic() // LOOK_AGAIN_SECONDS)
    path = _copied(place, what, now)
    if not path.exists():  # removed meanwhile, to make room
        _copied.cache_clear()
        path = _copied(place, what, now)
    return path


@contextmanager
def copied(place: str | Path | Place, what: str) -> Iterator[Path]:
    """Yield the local path of a place, as `local_copy`; errors about a copy name the URI instead.

    Raises:
        InputError: As `local_copy`.
    """
    path = local_copy(place, what)
    try:
        yield path
    except InputError as error:
        place = Place.of(place)
        if place.is_remote:
            error.args = (str(error).replace(str(path), str(place)),)
        raise


@lru_cache(maxsize=64)
def _copied(place: Place, what: str, now: int) -> Path:
    """Copy a place, unless the same was done at about the same time: a sweep asks often for the place of its data."""
    try:
        return _Remote.at(place, what).copied()
    except OSError as error:
        raise InputError(f"{place}: cannot be read: {reason_of(error)}") from error


@dataclass(frozen=True)
class _Remote:
    """A file, or a folder with all files below it, in an object store.

    Attributes:
        place: Where it is.
        folder: The URI of the folder; of a single file, that of the folder that it is in.
        objects: The files by their name relative to the folder.
    """

    place: Place
    folder: str
    objects: dict[str, Found]

    @classmethod
    def at(cls, place: Place, what: str) -> _Remote:
        folder, name = split(place.text)
        if not place.is_bucket and (one := bucket(folder).head(name)) is not None:
            return cls(place, folder, {name: one})
        objects = bucket(place.text).listed("")
        if not objects:
            raise InputError(f"{place}: no such {what}; accepted: a URI with objects, which the credentials can list")
        return cls(place, place.text, objects)

    @property
    def size(self) -> int:
        return sum(found.size for found in self.objects.values())

    @property
    def digest(self) -> str:
        told = "\n".join(f"{name} {found.size} {found.tag}" for name, found in sorted(self.objects.items()))
        return hashlib.sha256(f"{self.place.text}\n{told}".encode()).hexdigest()[:32]

    def copied(self) -> Path:
        folder = cache_root() / self.digest
        if not folder.is_dir():
            make_room(self.size, self.place)
            self._fetch(folder)
        note_use(folder)
        content = folder / "content"
        return content if self.folder == self.place.text else content / self.place.name

    def _fetch(self, folder: Path) -> None:
        """Copy everything to a temporary folder, which then takes the name of the final one."""
        partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            for parent in {(partial / "content" / name).parent for name in self.objects}:
                parent.mkdir(parents=True, exist_ok=True)
            with ThreadPoolExecutor(AT_ONCE) as pool:
                whole = list(pool.map(lambda name: self._download(name, partial / "content" / name), self.objects))
            if not all(whole):
                raise OSError(f"{sum(whole)} of {len(whole)} objects were copied")
            try:
                partial.rename(folder)
            except OSError:
                if not folder.is_dir():  # otherwise another process has fetched it meanwhile
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _download(self, name: str, path: Path) -> bool:
        return bucket(self.folder).download(name, self.objects[name].size, path)
