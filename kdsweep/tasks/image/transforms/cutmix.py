"""CutMix."""

from __future__ import annotations

from kdsweep.distributions import LogUniform, Uniform
from kdsweep.lazy import torch
from kdsweep.params import Param
from kdsweep.tasks.image.transforms.base import SHARE, TRANSFORMS, Draws, Mixer
from kdsweep.tasks.image.transforms.blocks.boxes import Boxes


@TRANSFORMS.declare
class CutMix(Mixer):
    """Pastes a box of another image, and mixes the labels by area (Yun et al. 2019, arXiv:1905.04899).

    The area is drawn from Beta(alpha, alpha) for each image. A box that reaches over the border is cut off there, and
    the labels are mixed by what is left.
    """

    name = "cutmix"
    alpha = Param(
        1.0, "of the Beta distribution: small values paste little or all", LogUniform(0.1, 2), valid=Uniform(0.01, 100)
    )
    probability = Param(1.0, "share of the images that get a box", valid=SHARE)

    def draw(self, draws: Draws) -> torch.Tensor:
        return torch.cat([draws.beta(self.alpha), draws.uniform(2)], dim=1)

    def share(self, drawn: torch.Tensor, height: int, width: int) -> torch.Tensor:
        boxes = _boxes(drawn, height, width)
        return 1 - (boxes.height * boxes.width) / (height * width)

    def mask(self, drawn: torch.Tensor, height: int, width: int) -> torch.Tensor:
        return (~_boxes(drawn, height, width).inside(height, width)).float()

    def chance(self) -> float:
        return self.probability


def _boxes(drawn: torch.Tensor, height: int, width: int) -> Boxes:
    """The boxes of numbers [B, 3]: the share of the own image, and the box's centre."""
    side = (1 - drawn[:, 0]).sqrt()
    (top, tall), (left, wide) = (
        _span(side, drawn[:, 1], height),
        _span(side, drawn[:, 2], width),
    )
    return Boxes(top, left, tall, wide, tall > 0)


def _span(share: torch.Tensor, centre: torch.Tensor, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Start and length of an interval around `centre` (0..1) of a side, cut off at its ends."""
    half = (share * side).long() // 2
    middle = (centre * side).long()
    start = (middle - half).clamp(0, side)
    return start, (middle + half).clamp(0, side) - start
