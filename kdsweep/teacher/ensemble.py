"""Several teachers as one: the mean of their logits, or of their probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kdsweep.errors import MethodError
from kdsweep.lazy import torch
from kdsweep.methods import Outputs
from kdsweep.tasks import View
from kdsweep.training.teaching import TeacherSource, TeacherView


def shares_of(config: Mapping[str, Any], count: int) -> tuple[float, ...]:
    """Return the share of each of several teachers.

    `teacher_weight` is the share of the first; the others share the rest equally. By default, all shares are equal.
    """
    if count == 1:
        return (1.0,)
    first = float(config.get("teacher_weight", 1 / count))
    return (first, *((1 - first) / (count - 1) for _ in range(count - 1)))


def mean_logits(logits: Sequence[torch.Tensor], shares: Sequence[float], mean: str) -> torch.Tensor:
    """Combine the logits of several teachers.

    Args:
        logits: [B, C] of each teacher.
        shares: Share of each teacher; they add up to 1.
        mean: `logits` for their mean, `probabilities` for the logarithm of the mean of the probabilities.

    Returns:
        [B, C], in float32.
    """
    if mean == "logits":
        return torch.stack([share * one.float() for share, one in zip(shares, logits, strict=True)]).sum(dim=0)
    # A share of 0 has the logarithm -inf, which logsumexp leaves out.
    logs = torch.tensor(shares, device=logits[0].device).log()
    each = [log + one.float().log_softmax(dim=1) for log, one in zip(logs, logits, strict=True)]
    return torch.logsumexp(torch.stack(each), dim=0)


class Ensemble:
    """The outputs of several teachers, combined per batch. They have logits only.

    Args:
        sources: The teachers.
        shares: Share of each.
        mean: What is averaged, as for `mean_logits`.
    """

    def __init__(self, sources: Sequence[TeacherSource], shares: Sequence[float], mean: str):
        self._sources, self._shares, self._mean = sources, shares, mean

    def example(self) -> Outputs:
        """Return the outputs of a small batch."""
        return self._combined([source.example() for source in self._sources])

    def epoch(self, epoch: int, view: View) -> TeacherView:
        """Return a view of all teachers."""
        views = [source.epoch(epoch, view) for source in self._sources]
        return lambda index, batch: self._combined([one(index, batch) for one in views])

    def _combined(self, outputs: Sequence[Outputs]) -> Outputs:
        logits = mean_logits([one.logits for one in outputs], self._shares, self._mean)
        return Outputs(logits, torch.empty(0, device=logits.device))


def need_logits_only(method: str, teacher: str, needs: frozenset[str]) -> None:
    """Refuse a method that an ensemble cannot teach.

    Raises:
        MethodError: If it needs more than logits.
    """
    if further := sorted(needs - {"logits"}):
        raise MethodError(f"method {method} needs the teacher's {', '.join(further)}, but {teacher} has only logits")
