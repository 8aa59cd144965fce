"""A loaded image student: an ordinary module with class names and the preprocessing of its training images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from kdsweep.datasets.images import opened, pixels
from kdsweep.errors import DataError


class Student(nn.Sequential):
    """Takes images [B, C, H, W], in 0..1 or of type uint8, and returns logits [B, classes].

    Args:
        parts: A module with the parts `normalise` and `model`.
        class_names: Class names in the order of the logits.
        input_shape: (channels, height, width).
        resize: Side in pixels that training images were resized to; 0 if they were not resized.
    """

    def __init__(self, parts: nn.Module, class_names: Sequence[str], input_shape: tuple[int, int, int], resize: int):
        super().__init__()
        for name, part in parts.named_children():
            self.add_module(name, part)
        self.class_names = tuple(class_names)
        self.input_shape = input_shape
        self.resize = resize

    def preprocess(self, image: Image.Image | str | Path) -> torch.Tensor:
        """Prepare an image like the training images: convert its channels, resize and crop it, scale it to 0..1.

        Args:
            image: A PIL image, or the path of an image file.

        Returns:
            [1, C, H, W], float32.

        Raises:
            DataError: If the image cannot be read, or if it has another size than the training images and these were
                not resized.
        """
        if isinstance(image, Image.Image):
            return self._prepared(image, "image")
        with opened(Path(image)) as read:
            return self._prepared(read, str(image))

    def _prepared(self, image: Image.Image, where: str) -> torch.Tensor:
        channels, height, width = self.input_shape
        found = pixels(image, channels, self.resize, where)
        if found.shape[1:] != (height, width):
            raise DataError(
                f"{where}: {found.shape[2]} x {found.shape[1]} pixels; accepted: {width} x {height}, because the "
                "training images were not resized"
            )
        return torch.from_numpy(found[None].astype(np.float32) / 255)
