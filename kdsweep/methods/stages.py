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


def match_stages(student: Sequence[Shaped], teacher: Sequence[Shaped], states: bool = False) -> Pairs:
    """Pair the stage maps of two models by resolution, in order.

    Every map of the model with fewer maps is paired so that the resolutions are closest overall; on a tie, the
    deeper map is chosen. Hidden states of texts are paired evenly: layer i of n with layer i m / n of m, rounded up.

    Args:
        student: Stage maps [B, C_i, H_i, W_i] from shallow to deep.
        teacher: Stage maps [B, C_j, H_j, W_j] from shallow to deep.
        states: Whether hidden states [B, T, D] are accepted too.

    Returns:
        Pairs (i, j) of positions in `student` and `teacher`, from shallow to deep.

    Raises:
        MethodError: If one model has no stage maps.
    """
    if states and _are_states(student) and _are_states(teacher):
        return _evenly(len(student), len(teacher))
    ours, theirs = _maps(student), _maps(teacher)
    if not ours or not theirs:
        raise MethodError(
            f"stage maps cannot be paired: the student has {_shapes(student)}, "
            f"the teacher {_shapes(teacher)}; accepted: models with at least one map [B, C, H, W] each"
            + (", or hidden states [B, T, D]" if states else "")
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
        features: A stage map [B, C, H, W], or hidden states [B, T, D].

    Returns:
        [B, 1, H, W] or [B, T, 1], float32.
    """
    channels = 1 if features.ndim == 4 else 2
    return features.float().pow(2).mean(dim=channels, keepdim=True).sqrt()


def filled(states: torch.Tensor) -> torch.Tensor:
    """Where hidden states [B, T, D] are those of tokens, not of padding, which are zero: [B, T, 1]."""
    return (states != 0).any(dim=2, keepdim=True)


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


def stage(features: Sequence[AnyShaped], index: int, method: str, who: str, states: bool = False) -> AnyShaped:
    """The stage map at `index`, counted as Python does; with `states`, hidden states [B, T, D] are accepted too.

    Raises:
        MethodError: If the model has no such map.
    """
    ranks = (3, 4) if states else (4,)
    if not -len(features) <= index < len(features) or features[index].ndim not in ranks:
        raise MethodError(
            f"method {method} needs the map of stage {index} of the {who}, which has {_shapes(features)}; "
            f"accepted: the position of a map [B, C, H, W]{' or of hidden states [B, T, D]' if states else ''}"
        )
    return features[index]


def need_alike(student: Shaped, teacher: Shaped, method: str) -> None:
    """Refuse a stage map of one model and hidden states of the other.

    Raises:
        MethodError: If so.
    """
    if student.ndim != teacher.ndim:
        found = f"{list(student.shape)} and {list(teacher.shape)}"
        raise MethodError(
            f"method {method} compares {found}; accepted: two maps [B, C, H, W], or two hidden states [B, T, D]"
        )


def _are_states(features: Sequence[Shaped]) -> bool:
    return len(features) > 0 and all(feature.ndim == 3 for feature in features)


def _evenly(ours: int, theirs: int) -> Pairs:
    """Pair every layer of the shallower model with one of the deeper, the last with the last."""
    fewer = min(ours, theirs)
    return [(-(-place * ours // fewer) - 1, -(-place * theirs // fewer) - 1) for place in range(1, fewer + 1)]


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
