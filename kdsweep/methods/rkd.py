"""Relational knowledge distillation."""

from __future__ import annotations

from kdsweep.distributions import LogUniform
from kdsweep.lazy import F, torch
from kdsweep.methods.base import WEIGHT, Method, Outputs, Param, register
from kdsweep.methods.vectors import unit

DISTANCES, ANGLES = 25.0, 50.0


@register
class Relations(Method):
    """Relational distillation: match the distances of pairs and the angles of triples of embeddings.

    The angles need O(B³ + B² D) memory for a batch of B.
    """

    name = "rkd"
    formula = "25 smoothL1(distances / their mean) + 50 smoothL1(cosines of the angles of triples)"
    source = "Park et al. 2019, arXiv:1904.05068"
    needs = frozenset({"embedding"})
    weight = Param(1.0, "scale of the term", LogUniform(0.1, 5), valid=WEIGHT)

    def term(self, student: Outputs, teacher: Outputs, labels: torch.Tensor) -> torch.Tensor:
        """Mean over all ordered pairs and triples; distances are divided by the mean positive distance."""
        (near_s, angles_s), (near_t, angles_t) = (_relations(o.embedding.float()) for o in (student, teacher))
        distances, angles = F.smooth_l1_loss(near_s, near_t), F.smooth_l1_loss(angles_s, angles_t)
        return DISTANCES * distances + ANGLES * angles


def _relations(embedding: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Distances [B, B] divided by their mean, and cosines [B, B, B] of the angle at i between j and k."""
    differences = embedding[None] - embedding[:, None]
    distances = torch.linalg.vector_norm(differences, dim=2)
    positive = (distances.detach() > 0).sum().clamp(min=1)
    mean = distances.sum() / positive
    directions = unit(differences, dim=2)
    return distances / torch.where(mean > 0, mean, 1.0), directions @ directions.transpose(1, 2)
