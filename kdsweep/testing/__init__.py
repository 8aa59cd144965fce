"""Contract tests for your own parts.

Subclass a contract and implement `make`, which creates your part; pytest does the rest:

    class TestMedian(StoppingRuleContract):
        def make(self, epochs):
            return Median(epochs, patience=2)
"""

from __future__ import annotations

from kdsweep.testing.optimizers import OptimizerContract
from kdsweep.testing.samplers import SamplerContract
from kdsweep.testing.stopping import StoppingRuleContract

__all__ = ["OptimizerContract", "SamplerContract", "StoppingRuleContract"]
