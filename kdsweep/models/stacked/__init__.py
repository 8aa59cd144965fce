"""K students of one shape as one model, with a rule for each type of layer.

Activations keep the members along dimension 1, member by member: maps are [B, K*C, H, W] and flattened ones [B, K*D].
Code between layers that treats channels one by one, such as an addition or a flattening, therefore needs no rule. The
outputs of linear layers are [K, B, D]. Until the first layer with weights, all members share the input.

This is a package because registry discovery must not import torch and skips packages.
"""

from __future__ import annotations

from kdsweep.models.stacked.check import fault
from kdsweep.models.stacked.convert import StackError, resize, stack
from kdsweep.models.stacked.student import StackedStudent

__all__ = ["StackError", "StackedStudent", "fault", "resize", "stack"]
