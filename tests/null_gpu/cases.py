"""The trainings that the test of all methods runs: few, but every wanted pair of settings occurs in one of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import combinations, product
from typing import NamedTuple

from kdsweep.methods import METHODS

STUDENTS = ("lightnn", "mnist_student", "convnet3", "resnet8", "resnet8x4", "wrn_16_1")
METHOD_NAMES = (*METHODS, "kd+at")
PRECISIONS = ("float32", "bfloat16")


class Bench(NamedTuple):
    """Where data and teacher outputs come from."""

    teacher: str
    augment: str
    images: str  # resident, host or streamed
    outputs: str  # cached, or computed in the loop


# Every augmentation with every place of the images, and either with both sources of the teacher's outputs.
BENCHES = (
    Bench("tutorial_teacher", "none", "resident", "cached"),
    Bench("mnist_teacher", "flip", "host", "loop"),
    Bench("resnet32x4", "crop_flip", "streamed", "cached"),
    Bench("wrn_16_2", "none", "host", "cached"),
    Bench("convnet3", "flip", "streamed", "loop"),
    Bench("resnet14", "crop_flip", "resident", "loop"),
    Bench("wrn_16_2", "none", "streamed", "loop"),
    Bench("mnist_teacher", "flip", "resident", "cached"),
    Bench("tutorial_teacher", "crop_flip", "host", "cached"),
)


class Case(NamedTuple):
    """One training."""

    method: str
    student: str
    precision: str
    bench: Bench

    def pairs(self) -> set[tuple[str, str]]:
        """The pairs of settings that this training has, without those of a teacher and a bench."""
        settings = [f"{name}={value}" for name, value in zip(self._fields[:3], self[:3], strict=True)]
        of_bench = [f"{name}={value}" for name, value in self.bench._asdict().items()]
        return {*combinations(settings, 2), *product(settings[1:], of_bench), *product(settings[:1], of_bench[1:])}


def cases() -> Iterator[Case]:
    """Trainings until every pair of settings is there, beginning with the training that has the most new pairs."""
    possible = [Case(*row) for row in product(METHOD_NAMES, STUDENTS, PRECISIONS, BENCHES)]
    random.Random(0).shuffle(possible)
    left = {pair for case in possible for pair in case.pairs()}
    while left:
        best = max(possible, key=lambda case: len(case.pairs() & left))
        left -= best.pairs()
        yield best
