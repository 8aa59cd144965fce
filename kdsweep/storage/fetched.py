"""Local copies of files and folders in object stores, each fetched once and kept within a size limit."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from kdsweep.errors import InputError
from kdsweep.storage.cache import cache_root, make_room, note_use
from kdsweep.storage.places import Place, reason_of

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

LOOK_AGAIN_SECONDS = 60  # how long a process assumes that the objects at a URI are as they were


def local_copy(place: str | Path | Place, what: str = "file or folder") -> Path:
    """Return the local path of a place; of a URI, that of a copy in the cache.

    A copy is found by the URI and by the names, sizes and times of change of its objects, so that a changed object is
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
        files: The store.
        path: Its path in the store.
        objects: The files by their relative name; a single file has its own name.
        is_folder: Whether it is a folder.
    """

    place: Place
    files: FileSystem
    path: str
    objects: dict[str, FileInfo]
    is_folder: bool

    @classmethod
    def at(cls, place: Place, what: str) -> _Remote:
        from pyarrow.fs import FileSelector, FileType

        files, path = place.opened()
        info = files.get_file_info(path)
        if info.type == FileType.File:
            return cls(place, files, path, {place.name: info}, is_folder=False)
        found = files.get_file_info(FileSelector(path, recursive=True, allow_not_found=True))
        objects = {one.path[len(path) :].lstrip("/"): one for one in found if one.type == FileType.File}
        if not objects:
            raise InputError(f"{place}: no such {what}; accepted: a URI with objects, which the credentials can list")
        for name in objects:
            if ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute():
                raise InputError(f"{place}: an object is called {name!r}; accepted: names that stay in their folder")
        return cls(place, files, path, objects, is_folder=True)

    @property
    def size(self) -> int:
        return sum(info.size for info in self.objects.values())

    @property
    def digest(self) -> str:
        told = "\n".join(f"{name} {info.size} {info.mtime_ns}" for name, info in sorted(self.objects.items()))
        return hashlib.sha256(f"{self.place.text}\n{told}".encode()).hexdigest()[:32]

    def copied(self) -> Path:
        folder = cache_root() / self.digest
        if not folder.is_dir():
            make_room(self.size, self.place)
            self._fetch(folder)
        note_use(folder)
        content = folder / "content"
        return content if self.is_folder else content / self.place.name

    def _fetch(self, folder: Path) -> None:
        """Copy everything to a temporary folder, which then takes the name of the final one."""
        from pyarrow.fs import LocalFileSystem, copy_files

        partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            (partial / "content").mkdir(parents=True)
            target = partial / "content" if self.is_folder else partial / "content" / self.place.name
            copy_files(self.path, str(target), source_filesystem=self.files, destination_filesystem=LocalFileSystem())
            there = sum(1 for path in partial.rglob("*") if path.is_file())
            if there != len(self.objects):
                raise OSError(f"{there} of {len(self.objects)} objects were copied")
            try:
                partial.rename(folder)
            except OSError:
                if not folder.is_dir():  # otherwise another process has fetched it meanwhile
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
