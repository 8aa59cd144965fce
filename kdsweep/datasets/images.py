"""Resizing images, and processing many images in threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

CHUNK = 256  # images per task: one task per image would cost more than resizing a small image


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
