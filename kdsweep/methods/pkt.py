"""Probabilistic knowledge transfer."""

from __future__ import annotations

from kdsweep.distributions import LogUniform
from kdsweep.lazy import torch
from kdsweep.methods.base import WEIGHT, Method, Outputs, Param, register
from kdsweep.methods.vectors import unit

EPSILON = 1e-7


@register
class ProbabilisticTransfer(Method):
    """Probabilistic knowledge transfer: match the similarities of samples within the batch.

    The loss scale falls with the batch size, so keep the batch size fixed within a sweep.
    """

    name = "pkt"
    formula = "mean over i, j of P_t log(P_t / P_s), P = (cos(e_i, e_j) + 1) / 2, normalised to rows of sum 1"
    source = "Passalis & Tefas 2018, arXiv:1803.10837"
    needs = frozenset({"embedding"})
    stacks = frozenset()
    weight = Param(3e4, "scale of the term", LogUniform(1e3, 1e5), valid=WEIGHT)

    def term(self, student: Outputs, teacher: Outputs, labels: torch.Tensor) -> torch.Tensor:
        ours, theirs = (_neighbours(o.embedding.float()) for o in (student, teacher))
        return (theirs * ((theirs + EPSILON) / (ours + EPSILON)).log()).mean()


def _neighbours(embedding: torch.Tensor) -> torch.Tensor:
    directions = unit(embedding, dim=1)
    similarity = (directions @ directions.T + 1) / 2
    return similarity / similarity.sum(dim=1, keepdim=True)
