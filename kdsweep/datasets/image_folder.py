"""Image folders: root/{train,val,test}/CLASS/IMAGE, with each split laid out as for torchvision's ImageFolder.

All images are converted to RGB. Transparency is dropped, and only the first frame of an animation is read. As in
torchvision, EXIF orientation is ignored. Classes are sorted by name and images by path; hidden entries and other files
are skipped; symbolic links are followed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdsweep.datasets.base import Dataset, DatasetInfo, Source, Split, register
from kdsweep.datasets.images import fault_of, in_threads, opened, pixels
from kdsweep.errors import DataError
from kdsweep.storage.hashes import FileHashes

SPLITS = ("train", "val", "test")
LAYOUT = "ROOT/{train,val,test}/CLASS/IMAGE"
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")


def _inspect(source: Source) -> DatasetInfo:
    root = source.root
    if not os.path.isdir(root):
        raise DataError(f"{root}: no such directory; accepted: a dataset.root laid out as {LAYOUT}")
    splits = tuple(split for split in SPLITS if os.path.isdir(root / split))
    if "train" not in splits:
        raise DataError(f"{root}: train/ is missing; accepted: a dataset.root laid out as {LAYOUT}")
    classes = folders_in(root / "train")
    if len(classes) < 2:
        found = f"only the class folder {classes[0]!r}" if classes else "no class folders"
        raise DataError(f"{root / 'train'}: {found}; accepted: at least 2, laid out as {LAYOUT}")
    for split in splits[1:]:
        _refuse_other_classes(root / split, classes)
    width, height = size_of_first(images_in(root / "train" / classes[0]), source.skip_unreadable)
    return DatasetInfo((3, height, width), classes, splits=splits)


def size_of_first(paths: list[Path], skip: bool) -> tuple[int, int]:
    """Return (width, height) of the first image, or of the first one that can be read."""
    first = next((path for path in paths if not fault_of(path, None, decode=True)), paths[0]) if skip else paths[0]
    with opened(first) as image:
        return image.size


def _list_files(source: Source, split: str) -> Split:
    classes = folders_in(source.root / "train")
    by_class = [images_in(source.root / split / name) for name in classes]
    if source.skip_unreadable:
        by_class = [_readable(source, paths) for paths in by_class]
    labels = np.repeat(np.arange(len(by_class)), [len(paths) for paths in by_class])
    return Split(np.array([str(path) for paths in by_class for path in paths]), labels)


def _readable(source: Source, paths: list[Path]) -> list[Path]:
    """Return the files of one class that can be read."""
    return [path for path, fault in zip(paths, _faults(source, paths), strict=True) if not fault]


def _check(source: Source, split: str) -> list[str]:
    classes = (images_in(source.root / split / name) for name in folders_in(source.root / "train"))
    return [fault for paths in classes for fault in _faults(source, paths) if fault]


def _faults(source: Source, paths: list[Path]) -> list[str]:
    _, height, width = _inspect(source).input_shape
    return faults_of(source, paths, (width, height))


def faults_of(source: Source, paths: list[Path], first: tuple[int, int]) -> list[str]:
    """Return why each file cannot be read; empty strings for files that can be read.

    Args:
        source: Where the data set is stored.
        paths: Files, of one class if there are classes.
        first: Width and height of the first image.

    Raises:
        DataError: If unreadable files are to be skipped, and no file would be left.
    """
    size = None if source.resize else first
    faults = [""] * len(paths)

    def check(index: int) -> None:
        faults[index] = fault_of(paths[index], size, decode=source.skip_unreadable)

    with listing(source.root):
        in_threads(check, len(paths))
    if source.skip_unreadable and all(faults):
        raise DataError(f"{paths[0].parent}: none of the {len(paths)} images can be read; accepted: at least one")
    return faults


def read_file(path: str, resize: int, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Read an image as uint8 [3, H, W] of that shape.

    Raises:
        DataError: If it cannot be read, or has another size and is not resized.
    """
    _, height, width = shape
    with opened(Path(path)) as image:
        if not resize and image.size != (width, height):
            raise DataError(
                f"{path}: {image.height} x {image.width} pixels, but the first image of train/ "
                f"has {height} x {width}; use images of one size, or set dataset.resize"
            )
        return pixels(image, 3, resize, path)


def _read(source: Source, split: str) -> Split:
    _, height, width = _inspect(source).input_shape
    paths, labels = _list_files(source, split)
    return Split(decoded(source, split, paths, (height, width)), labels)


def decoded(source: Source, split: str, paths: NDArray[np.str_], first: tuple[int, int]) -> NDArray[np.uint8]:
    """Read images as uint8 [N, 3, H, W].

    Args:
        source: Where the data set is stored.
        split: Name of the split in error messages.
        paths: Files.
        first: Height and width of the first image.

    Raises:
        DataError: If one cannot be read, or memory does not suffice.
    """
    shape = (3, source.resize or first[0], source.resize or first[1])
    images = room(len(paths), shape, source.root / split)

    def read(index: int) -> None:
        images[index] = read_file(paths[index], source.resize, shape)

    in_threads(read, len(paths))
    return images


def _content(source: Source, split: str) -> list[str]:
    paths, labels = _list_files(source, split)
    return [f"{found}-{label}" for found, label in zip(hashed(source, paths), labels, strict=True)]


def hashed(source: Source, paths: NDArray[np.str_]) -> list[str]:
    """Hash files; names and modification times do not matter, only the order."""
    found = [""] * len(paths)
    hashes = FileHashes(source.hashes)

    def read(index: int) -> None:
        found[index] = hashes.of(Path(paths[index]))

    with listing(source.root):
        in_threads(read, len(paths))
    hashes.save()
    return found


def room(count: int, shape: tuple[int, int, int], folder: Path) -> NDArray[np.uint8]:
    """Allocate an array for decoded images, if memory suffices for it and the copy made when splitting."""
    need, there = 2 * count * math.prod(shape), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        if need > there:
            raise MemoryError
        return np.empty((count, *shape), np.uint8)
    except MemoryError as error:
        found = f"decoding {count} images of {shape[1]} x {shape[2]} needs {need / 1e9:.1f} GB"
        remedy = "set dataset.stream to true or use a smaller dataset.resize"
        raise DataError(f"{folder}: {found}, and this machine has {there / 1e9:.1f} GB; {remedy}") from error


def folders_in(folder: Path) -> tuple[str, ...]:
    """List the names of the folders in a folder, sorted."""
    with listing(folder):
        names = [name for name in os.listdir(folder) if _shows(name) and (folder / name).is_dir()]
    return tuple(sorted(names))


def _refuse_other_classes(folder: Path, classes: tuple[str, ...]) -> None:
    found = folders_in(folder)
    missing, foreign = sorted(set(classes) - set(found)), sorted(set(found) - set(classes))
    said = [f"lacks {_some(missing)}"] * bool(missing) + [f"train/ lacks {_some(foreign)}"] * bool(foreign)
    if said:
        raise DataError(f"{folder}: {' and '.join(said)}; accepted: the same class folders in every split")


def _some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


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
        raise DataError(f"{folder}: no images; accepted: at least one {', '.join(SUFFIXES)} file")
    return sorted(found)


def _shows(name: str) -> bool:
    return not name.startswith(".")


def _raise(error: OSError) -> None:
    raise error


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


register(
    Dataset(
        "image_folder",
        f"your own images, laid out as {LAYOUT}",
        _inspect,
        _read,
        list_files=_list_files,
        read_file=read_file,
        content=_content,
        check=_check,
    )
)
