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
from kdsweep.datasets.images import in_threads, opened, pixels
from kdsweep.errors import DataError
from kdsweep.seeds import digest_of

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
    classes = _classes(root / "train")
    if len(classes) < 2:
        found = f"only the class folder {classes[0]!r}" if classes else "no class folders"
        raise DataError(f"{root / 'train'}: {found}; accepted: at least 2, laid out as {LAYOUT}")
    for split in splits[1:]:
        _refuse_other_classes(root / split, classes)
    with opened(_images(root / "train" / classes[0])[0]) as first:
        width, height = first.size
    return DatasetInfo((3, height, width), classes, splits=splits)


def _list_files(source: Source, split: str) -> Split:
    classes = _classes(source.root / "train")
    by_class = [_images(source.root / split / name) for name in classes]
    labels = np.repeat(np.arange(len(by_class)), [len(paths) for paths in by_class])
    return Split(np.array([str(path) for paths in by_class for path in paths]), labels)


def _read_file(path: str, resize: int, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
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
    shape = (3, source.resize or height, source.resize or width)
    paths, labels = _list_files(source, split)
    images = _room(len(paths), shape, source.root / split)

    def read(index: int) -> None:
        images[index] = _read_file(paths[index], source.resize, shape)

    in_threads(read, len(paths))
    return Split(images, labels)


def _content(source: Source) -> dict[str, str]:
    """Hash of the files' names, sizes and modification times, so that a changed folder is decoded again."""
    found: list[list[str | int]] = []
    seen: set[str] = set()
    for split in SPLITS:
        for parent, folders, names in os.walk(source.root / split, followlinks=True):
            if (real := os.path.realpath(parent)) in seen:  # a link that leads back up
                folders.clear()
                continue
            seen.add(real)
            for path in (Path(parent, name) for name in names):
                if path.is_file():
                    found.append([str(path.relative_to(source.root)), path.stat().st_size, path.stat().st_mtime_ns])
    return {"files": digest_of(sorted(found))}


def _room(count: int, shape: tuple[int, int, int], folder: Path) -> NDArray[np.uint8]:
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


def _classes(folder: Path) -> tuple[str, ...]:
    with _listing(folder):
        names = [name for name in os.listdir(folder) if _shows(name) and (folder / name).is_dir()]
    return tuple(sorted(names))


def _refuse_other_classes(folder: Path, classes: tuple[str, ...]) -> None:
    found = _classes(folder)
    missing, foreign = sorted(set(classes) - set(found)), sorted(set(found) - set(classes))
    said = [f"lacks {_some(missing)}"] * bool(missing) + [f"train/ lacks {_some(foreign)}"] * bool(foreign)
    if said:
        raise DataError(f"{folder}: {' and '.join(said)}; accepted: the same class folders in every split")


def _some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _images(folder: Path) -> list[Path]:
    """List the images of one class, including subfolders."""
    found: list[Path] = []
    seen: set[Path] = set()
    with _listing(folder):
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
def _listing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{folder}: cannot list the directory: {error}") from error


register(
    Dataset(
        "image_folder", f"your own images, laid out as {LAYOUT}", _inspect, _read, _list_files, _read_file, _content
    )
)
