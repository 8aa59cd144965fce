"""A folder of images: root/{train,val,test}/CLASS/IMAGE, each split as torchvision's ImageFolder has it.

Images are read as RGB, grey ones too, and transparent ones without their transparency; of a moving picture
the first frame. EXIF orientation is not applied, as in torchvision. Classes are in the order of their names,
images in the order of their paths; hidden entries and other files are passed over, links are followed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kdsweep.datasets.base import Dataset, DatasetInfo, Source, Split, register
from kdsweep.datasets.images import in_threads, square
from kdsweep.errors import DataError
from kdsweep.seeds import digest_of

if TYPE_CHECKING:
    from PIL import Image

SPLITS = ("train", "val", "test")
LAYOUT = "ROOT/{train,val,test}/CLASS/IMAGE"
# Only these decoders run, whatever a file's name says: PIL has others, which start programs.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "PPM", "TIFF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")


def _inspect(source: Source) -> DatasetInfo:
    root = source.root
    if not os.path.isdir(root):
        raise DataError(f"{root}: no such folder; accepted: a dataset.root laid out as {LAYOUT}")
    splits = tuple(split for split in SPLITS if os.path.isdir(root / split))
    if "train" not in splits:
        raise DataError(f"{root}: no train/ in it; accepted: a dataset.root laid out as {LAYOUT}")
    classes = _classes(root / "train")
    if len(classes) < 2:
        found = f"only the class folder {classes[0]!r}" if classes else "no class folders"
        raise DataError(f"{root / 'train'}: {found}; accepted: at least 2, laid out as {LAYOUT}")
    for split in splits[1:]:
        _refuse_other_classes(root / split, classes)
    with _opened(_images(root / "train" / classes[0])[0]) as first:
        width, height = first.size
    return DatasetInfo((3, height, width), classes, splits=splits)


def _list_files(source: Source, split: str) -> Split:
    classes = _classes(source.root / "train")
    by_class = [_images(source.root / split / name) for name in classes]
    labels = np.repeat(np.arange(len(by_class)), [len(paths) for paths in by_class])
    return Split(np.array([str(path) for paths in by_class for path in paths]), labels)


def _read_file(path: str, resize: int, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    _, height, width = shape
    with _opened(Path(path)) as image:
        if not resize and image.size != (width, height):
            raise DataError(
                f"{path}: {image.height} x {image.width} pixels, where the first image of train/ "
                f"has {height} x {width}; accepted: images of one size, or set dataset.resize"
            )
        return _pixels(image, resize, Path(path))


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
    """What lies in the splits, by name, size and time: a changed folder is decoded again."""
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
    """Room for decoded images, where the machine has it for them and for the copy that is split and laid out."""
    need, there = 2 * count * math.prod(shape), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        if need > there:
            raise MemoryError
        return np.empty((count, *shape), np.uint8)
    except MemoryError as error:
        found = f"{count} images of {shape[1]} x {shape[2]} need {need / 1e9:.1f} GB to be decoded at once"
        accepted = f"what fits {there / 1e9:.1f} GB: dataset.stream: true, or a smaller dataset.resize"
        raise DataError(f"{folder}: {found}; accepted: {accepted}") from error


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
    """The images of one class, also those in folders below it."""
    found: list[Path] = []
    seen: set[Path] = set()
    with _listing(folder):
        for parent, folders, names in os.walk(folder, followlinks=True, onerror=_raise):
            here = Path(parent)
            if (real := here.resolve()) in seen:  # a link that leads back up
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(filter(_shows, folders))
            found += [here / name for name in names if _shows(name) and name.lower().endswith(SUFFIXES)]
    if not found:
        raise DataError(f"{folder}: no images in it; accepted: at least one of {', '.join(SUFFIXES)}")
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
        raise DataError(f"{folder}: cannot be listed: {error}") from error


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=FORMATS) as image:
            yield image
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: not an image; accepted: {', '.join(FORMATS)}") from error
    except Exception as error:  # on a broken file PIL's decoders raise almost anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"{path}: not a readable image: {reason}") from error


def _pixels(image: Image.Image, side: int, path: Path) -> NDArray[np.uint8]:
    """The image as RGB [3, H, W], resized where `side` is not 0."""
    if image.mode == "F" or image.mode.startswith("I"):
        raise DataError(f"{path}: pixels of mode {image.mode}; accepted: 8 bits a channel")
    if "transparency" in image.info:
        image = image.convert("RGBA")  # PIL warns where it drops the transparency of a palette in one step
    image = image.convert("RGB")
    return np.asarray(square(image, side) if side else image).transpose(2, 0, 1)


register(
    Dataset(
        "image_folder", f"your own images, laid out as {LAYOUT}", _inspect, _read, _list_files, _read_file, _content
    )
)
