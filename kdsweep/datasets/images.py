"""Reading and resizing images, and processing many images in threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kdsweep.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

# Only these decoders run, whatever the file extension: some of PIL's others start external programs.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "PPM", "TIFF")
ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND", "GIF": b";"}
TAIL = 64  # some programs append a few bytes
REMEMBERED = 1 << 17
CHUNK = 256  # images per task: one task per image would cost more than resizing a small image


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open an image file; errors while decoding it are reported with its path.

    Raises:
        DataError: If it cannot be read or decoded.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=FORMATS) as image:
            yield image
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: not an image; accepted: {', '.join(FORMATS)}") from error
    except Exception as error:  # PIL's decoders raise almost anything on broken files
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"{path}: cannot read the image: {reason}") from error


def fault_of(
    path: Path, size: tuple[int, int] | None, *, decode: bool, others: str = "the first image of train/ has"
) -> str:
    """Return why an image file cannot be read, or an empty string.

    Args:
        path: The file.
        size: Accepted (width, height); None accepts any size.
        decode: Whether to decode every image. If False, only files that look truncated are decoded.
        others: Which image has the accepted size, for the message.
    """
    stat = path.stat()
    return _fault_of(path, size, decode, others, (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))


@lru_cache(maxsize=REMEMBERED)
def _fault_of(path: Path, size: tuple[int, int] | None, decode: bool, others: str, _stamp: tuple[int, int, int]) -> str:
    try:
        with opened(path) as image:
            if size is not None and image.size != size:
                return (
                    f"{path}: {image.width} x {image.height} pixels, but {others} {size[0]} x {size[1]}; "
                    "use images of one size, or set dataset.resize"
                )
            _refuse_deep(image, str(path))
            if decode or not _looks_whole(path, image.format or ""):
                image.load()
    except DataError as error:
        return str(error)
    return ""


def further_files(count: int) -> str:
    """Return a line for the files that are not listed because there are too many."""
    are = "files are" if count > 1 else "file is"
    return f"{count} more {are} unreadable or of another size; repair or remove them, or set dataset.skip_unreadable"


def _looks_whole(path: Path, kind: str) -> bool:
    """Whether a file ends as its format demands; files of other formats must be decoded to know."""
    with path.open("rb") as file:
        head = file.read(12)
        length = file.seek(0, os.SEEK_END)
        file.seek(max(0, length - TAIL))
        tail = file.read()
    if kind == "WEBP":
        return length >= 8 + int.from_bytes(head[4:8], "little")
    if kind == "BMP":
        return length >= int.from_bytes(head[2:6], "little")
    return kind in ENDS and ENDS[kind] in tail


def _refuse_deep(image: Image.Image, where: str) -> None:
    if image.mode == "F" or image.mode.startswith("I"):
        raise DataError(f"{where}: pixel format is {image.mode}; accepted: 8 bits per channel")


def pixels(image: Image.Image, channels: int, side: int, where: str) -> NDArray[np.uint8]:
    """Convert an image to grey or RGB, without transparency, and resize it.

    Args:
        image: An image with 8 bits per channel.
        channels: 1 for grey, 3 for RGB.
        side: Target side in pixels, see `square`; 0 keeps the size.
        where: Name of the image in error messages.

    Returns:
        [channels, H, W].

    Raises:
        DataError: If the image has more than 8 bits per channel.
    """
    _refuse_deep(image, where)
    if "transparency" in image.info:
        image = image.convert("RGBA")  # PIL warns if a palette with transparency is converted in one step
    image = image.convert("L" if channels == 1 else "RGB")
    found = np.asarray(square(image, side) if side else image)
    return found[None] if channels == 1 else found.transpose(2, 0, 1)


def square(image: Image.Image, side: int) -> Image.Image:
    """Resize the shorter side to `side`, bilinear with antialiasing, then crop the centre square."""
    from PIL import Image, ImageOps

    return ImageOps.fit(image, (side, side), Image.Resampling.BILINEAR)


def resized(images: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Resize the shorter side of each image, bilinear with PIL's antialiasing, then crop the centre square.

    Images that already have the right size are returned unchanged.

    Args:
        images: [N, C, H, W].
        side: Target side in pixels.

    Returns:
        [N, C, side, side].
    """
    from PIL import Image

    count, channels, height, width = images.shape
    if (height, width) == (side, side):
        return images
    planes = images.reshape(count * channels, height, width)
    squares = np.empty((count * channels, side, side), np.uint8)

    def fit(index: int) -> None:
        squares[index] = np.asarray(square(Image.fromarray(planes[index]), side))

    in_threads(fit, len(planes))
    return squares.reshape(count, channels, side, side)


def in_threads(handle: Callable[[int], None], count: int) -> None:
    """Call `handle(index)` for each index below `count`; if several calls fail, raise the error of the lowest index.

    Threads help because PIL releases the GIL while decoding and resizing.
    """

    def handle_chunk(start: int) -> None:
        for index in range(start, min(start + CHUNK, count)):
            handle(index)

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(handle_chunk, range(0, count, CHUNK)):
            pass
