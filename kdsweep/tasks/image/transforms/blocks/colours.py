"""Changes of colour whose strength differs from image to image, with the values of torchvision's functions.

Images are uint8 [B, C, H, W] and strengths float32 [B, 1, 1, 1]. Blends are cut to 0..255 and rounded towards 0.
"""

from __future__ import annotations

from kdsweep.lazy import F, torch

GREY = (0.2989, 0.587, 0.114)  # ITU-R BT.601


def brightened(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Multiply the pixels."""
    return _bytes(images.float() * factor)


def contrasted(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Blend with the mean grey of the image."""
    return _bytes(images.float() * factor + mean_grey(images) * (1 - factor))


def saturated(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Blend with the grey image; images without three channels stay as they are."""
    if images.shape[1] != 3:
        return images
    return _bytes(images.float() * factor + grey(images) * (1 - factor))


def sharpened(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Blend with a smoothed image, except at the border."""
    if min(images.shape[2:]) <= 2:
        return images
    floats = images.float()
    padded = F.pad(floats, (1, 1, 1, 1))
    height, width = images.shape[2:]
    total = 4 * floats
    for row in range(3):
        for column in range(3):
            total = total + padded[:, :, row : row + height, column : column + width]
    smooth = (total / 13).round()
    inner = torch.zeros(1, 1, height, width, dtype=torch.bool, device=images.device)
    inner[:, :, 1:-1, 1:-1] = True
    return torch.where(inner, _bytes(floats + (smooth - floats) * (1 - factor)), images)


def turned(images: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """Turn the hue by a fraction of the circle; images without three channels stay as they are."""
    if images.shape[1] != 3:
        return images
    floats = images.float() / 255
    value, spread = floats.amax(1, keepdim=True), floats.amax(1, keepdim=True) - floats.amin(1, keepdim=True)
    red, green, blue = ((value - part[:, None]) / torch.where(spread > 0, spread, 1.0) for part in floats.unbind(1))
    is_red, is_green = value == floats[:, :1], value == floats[:, 1:2]
    sixths = torch.where(is_red, blue - green, torch.where(is_green, 2 + red - blue, 4 + green - red))
    sixths = (sixths + 6 * turn) % 6
    channels = []
    for offset in (5, 3, 1):
        place = (sixths + offset) % 6
        channels.append(value - spread * place.minimum(4 - place).clamp(0, 1))
    changed = torch.cat(channels, 1)
    # As torchvision, which maps 0..1 to 0..255 in equal parts.
    return torch.where(spread > 0, (changed * (256 - 1e-3)).to(torch.uint8), images)


def grey(images: torch.Tensor) -> torch.Tensor:
    """The grey image: whole numbers as float32 [B, 1, H, W]."""
    if images.shape[1] != 3:
        return images.float().mean(1, keepdim=True).floor()
    red, green, blue = (part[:, None].float() for part in images.unbind(1))
    return (red * GREY[0] + green * GREY[1] + blue * GREY[2]).floor()


def mean_grey(images: torch.Tensor) -> torch.Tensor:
    """The mean of the grey image, float32 [B, 1, 1, 1]; from a sum of whole numbers, so the same in any batch."""
    height, width = images.shape[2:]
    return grey(images).long().sum((1, 2, 3), keepdim=True).float() / (height * width)


def _bytes(floats: torch.Tensor) -> torch.Tensor:
    return floats.clamp(0, 255).to(torch.uint8)
