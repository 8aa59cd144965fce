"""Folders of images in classes: on a disk, or objects in a store of which each is fetched when it is needed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol

from kdsweep.datasets.images import fault_of, in_threads, opened
from kdsweep.errors import DataError
from kdsweep.storage.hashes import FileHashes
from kdsweep.storage.streamed import Listing, Reference, bring

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")


class Tree(Protocol):
    """A folder with images in classes."""

    def named(self, *parts: str) -> str:
        """Return the name of what is below, for messages."""

    def has(self, *parts: str) -> bool:
        """Whether there is a folder of this name below."""

    def folders(self, split: str) -> tuple[str, ...]:
        """Return the names of the folders in a split, sorted, without hidden ones."""

    def images(self, *parts: str) -> list[str]:
        """List the images in a folder below, such as a class of a split, sorted by path.

        Raises:
            DataError: If there are none, or the folder cannot be read.
        """

    def opened(self, image: str) -> AbstractContextManager[Image.Image]:
        """Open an image, as `images.opened`."""

    def faults(self, images: Sequence[str], size: tuple[int, int] | None, decode: bool) -> list[str]:
        """Return why each image cannot be read, as `images.fault_of`; empty strings for others."""

    def digests(self, images: Sequence[str], hashes: Path | None) -> list[str]:
        """Return a digest of the content of each image.

        Args:
            images: The images.
            hashes: JSON file that remembers them.
        """


class LocalTree:
    """A folder on a disk.

    Args:
        root: Its path.
    """

    def __init__(self, root: Path):
        self._root = root

    def named(self, *parts: str) -> str:
        """Return the path of what is below."""
        return str(self._root.joinpath(*parts))

    def has(self, *parts: str) -> bool:
        """Whether it is a folder."""
        return os.path.isdir(self._root.joinpath(*parts))

    def folders(self, split: str) -> tuple[str, ...]:
        """Return the names of the folders in a split."""
        folder = self._root / split
        with listing(folder):
            names = [name for name in os.listdir(folder) if _shows(name) and (folder / name).is_dir()]
        return tuple(sorted(names))

    def images(self, *parts: str) -> list[str]:
        """List the paths of a folder."""
        return [str(path) for path in images_in(self._root.joinpath(*parts))]

    def opened(self, image: str) -> AbstractContextManager[Image.Image]:
        """Open the file."""
        return opened(Path(image))

    def faults(self, images: Sequence[str], size: tuple[int, int] | None, decode: bool) -> list[str]:
        """Look at each file."""
        faults = [""] * len(images)

        def check(index: int) -> None:
            faults[index] = fault_of(Path(images[index]), size, decode=decode)

        with listing(self._root):
            in_threads(check, len(images))
        return faults

    def digests(self, images: Sequence[str], hashes: Path | None) -> list[str]:
        """Hash each file; names and modification times do not matter, only the order."""
        found, known = [""] * len(images), FileHashes(hashes)

        def read(index: int) -> None:
            found[index] = known.of(Path(images[index]))

        with listing(self._root):
            in_threads(read, len(images))
        known.save()
        return found


class StreamedTree:
    """Objects in a store. What the listing does not tell, such as whether an image can be read, shows in training.

    Args:
        listing: The objects.
    """

    def __init__(self, listing: Listing):
        self._listing = listing
        self._by_class: dict[str, dict[str, list[PurePosixPath]]] = {}
        for name in map(PurePosixPath, listing.references):
            if len(name.parts) > 2 and all(map(_shows, name.parts)):
                self._by_class.setdefault(name.parts[0], {}).setdefault(name.parts[1], []).append(name)

    def named(self, *parts: str) -> str:
        """Return the URI of what is below."""
        place = self._listing.place
        for part in parts:
            place = place / part
        return str(place)

    def has(self, *parts: str) -> bool:
        """Whether there are objects below; the root itself has some."""
        return not parts or parts[0] in self._by_class

    def folders(self, split: str) -> tuple[str, ...]:
        """Return the second parts of the names in a split."""
        return tuple(sorted(self._by_class.get(split, ())))

    def images(self, *parts: str) -> list[str]:
        """List the references of a class; parts are its split and its name."""
        split, name = parts
        found = [one for one in self._by_class[split][name] if one.suffix.lower() in SUFFIXES]
        if not found:
            raise no_images(self.named(split, name))
        return [self._listing.references[str(one)] for one in sorted(found)]

    @contextmanager
    def opened(self, image: str) -> Iterator[Image.Image]:
        """Fetch the object, and open it."""
        bring([image])
        with Reference.of(image).named() as path, opened(path) as found:
            yield found

    def faults(self, images: Sequence[str], size: tuple[int, int] | None, decode: bool) -> list[str]:
        """Return that there are none: nothing is fetched to find out."""
        return [""] * len(images)

    def digests(self, images: Sequence[str], hashes: Path | None) -> list[str]:
        """Return the store's own tags, which change with the content."""
        return [f"{one.tag}-{one.size}" for one in map(Reference.of, images)]


def images_in(folder: Path) -> list[Path]:
    """List the images below a folder, sorted by path.

    Raises:
        DataError: If there are none, or the folder cannot be read.
    """
    found: list[Path] = []
    seen: set[Path] = set()
    with listing(folder):
        for parent, folders, names in os.walk(folder, followlinks=True, onerror=_raise):
            here = Path(parent)
            if (real := here.resolve()) in seen:  # a link to a parent
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(filter(_shows, folders))
            found += [here / name for name in names if _shows(name) and name.lower().endswith(SUFFIXES)]
    if not found:
        raise no_images(str(folder))
    return sorted(found)


def no_images(folder: str) -> DataError:
    """Return the error for a folder without images."""
    return DataError(f"{folder}: no images; accepted: at least one {', '.join(SUFFIXES)} file")


@contextmanager
def listing(folder: Path) -> Iterator[None]:
    """Report an operating-system error as one about a folder.

    Raises:
        DataError: If there is one.
    """
    try:
        yield
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error}") from error


def _shows(name: str) -> bool:
    return not name.startswith(".")


def _raise(error: OSError) -> None:
    raise error
