"""Image folders: root/{train,val,test}/CLASS/IMAGE, with each split laid out as for torchvision's ImageFolder.

All images are converted to RGB. Transparency is dropped, and only the first frame of an animation is read. As in
torchvision, EXIF orientation is ignored. Classes are sorted by name and images by path; hidden entries and other files
are skipped; symbolic links are followed.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdsweep.datasets.base import Dataset, DatasetInfo, Source, Split, register
from kdsweep.datasets.images import in_threads, opened, pixels
from kdsweep.datasets.trees import LocalTree, StreamedTree, Tree
from kdsweep.errors import DataError

SPLITS = ("train", "val", "test")
LAYOUT = "ROOT/{train,val,test}/CLASS/IMAGE"
WITHOUT_CLASSES = "; or, for images without classes, dataset.name: unlabelled_folder (docs/sweep-files.md)"


def _tree(source: Source) -> Tree:
    return LocalTree(source.root) if source.objects is None else StreamedTree(source.objects)


def _inspect(source: Source) -> DatasetInfo:
    tree = _tree(source)
    if not tree.has():
        raise DataError(f"{tree.named()}: no such directory; accepted: a dataset.root laid out as {LAYOUT}")
    splits = tuple(split for split in SPLITS if tree.has(split))
    if "train" not in splits:
        accepted = f"accepted: a dataset.root laid out as {LAYOUT}{WITHOUT_CLASSES}"
        raise DataError(f"{tree.named()}: train/ is missing; {accepted}")
    classes = tree.folders("train")
    if len(classes) < 2:
        found = f"only the class folder {classes[0]!r}" if classes else "no class folders"
        accepted = f"accepted: at least 2, laid out as {LAYOUT}{WITHOUT_CLASSES}"
        raise DataError(f"{tree.named('train')}: {found}; {accepted}")
    for split in splits[1:]:
        _refuse_other_classes(tree, split, classes)
    width, height = size_of_first(tree, tree.images("train", classes[0]), source.skip_unreadable)
    return DatasetInfo((3, height, width), classes, splits=splits)


def size_of_first(tree: Tree, images: list[str], skip: bool) -> tuple[int, int]:
    """Return (width, height) of the first image, or of the first one that can be read."""
    readable = (one for one in images if not (skip and tree.faults([one], None, decode=True)[0]))
    with tree.opened(next(readable, images[0])) as image:
        return image.size


def _list_files(source: Source, split: str) -> Split:
    tree = _tree(source)
    by_class = [tree.images(split, name) for name in tree.folders("train")]
    if source.skip_unreadable:
        by_class = [_readable(source, tree, images) for images in by_class]
    labels = np.repeat(np.arange(len(by_class)), [len(images) for images in by_class])
    return Split(np.array([one for images in by_class for one in images]), labels)


def _readable(source: Source, tree: Tree, images: list[str]) -> list[str]:
    """Return the files of one class that can be read."""
    return [one for one, fault in zip(images, _faults(source, tree, images), strict=True) if not fault]


def _check(source: Source, split: str) -> list[str]:
    tree = _tree(source)
    classes = (tree.images(split, name) for name in tree.folders("train"))
    return [fault for images in classes for fault in _faults(source, tree, images) if fault]


def _faults(source: Source, tree: Tree, images: list[str]) -> list[str]:
    _, height, width = _inspect(source).input_shape
    return faults_of(source, tree, images, (width, height))


def faults_of(source: Source, tree: Tree, images: list[str], first: tuple[int, int]) -> list[str]:
    """Return why each file cannot be read; empty strings for files that can be read.

    Args:
        source: Where the data set is stored.
        tree: Its folder.
        images: Files, of one class if there are classes.
        first: Width and height of the first image.

    Raises:
        DataError: If unreadable files are to be skipped, and no file would be left.
    """
    faults = tree.faults(images, None if source.resize else first, decode=source.skip_unreadable)
    if source.skip_unreadable and all(faults):
        raise DataError(
            f"{Path(images[0]).parent}: none of the {len(images)} images can be read; accepted: at least one"
        )
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
                f"{path}: {image.width} x {image.height} pixels, but the first image of train/ "
                f"has {width} x {height}; use images of one size, or set dataset.resize"
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
    """Return a digest of each file of a split, with its label."""
    images, labels = _list_files(source, split)
    found = _tree(source).digests(images.tolist(), source.hashes)
    return [f"{digest}-{label}" for digest, label in zip(found, labels, strict=True)]


def room(count: int, shape: tuple[int, int, int], folder: Path) -> NDArray[np.uint8]:
    """Allocate an array for decoded images, if memory suffices for it and the copy made when splitting."""
    need, there = 2 * count * math.prod(shape), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        if need > there:
            raise MemoryError
        return np.empty((count, *shape), np.uint8)
    except MemoryError as error:
        found = f"decoding {count} images of {shape[2]} x {shape[1]} needs {need / 1e9:.1f} GB"
        remedy = "set dataset.stream to true or use a smaller dataset.resize"
        raise DataError(f"{folder}: {found}, and this machine has {there / 1e9:.1f} GB; {remedy}") from error


def _refuse_other_classes(tree: Tree, split: str, classes: tuple[str, ...]) -> None:
    found = tree.folders(split)
    missing, foreign = sorted(set(classes) - set(found)), sorted(set(found) - set(classes))
    said = [f"lacks {_some(missing)}"] * bool(missing) + [f"train/ lacks {_some(foreign)}"] * bool(foreign)
    if said:
        raise DataError(f"{tree.named(split)}: {' and '.join(said)}; accepted: the same class folders in every split")


def _some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


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
        from_store=True,
    )
)
