"""A loaded student: an ordinary module that knows its classes and how a picture is made ready for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from kdsweep.datasets.images import square
from kdsweep.errors import DataError


class Student(nn.Sequential):
    """Takes images [B, C, H, W], scaled to 0..1 or of uint8, and returns logits [B, classes].

    Args:
        parts: `normalise` and `model`.
        class_names: In the order of the logits.
        input_shape: (channels, height, width).
        resize: Side in pixels that training images were resized to; 0 if they had one size.
    """

    def __init__(self, parts: nn.Module, class_names: Sequence[str], input_shape: tuple[int, int, int], resize: int):
        super().__init__()
        for name, part in parts.named_children():
            self.add_module(name, part)
        self.class_names = tuple(class_names)
        self.input_shape = input_shape
        self.resize = resize

    def preprocess(self, image: Image.Image | str | Path) -> torch.Tensor:
        """A picture as the student saw its training images: channels, size and centre crop, scaled to 0..1.

        Args:
            image: A picture or its file.

        Returns:
            [1, C, H, W], float32.

        Raises:
            DataError: If it cannot be read, or is of another size and the training images were not resized.
        """
        if not isinstance(image, Image.Image):
            try:
                with Image.open(image) as opened:
                    return self.preprocess(opened)
            except OSError as error:
                raise DataError(f"{image}: not a readable image: {error}") from error
        channels, height, width = self.input_shape
        if "transparency" in image.info:
            image = image.convert("RGBA")
        image = image.convert("L" if channels == 1 else "RGB")
        if self.resize:
            image = square(image, self.resize)
        if image.size != (width, height):
            raise DataError(
                f"an image of {image.width} x {image.height}; accepted: {width} x {height}, for the training images "
                "were not resized"
            )
        pixels = np.asarray(image).reshape(height, width, channels).transpose(2, 0, 1)
        return torch.from_numpy(pixels[None].astype(np.float32) / 255)
