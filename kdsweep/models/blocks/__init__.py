"""kdsweep's own torch modules, used by the model families.

This is a package because registry discovery must not import torch and skips packages. Builders import it when called.
"""

from __future__ import annotations

from kdsweep.models.blocks.drop_path import DropPath
from kdsweep.models.blocks.headed import HeadedStudent
from kdsweep.models.blocks.normalise import Normalise
from kdsweep.models.blocks.resnet import CifarResNet
from kdsweep.models.blocks.undrawn import Undrawn
from kdsweep.models.blocks.wrn import WideResNet

__all__ = ["CifarResNet", "DropPath", "HeadedStudent", "Normalise", "Undrawn", "WideResNet"]
