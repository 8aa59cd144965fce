"""Samples that are passed to models as they are: the tensors of a Python data set."""

from __future__ import annotations

from kdsweep.tasks.arrays import ArrayTask
from kdsweep.tasks.base import register


@register
class Tensors(ArrayTask):
    """float32 tensors of one shape."""

    name = "tensors"


@register
class Integers(ArrayTask):
    """int64 tensors of one shape, such as token numbers."""

    name = "integers"
    dtype = "int64"
