"""The interface of a transform, and the random numbers that it may use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar

import numpy as np

from kdsweep.distributions import Uniform
from kdsweep.lazy import torch
from kdsweep.params import Declared, Parts
from kdsweep.seeds import derived_seed

SHARE = Uniform(0.0, 1.0)
ATTEMPTS = 10  # at a box that fits into the image, as in torchvision


class Stage(IntEnum):
    """What a transform changes. Transforms of a later stage come later in a list."""

    PIXELS = 0
    NORMALISED = 1
    MIXING = 2


@dataclass(frozen=True)
class Draws:
    """Random numbers of one transform for every training sample in one view.

    They depend only on the seed, the view and the transform's name, neither on its parameters nor on a batch. So the
    views of two parameter values differ as little as the values do.

    Attributes:
        seed: Seed of the sweep.
        number: Number of the view, counted from 1.
        count: Number of training samples, N.
        name: Name of the transform.
    """

    seed: int
    number: int
    count: int
    name: str

    def uniform(self, columns: int) -> torch.Tensor:
        """Numbers from 0 to 1, excluding 1: float32 [N, columns] on the CPU."""
        return torch.rand(self.count, columns, generator=self._generator(self.name))

    def beta(self, alpha: float) -> torch.Tensor:
        """Numbers from Beta(alpha, alpha): float32 [N, 1] on the CPU."""
        draw = np.random.default_rng(self._seed_of(self.name, "beta"))
        return torch.from_numpy(draw.beta(alpha, alpha, (self.count, 1)).astype(np.float32))

    def order(self) -> torch.Tensor:
        """A random order of the samples: int64 [N] on the CPU."""
        return torch.randperm(self.count, generator=self._generator(self.name))

    def crop_flip(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The numbers of `flip` [N, 1] and `crop` [N, 2], which share a stream since version 0.1.0."""
        generator = self._generator()
        return tuple(torch.rand(self.count, columns, generator=generator) for columns in (1, 2))  # type: ignore[return-value]

    def _generator(self, *purpose: str) -> torch.Generator:
        return torch.Generator().manual_seed(self._seed_of(*purpose))

    def _seed_of(self, *purpose: str) -> int:
        return derived_seed(self.seed, "view", self.number, *purpose)


class Transform(Declared):
    """A random change of training images that is keyed by (seed, view, sample).

    A subclass declares its parameters as `Param` attributes, draws its random numbers for all samples at once and
    applies them to a batch. `apply` computes each image from its own numbers alone, so that an image has the same view
    in every batch, and never waits for the device.

    Args:
        params: Values of the declared parameters.
    """

    kind = "transform"
    stage: ClassVar[Stage] = Stage.PIXELS

    def draw(self, draws: Draws) -> torch.Tensor:
        """Draw the numbers of every sample: float32 [N, K] on the CPU."""
        raise NotImplementedError

    def apply(self, images: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        """Transform a batch.

        Args:
            images: [B, C, H, W]: uint8, or normalised float32 if that is the transform's stage.
            drawn: The samples' numbers [B, K], on the same device.
        """
        raise NotImplementedError


class Mixer(Transform):
    """A transform that mixes each image with the view of another one, its partner, and mixes their labels likewise.

    `draw` is as for other transforms; instead of `apply` there are the two methods below.
    """

    stage = Stage.MIXING

    def share(self, drawn: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """The share of each sample's own label: float32 [B]."""
        raise NotImplementedError

    def mask(self, drawn: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """The share of each sample's own pixels: float32 [B, 1, H, W], or [B, 1, 1, 1] if all pixels have the same."""
        raise NotImplementedError

    def chance(self) -> float:
        """Probability that a sample is mixed."""
        raise NotImplementedError


TRANSFORMS: Parts[Transform] = Parts(Transform, "kdsweep.tasks.image.transforms")
Written = str | Mapping[str, Any]
