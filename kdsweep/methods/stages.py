"""Pairing and pooling the stage maps of two models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Protocol, TypeVar

from kdsweep.errors import MethodError
from kdsweep.lazy import F, torch

Pairs = list[tuple[int, int]]


class Shaped(Protocol):
    """A tensor, or the shape that stands for one."""

    @property
    def shape(self) -> Sequence[int]:
        """Sizes of the axes."""

    @property
    def ndim(self) -> int:
        """Number of axes."""


AnyShaped = TypeVar("AnyShaped", bound=Shaped)


def match_stages(student: Sequence[Shaped], teacher: Sequence[Shaped]) -> Pairs:
    """Pair the stage maps of two models by resolution, in order.

    Every map of the model with fewer maps is paired so that the resolutions are closest overall; on a tie, the
    deeper map is chosen.

    Args:
        student: Stage maps [B, C_i, H_i, W_i] from shallow to deep.
        teacher: Stage maps [B, C_j, H_j, W_j] from shallow to deep.

    Returns:
        Pairs (i, j) of positions in `student` and `teacher`, from shallow to deep.

    Raises:
        MethodError: If one model has no stage maps.
    """
    ours, theirs = _maps(student), _maps(teacher)
    if not ours or not theirs:
        raise MethodError(
            f"stage maps cannot be paired: the student has {_shapes(student)}, "
            f"the teacher {_shapes(teacher)}; accepted: models with at least one map [B, C, H, W] each"
        )
    if len(ours) <= len(theirs):
        pairs = _align([student[i] for i in ours], [teacher[j] for j in theirs])
        return [(ours[a], theirs[b]) for a, b in pairs]
    pairs = _align([teacher[j] for j in theirs], [student[i] for i in ours])
    return [(ours[b], theirs[a]) for a, b in pairs]


def attention_map(features: torch.Tensor) -> torch.Tensor:
    """Where a stage map is active: the root mean square over its channels.

    Its square's mean over channels is that of the map itself, so a method made of that takes either.

    Args:
        features: A stage map [B, C, H, W].

    Returns:
        [B, 1, H, W], float32.
    """
    return features.float().pow(2).mean(dim=1, keepdim=True).sqrt()


def pool(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Average-pool [B, C, H, W] to `size`; maps of that size are returned unchanged."""
    height, width = maps.shape[-2:]
    if (height, width) == size:
        return maps
    if height % size[0] == 0 and width % size[1] == 0:
        return F.avg_pool2d(maps, (height // size[0], width // size[1]))
    return F.adaptive_avg_pool2d(maps, size)


def smaller_size(student: Shaped, teacher: Shaped) -> tuple[int, int]:
    """The smaller height and the smaller width of two maps."""
    return min(student.shape[-2], teacher.shape[-2]), min(student.shape[-1], teacher.shape[-1])


def bridge(student: torch.Tensor, teacher: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Average-pool the larger of two maps to the size of the smaller."""
    size = smaller_size(student, teacher)
    return pool(student, size), pool(teacher, size)


def stage(features: Sequence[AnyShaped], index: int, method: str, who: str) -> AnyShaped:
    """The stage map at `index`, counted as Python does.

    Raises:
        MethodError: If the model has no such map.
    """
    if not -len(features) <= index < len(features) or features[index].ndim != 4:
        raise MethodError(
            f"method {method} needs the map of stage {index} of the {who}, which has {_shapes(features)}; "
            "accepted: the position of a map [B, C, H, W]"
        )
    return features[index]


def _maps(features: Sequence[Shaped]) -> list[int]:
    return [i for i, feature in enumerate(features) if feature.ndim == 4]


def _shapes(features: Sequence[Shaped]) -> str:
    return ", ".join(str(list(feature.shape)) for feature in features) or "no stages"


def _align(fewer: Sequence[Shaped], more: Sequence[Shaped]) -> Pairs:
    """The cheapest pairing of all of `fewer` that keeps the order; cost is the log ratio of the areas."""
    areas, others = [[math.log2(f.shape[-2] * f.shape[-1]) for f in maps] for maps in (fewer, more)]

    @cache
    def best(a: int, b: int) -> tuple[float, tuple[tuple[int, int], ...]]:
        if a == 0:
            return 0.0, ()
        if a > b:
            return math.inf, ()
        skipped = best(a, b - 1)
        cost, pairs = best(a - 1, b - 1)
        cost += abs(areas[a - 1] - others[b - 1])
        return (cost, (*pairs, (a - 1, b - 1))) if cost <= skipped[0] else skipped

    return list(best(len(areas), len(others))[1])
