"""The `cosine` learning-rate schedule."""

from __future__ import annotations

from kdsweep.training.schedules.base import SCHEDULES
from kdsweep.training.schedules.decay import Decay


@SCHEDULES.declare
class Cosine(Decay):
    """Cosine decay over the budget, to 0 or to a fraction of the rate.

    Loshchilov, Hutter 2017, arXiv:1608.03983, without the restarts.
    """

    name = "cosine"
