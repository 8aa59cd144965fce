"""How much of a teacher's logits is kept: all of them, or the largest ones and what the others weigh together."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kdsweep.lazy import torch


@dataclass(frozen=True)
class KeptLogits:
    """Packs logits for the disk, and restores them for the loss.

    Of each sample, the `largest` logits and their classes are kept. The others become equal, so that their total
    probability at temperature 1 stays what it was. Stored are the largest logit, how far the next ones and the others
    lie below it, each in bfloat16, and the classes in int16: 4 `largest` + 2 bytes per sample. A softmax depends on the
    distances alone; bfloat16 keeps them to 0.4 %.

    Attributes:
        largest: How many logits are kept; 0 keeps all, in float32.
    """

    largest: int = 0

    @classmethod
    def of(cls, setting: str | int) -> KeptLogits:
        """Return what a value of `teacher.keep_logits` means."""
        return cls(0 if isinstance(setting, str) else setting)

    def size(self, classes: int) -> int:
        """Bytes on disk of one sample's logits."""
        return 2 * (2 * self.largest + 1) if self.largest else 4 * classes

    def pack(self, logits: torch.Tensor) -> torch.Tensor:
        """Return what is stored of logits [B, C]: int16 [B, 2 largest + 1], or the float32 logits if all are kept."""
        logits = logits.float()
        if not self.largest:
            return logits
        top, classes = logits.topk(self.largest, dim=1)
        others = logits.scatter(1, classes, -math.inf).logsumexp(1, keepdim=True)
        others = others - math.log(logits.shape[1] - self.largest)
        below = torch.cat([top[:, 1:], others], dim=1) - top[:, :1]
        numbers = torch.cat([top[:, :1], below], dim=1).to(torch.bfloat16).view(torch.int16)
        return torch.cat([numbers, classes.to(torch.int16)], dim=1)

    def unpack(self, stored: torch.Tensor, classes: int) -> torch.Tensor:
        """Return the logits [B, classes] that are stored as `pack` returned them, in float32."""
        if not self.largest:
            return stored
        numbers = stored[:, : self.largest + 1].contiguous().view(torch.bfloat16).float()
        first, below, others = numbers[:, :1], numbers[:, 1:-1], numbers[:, -1:]
        below = torch.cat([torch.zeros_like(first), below], dim=1)
        spread = others.expand(-1, classes).scatter(1, stored[:, self.largest + 1 :].long(), below)
        return first + spread

    def seen(self, logits: torch.Tensor) -> torch.Tensor:
        """Return logits [B, C] as a student sees them."""
        return self.unpack(self.pack(logits), logits.shape[1])


ALL = KeptLogits()
