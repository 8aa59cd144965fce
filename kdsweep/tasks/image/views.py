"""Image augmentation that depends only on the seed, the view and the sample."""

from __future__ import annotations

from collections.abc import Iterator

from kdsweep.lazy import torch
from kdsweep.tasks.base import Mixed
from kdsweep.tasks.image.transforms.base import Draws, Mixer, Stage, Transform
from kdsweep.tasks.image.transforms.written import transforms_of


class View:
    """One view of every training image: what each transform does to it, and which other image it is mixed with.

    It is drawn on the CPU and depends only on (seed, number). Every trial therefore sees the same view of a sample in a
    given epoch, whatever the batches and their order, and the teacher's outputs for it are computed only once.

    Args:
        augment: The text of a list of transforms, such as `crop_flip`; see `transforms.written`.
        seed: Seed of the sweep.
        number: Number of the view, counted from 1.
        count: Number of training images, N.
        device: Device of the images.

    Attributes:
        mixes: Whether samples are mixed with others.
    """

    def __init__(self, augment: str, seed: int, number: int, count: int, device: torch.device):
        self._drawn: list[tuple[Transform, torch.Tensor]] = [
            (transform, transform.draw(Draws(seed, number, count, transform.name)).to(device))
            for transform in transforms_of(augment)
        ]
        self.mixes = any(isinstance(transform, Mixer) for transform, _ in self._drawn)
        self._partners = Draws(seed, number, count, "partner").order() if self.mixes else torch.empty(0)
        self._partners_there = self._partners.to(device)
        # Of samples that several transforms could mix, each is mixed by one.
        chosen = Draws(seed, number, count, "mixer").uniform(1)[:, 0] if self.mixes else torch.empty(0)
        self._chosen = chosen.to(device)

    def read(self, index: torch.Tensor) -> torch.Tensor:
        """Return the positions of the images that the samples at `index` [B] are made of: [B], or [2 B] if mixed."""
        if not self.mixes:
            return index
        partners = self._partners if index.device.type == "cpu" else self._partners_there
        return torch.cat([index, partners[index]])

    def apply(self, images: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Augment uint8 images [B, C, H, W], which are at positions `index` [B] of the training split."""
        for transform, drawn in self._of(Stage.PIXELS):
            images = transform.apply(images, drawn[index])
        return images

    def finish(self, images: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        """Apply the transforms of normalised images and mix the images.

        Args:
            images: Normalised float32 images [B, C, H, W], or [2 B, C, H, W] with the partners.
            read: Their positions, from `read`.

        Returns:
            [B, C, H, W].
        """
        for transform, drawn in self._of(Stage.NORMALISED):
            images = transform.apply(images, drawn[read])
        if not self.mixes:
            return images
        (own, others), index = images.chunk(2), read.chunk(2)[0]
        height, width = images.shape[2:]
        mask = torch.ones(1, device=images.device)
        for mixer, drawn, active in self._mixers(index):
            mask = torch.where(active[:, None, None, None], mixer.mask(drawn, height, width), mask)
        return torch.lerp(others, own, mask).contiguous(memory_format=torch.channels_last)

    def labels(self, labels: torch.Tensor, index: torch.Tensor, size: tuple[int, int]) -> torch.Tensor | Mixed:
        """Return the labels of the samples at `index` [B]: [B], or those of both images if they are mixed.

        Args:
            labels: Labels of the split, [N].
            index: Positions of the samples, [B].
            size: Height and width of the images.
        """
        if not self.mixes:
            return labels[index]
        share = torch.ones(1, device=labels.device)
        for mixer, drawn, active in self._mixers(index):
            share = torch.where(active, mixer.share(drawn, *size), share)
        return Mixed(labels[index], labels[self._partners_there[index]], share)

    def _of(self, stage: Stage) -> Iterator[tuple[Transform, torch.Tensor]]:
        return ((transform, drawn) for transform, drawn in self._drawn if transform.stage is stage)

    def _mixers(self, index: torch.Tensor) -> Iterator[tuple[Mixer, torch.Tensor, torch.Tensor]]:
        """Yield each mixer with its numbers for the samples at `index`, and which of them it mixes."""
        mixers = [(transform, drawn) for transform, drawn in self._drawn if isinstance(transform, Mixer)]
        chosen = self._chosen[index]
        # Probabilities that add up to more than 1 are divided by their sum.
        whole, low = max(1.0, sum(mixer.chance() for mixer, _ in mixers)), 0.0
        for mixer, drawn in mixers:
            high = low + mixer.chance() / whole
            yield mixer, drawn[index], (chosen >= low) & (chosen < high)
            low = high
