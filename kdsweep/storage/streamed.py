"""Single objects of a folder in an object store, each fetched when a node first needs it and kept in its cache.

An object is named by a reference: its URI with the tag and the size that it had when the folder was listed. A reference
means the same on every node; the local copies are below one folder of the cache for each URI.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from filelock import FileLock

from kdsweep.errors import DataError, InputError
from kdsweep.storage.bucket import AT_ONCE, bucket
from kdsweep.storage.cache import cache_root, make_room, note_use
from kdsweep.storage.files import partial_of
from kdsweep.storage.places import Place, reason_of

LOOK_AGAIN_SECONDS = 600  # how long a process assumes that the objects at a URI are as they were: listing takes minutes
AHEAD = 4  # groups of objects that are fetched before they are asked for


@dataclass(frozen=True)
class Listing:
    """The objects below a URI.

    Attributes:
        place: The URI.
        references: The references of the objects by their names relative to the URI.
    """

    place: Place
    references: dict[str, str]


def listing_of(place: Place, what: str) -> Listing:
    """List the objects below a URI.

    Args:
        place: The URI.
        what: What should be there, for the error.

    Raises:
        InputError: If there is nothing, or it cannot be read.
    """
    return _listed(place, what, int(time.monotonic() // LOOK_AGAIN_SECONDS))


@lru_cache(maxsize=4)
def _listed(place: Place, what: str, now: int) -> Listing:
    try:
        found = bucket(place.text).listed("")
    except OSError as error:
        raise InputError(f"{place}: cannot be read: {reason_of(error)}") from error
    if not found:
        raise InputError(f"{place}: no such {what}; accepted: a URI with objects, which the credentials can list")
    tagged = ((name, one.tag.strip('"'), one.size) for name, one in found.items())
    return Listing(place, {name: f"{place.text}#{tag}:{size}#{name}" for name, tag, size in tagged})


@dataclass(frozen=True)
class Reference:
    """A reference, in its parts.

    Attributes:
        root: The URI of the folder.
        tag: The tag of the object.
        size: Its size in bytes.
        name: Its name relative to the URI.
    """

    root: str
    tag: str
    size: int
    name: str

    @classmethod
    def of(cls, text: str) -> Reference:
        """Read a reference."""
        root, told, name = text.split("#", 2)
        tag, _, size = told.rpartition(":")
        return cls(root, tag, int(size), name)

    @property
    def uri(self) -> str:
        """The URI of the object."""
        return str(Place(self.root, self.root) / self.name)

    @property
    def path(self) -> Path:
        """Where the local copy is, or will be."""
        key = hashlib.sha256(f"{self.tag}#{self.name}".encode()).hexdigest()[:32]
        return folder_of(self.root) / "objects" / key[:2] / f"{key}{PurePosixPath(self.name).suffix.lower()}"

    @contextmanager
    def named(self) -> Iterator[Path]:
        """Yield the path; name the object by its URI in errors about it."""
        try:
            yield self.path
        except DataError as error:
            raise DataError(str(error).replace(str(self.path), self.uri)) from error


def is_reference(text: str) -> bool:
    """Whether a text is a reference, and not a local path."""
    return "://" in text.partition("#")[0]


def folder_of(root: str) -> Path:
    """Return the folder of the cache for the objects of a URI."""
    return cache_root() / hashlib.sha256(f"streamed {root}".encode()).hexdigest()[:32]


def fetched(text: str) -> Path:
    """Return the local copy of an object, which is fetched if it is not there.

    Raises:
        DataError: If the object is gone, or has changed since it was listed.
        StoreError: If the store does not answer.
    """
    one = Reference.of(text)
    path = one.path
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.parent / ".lock"):  # all trials of a node need the same objects at about the same time
        if path.is_file():
            return path
        found = bucket(one.root).get(one.name)
        if found is None or found[1].strip('"') != one.tag:
            how = "is gone" if found is None else "has changed"
            raise DataError(f"{one.uri}: the object {how} since {one.root} was listed; accepted: images that stay")
        partial = partial_of(path)
        partial.write_bytes(found[0])
        partial.replace(path)
    return path


def need_room(texts: Iterable[str]) -> None:
    """Make room in the cache for the objects that are not there yet.

    Raises:
        InputError: If they do not fit.
    """
    missing: dict[str, int] = {}
    for one in map(Reference.of, filter(is_reference, texts)):
        if not one.path.is_file():
            missing[one.root] = missing.get(one.root, 0) + one.size
    for root, size in missing.items():
        folder_of(root).mkdir(parents=True, exist_ok=True)
        note_use(folder_of(root))
        make_room(size, root)


def bring(texts: Sequence[str]) -> None:
    """Fetch the objects among local paths and references.

    Raises:
        InputError: If they do not fit into the cache.
        DataError: As `fetched`.
        StoreError: Likewise.
    """
    need_room(texts)
    wanted = [text for text in texts if is_reference(text)]
    for _ in ahead([wanted[start : start + AT_ONCE] for start in range(0, len(wanted), AT_ONCE)]):
        pass


def ahead(groups: Sequence[Collection[str]]) -> Iterator[int]:
    """Yield the number of each group of references once all of its objects are there, while the next ones are fetched.

    Raises:
        DataError: As `fetched`.
        StoreError: Likewise.
    """
    roots = {Reference.of(text).root for group in groups for text in group}
    pool = ThreadPoolExecutor(AT_ONCE)
    waiting: list[list[Future[Path]]] = []
    try:
        for number in range(len(groups)):
            while len(waiting) <= AHEAD and (following := number + len(waiting)) < len(groups):
                waiting.append([pool.submit(fetched, text) for text in groups[following]])
            for one in waiting.pop(0):
                one.result()
            for root in roots:
                note_use(folder_of(root))
            yield number
    finally:
        pool.shutdown(cancel_futures=True)
