"""The operations of RandAugment and TrivialAugment, each image with its own, for a whole batch at once.

The operations and their levels are torchvision's. Moves of pixels are one lookup of positions, and changes that
depend on the pixel's value alone are one table per image; so a batch takes a fixed number of steps on the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from kdsweep.lazy import torch
from kdsweep.tasks.image.transforms.blocks import colours

_Level = Callable[..., "torch.Tensor"]  # (name of an operation, level of the images that have another one) -> [B]

BINS = 31
OPERATIONS = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "color", "contrast",
    "sharpness", "posterize", "solarize", "autocontrast", "equalize",
)  # fmt: skip
SIGNED = OPERATIONS[1:10]
_BLENDS = ("brightness", "color", "contrast", "sharpness")
# The largest level of the signed operations. Translations are fractions of the side in RandAugment and pixels in
# TrivialAugment; posterize is the number of bits that the strongest takes away.
RAND = {
    "shear_x": 0.3, "shear_y": 0.3, "translate_x": 150 / 331, "translate_y": 150 / 331, "rotate": 30.0,
    **dict.fromkeys(_BLENDS, 0.9), "posterize": 4,
}  # fmt: skip
TRIVIAL = {
    "shear_x": 0.99, "shear_y": 0.99, "translate_x": 32.0, "translate_y": 32.0, "rotate": 135.0,
    **dict.fromkeys(_BLENDS, 0.99), "posterize": 6,
}  # fmt: skip


def levels(
    reach: Mapping[str, float], operation: torch.Tensor, bins: torch.Tensor, negative: torch.Tensor
) -> torch.Tensor:
    """The levels of drawn operations, float32.

    Args:
        reach: The largest levels.
        operation: Positions in `OPERATIONS`.
        bins: Magnitudes, 0 to `BINS` - 1, of the same shape.
        negative: Whether a signed operation goes in the negative direction, of the same shape.
    """
    share = bins.float() / (BINS - 1)
    found = torch.zeros_like(share)
    for place, name in enumerate(OPERATIONS):
        if name in SIGNED:
            level = torch.where(negative, -1.0, 1.0) * reach[name] * share
        elif name == "posterize":
            level = (8 - share * reach[name]).round()
        else:
            level = 255 * (1 - share)  # the threshold of solarize; the others have none
        found = torch.where(operation == place, level, found)
    return found


def operated(images: torch.Tensor, operation: torch.Tensor, level: torch.Tensor, relative: bool) -> torch.Tensor:
    """Apply one operation to each image.

    Args:
        images: uint8 [B, C, H, W].
        operation: Positions in `OPERATIONS`, [B].
        level: Their levels, [B].
        relative: Whether the levels of translations are fractions of the side, not pixels.
    """

    def of(name: str, otherwise: float = 0.0) -> torch.Tensor:
        return torch.where(operation == OPERATIONS.index(name), level, otherwise)

    images = _moved(images, of, relative)
    images = _looked_up(images, operation, of)
    images = colours.saturated(images, (1 + of("color"))[:, None, None, None])
    return colours.sharpened(images, (1 + of("sharpness"))[:, None, None, None])


def _moved(images: torch.Tensor, of: _Level, relative: bool) -> torch.Tensor:
    """Shear, translate and rotate: each pixel is the nearest one at its place before, or black."""
    height, width = images.shape[2:]
    rows = (torch.arange(height, device=images.device) + 0.5 - height / 2)[None, :, None]
    columns = (torch.arange(width, device=images.device) + 0.5 - width / 2)[None, None, :]
    angle = (of("rotate") * (math.pi / 180))[:, None, None]
    shear_x, shear_y = (of(name)[:, None, None] for name in ("shear_x", "shear_y"))
    sides = (width, height) if relative else (1, 1)
    right, down = (
        (of(name) * side).trunc()[:, None, None]
        for name, side in zip(("translate_x", "translate_y"), sides, strict=True)
    )
    # Shears keep the upper left corner in its place, rotations the centre.
    x = angle.cos() * columns - angle.sin() * rows + shear_x * (rows + height / 2) - right
    y = angle.sin() * columns + angle.cos() * rows + shear_y * (columns + width / 2) - down
    x, y = (x + (width / 2 - 0.5)).round().long(), (y + (height / 2 - 0.5)).round().long()
    there = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    place = (y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).flatten(1)[:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, place).view(images.shape).masked_fill(~there[:, None], 0)


def _looked_up(images: torch.Tensor, operation: torch.Tensor, of: _Level) -> torch.Tensor:
    """Brightness, contrast, posterize, solarize, autocontrast and equalize, by a table of 256 values per channel."""
    flat = images.flatten(2).long()
    values = torch.arange(256, device=images.device).float().expand(*flat.shape[:2], 256)

    def wide(numbers: torch.Tensor) -> torch.Tensor:
        return numbers[:, None, None]

    brightness, contrast = wide(1 + of("brightness")), wide(1 + of("contrast"))
    step = torch.exp2(8 - wide(of("posterize", 8)))
    changed = {
        "brightness": values * brightness,
        "contrast": values * contrast + colours.mean_grey(images).flatten(1)[:, :, None] * (1 - contrast),
        "posterize": (values / step).floor() * step,
        "solarize": torch.where(values >= wide(of("solarize", 256)), 255 - values, values),
        "autocontrast": _stretched(values, flat),
        "equalize": _equalised(values, flat),
    }
    table = values
    for name, found in changed.items():
        table = torch.where(wide(operation == OPERATIONS.index(name)), found, table)
    return table.clamp(0, 255).to(torch.uint8).gather(2, flat).view(images.shape)


def _stretched(values: torch.Tensor, flat: torch.Tensor) -> torch.Tensor:
    """Autocontrast: the darkest value becomes 0 and the brightest 255."""
    low, high = (found[:, :, None].float() for found in (flat.amin(2), flat.amax(2)))
    flatly = low == high
    scale = torch.where(flatly, 1.0, (high - low) * (1 / 255))
    return (values - torch.where(flatly, 0.0, low)) / scale


def _equalised(values: torch.Tensor, flat: torch.Tensor) -> torch.Tensor:
    """Equalise the histogram, by the scheme of PIL."""
    counts = torch.zeros(values.shape, dtype=torch.int64, device=values.device)
    counts.scatter_add_(2, flat, torch.ones_like(flat))
    total = counts.cumsum(2)
    brightest = counts.gather(2, flat.amax(2, keepdim=True))
    step = (flat.shape[2] - brightest) // 255
    table = (total - counts + step // 2) // step.clamp(min=1)
    return torch.where(step > 0, table.clamp(0, 255).float(), values)
