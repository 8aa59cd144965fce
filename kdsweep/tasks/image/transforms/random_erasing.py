"""Erasing a box."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kdsweep.distributions import Uniform
from kdsweep.lazy import torch
from kdsweep.params import Param
from kdsweep.tasks.image.transforms.base import ATTEMPTS, SHARE, TRANSFORMS, Draws, Stage, Transform
from kdsweep.tasks.image.transforms.blocks.boxes import Boxes


@TRANSFORMS.declare
class RandomErasing(Transform):
    """Sets a random box to 0 after normalisation, which is the data set's mean colour (Zhong et al. 2020).

    A box that does not fit is drawn again, up to ten times; then nothing is erased. Source: arXiv:1708.04896.
    """

    name = "random_erasing"
    stage = Stage.NORMALISED
    probability = Param(0.5, "share of the images that lose a box", valid=SHARE)
    smallest = Param(0.02, "smallest area of the box, as a share of the image", valid=Uniform(0.001, 1.0))
    largest = Param(1 / 3, "largest area of the box, as a share of the image", valid=Uniform(0.001, 1.0))
    ratio = Param(10 / 3, "largest aspect ratio of the box; the smallest is its inverse", valid=Uniform(1.0, 10.0))

    @classmethod
    def faults(cls, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """The smallest area is at most the largest."""
        if values["smallest"] > values["largest"]:
            yield "smallest", f"found {values['smallest']:g}; accepted: at most largest, {values['largest']:g}"

    def draw(self, draws: Draws) -> torch.Tensor:
        return draws.uniform(2 * ATTEMPTS + 3)

    def apply(self, images: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[2:]
        boxes = Boxes.drawn(drawn[:, 1:], (self.smallest, self.largest), self.ratio, height, width)
        erased = boxes.found & (drawn[:, 0] < self.probability)
        return images.masked_fill(boxes.inside(height, width) & erased[:, None, None, None], 0.0)
