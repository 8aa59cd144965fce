"""Changes of brightness, contrast, saturation and hue."""

from __future__ import annotations

from kdsweep.distributions import Uniform
from kdsweep.lazy import torch
from kdsweep.params import Param
from kdsweep.tasks.image.transforms.base import SHARE, TRANSFORMS, Draws, Transform
from kdsweep.tasks.image.transforms.blocks import colours


@TRANSFORMS.declare
class ColorJitter(Transform):
    """Changes brightness, contrast, saturation and hue by random factors, in this order.

    The factors are uniform from 1 - x to 1 + x, and the hue turns by up to `hue` of the circle in either direction.
    Images without three channels keep their saturation and hue.
    """

    name = "color_jitter"
    brightness = Param(0.4, "largest relative change of the brightness", valid=SHARE)
    contrast = Param(0.4, "largest relative change of the contrast", valid=SHARE)
    saturation = Param(0.4, "largest relative change of the saturation", valid=SHARE)
    hue = Param(0.1, "largest turn of the hue, as a fraction of the circle", valid=Uniform(0.0, 0.5))

    def draw(self, draws: Draws) -> torch.Tensor:
        return draws.uniform(4) * 2 - 1

    def apply(self, images: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        brightness, contrast, saturation, hue = (part[:, None, None, None] for part in drawn.unbind(1))
        images = colours.brightened(images, 1 + self.brightness * brightness)
        images = colours.contrasted(images, 1 + self.contrast * contrast)
        images = colours.saturated(images, 1 + self.saturation * saturation)
        return colours.turned(images, self.hue * hue)
