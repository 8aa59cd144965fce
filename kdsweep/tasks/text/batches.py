"""Batches of texts, each as long as its longest text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kdsweep.lazy import torch
from kdsweep.tasks.arrays import Unvaried
from kdsweep.tasks.base import Mixed, View
from kdsweep.tasks.order import on_device

MULTIPLE = 8  # lengths are rounded up to it, so that there are few shapes


class Texts:
    """A split on a device.

    Args:
        tokens: int32 [N, T], on the device.
        labels: int64 [N], on the device.
        padding: The token that fills up short texts.
        lengths: Lengths of the texts [N], on the CPU, so that no batch waits for the device.
    """

    def __init__(self, tokens: torch.Tensor, labels: torch.Tensor, padding: int, lengths: torch.Tensor):
        self.tokens = tokens
        self.labels = labels
        self.device = labels.device
        self._padding = padding
        self._lengths = lengths

    @classmethod
    def of(cls, tokens: torch.Tensor, labels: torch.Tensor, padding: int, device: torch.device) -> Texts:
        """Move tokens [N, T] and labels [N] on the CPU to a device."""
        places = torch.arange(1, tokens.shape[1] + 1, dtype=torch.int32)
        lengths = torch.cat([((part != padding) * places).amax(dim=1) for part in tokens.split(4096)])
        return cls(tokens.to(device), labels.to(device), padding, lengths)

    @classmethod
    def whole(cls, tokens: torch.Tensor, labels: torch.Tensor, padding: int) -> Texts:
        """A split on the CPU whose batches all have the full length, which converted students take."""
        return cls(tokens, labels, padding, torch.full((len(labels),), tokens.shape[1]))

    def __len__(self) -> int:
        return len(self.labels)

    def view(self, augment: str, seed: int, epoch: int) -> View:
        """Every epoch has the same, unaugmented view."""
        return Unvaried()

    def targets(self, index: torch.Tensor, view: View) -> torch.Tensor | Mixed:
        """The labels at `index` [B]."""
        return self.labels[index]

    def batch(self, index: torch.Tensor, view: View | None = None) -> torch.Tensor:
        """Tokens [B, T] at `index` [B], int64 and of full length."""
        return self.tokens[index.to(self.device)].long()

    def sequence(self, indices: Sequence[torch.Tensor], view: View | None = None) -> Iterator[torch.Tensor]:
        for there, index in zip(indices, on_device(indices, self.device), strict=True):
            yield self.tokens[index, : self._length(self._lengths[there])].long()

    def batches(self, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield all texts with their labels, in order."""
        parts = (self.tokens.split(size), self.labels.split(size), self._lengths.split(size))
        for tokens, labels, lengths in zip(*parts, strict=True):
            yield tokens[:, : self._length(lengths)].long(), labels

    def first(self, count: int) -> Texts:
        return Texts(self.tokens[:count], self.labels[:count], self._padding, self._lengths[:count])

    def _length(self, lengths: torch.Tensor) -> int:
        longest = max(1, int(lengths.max()))
        return min(self.tokens.shape[1], MULTIPLE * -(-longest // MULTIPLE))
