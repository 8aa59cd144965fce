"""Modules of our own that models are built from.

A package, because its classes need torch: the registry's discovery, which does without, passes packages by.
Builders import it when they run.
"""

from __future__ import annotations

from kdsweep.models.blocks.headed import HeadedStudent
from kdsweep.models.blocks.normalise import Normalise
from kdsweep.models.blocks.resnet import CifarResNet
from kdsweep.models.blocks.undrawn import Undrawn
from kdsweep.models.blocks.wrn import WideResNet

__all__ = ["CifarResNet", "HeadedStudent", "Normalise", "Undrawn", "WideResNet"]
