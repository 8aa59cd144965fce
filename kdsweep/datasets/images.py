"""Pixels: images brought to one size, and many images handled in threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

CHUNK = 256  # images per task: a task for each would cost more than a small image does


def square(image: Image.Image, side: int) -> Image.Image:
    """The image with its shorter side resized to `side`, bilinear and antialiased, then cut to its centre square."""
    from PIL import Image, ImageOps

    return ImageOps.fit(image, (side, side), Image.Resampling.BILINEAR)


def resized(images: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Images with the shorter side resized, bilinear and antialiased as PIL does it, then cut to their centre square.

    Images that fit are returned as they are.

    Args:
        images: [N, C, H, W].
        side: In pixels.

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
    """Call `handle(index)` for each index below `count`; of several failures the first by index is raised.

    PIL gives up the interpreter's lock while it decodes and resizes.
    """

    def handle_chunk(start: int) -> None:
        for index in range(start, min(start + CHUNK, count)):
            handle(index)

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(handle_chunk, range(0, count, CHUNK)):
            pass
