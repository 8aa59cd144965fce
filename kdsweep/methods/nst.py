"""Neuron selectivity transfer."""

from __future__ import annotations

from kdsweep.distributions import LogUniform
from kdsweep.lazy import nn, torch
from kdsweep.methods.base import WEIGHT, Method, Outputs, Param, Shapes, register
from kdsweep.methods.stages import bridge, match_stages
from kdsweep.methods.vectors import unit


@register
class NeuronSelectivity(Method):
    """Neuron selectivity: match the distribution of channel activations by maximum mean discrepancy.

    Stages are paired by resolution; the larger map is average-pooled. Layers of texts are paired evenly; their channels
    are those of the hidden states.
    """

    name = "nst"
    formula = "sum over stages of mean k(t, t) + mean k(s, s) - 2 mean k(s, t), k = (f · g)² of unit channels"
    source = "Huang & Wang 2017, arXiv:1707.01219"
    needs = frozenset({"features"})
    stacks = frozenset()
    weight = Param(50.0, "scale of the term", LogUniform(5, 200), valid=WEIGHT)

    def check(self, student: Shapes, teacher: Shapes) -> None:
        """Both models have stage maps, or both have hidden states."""
        match_stages(student.features, teacher.features, states=True)

    def build(self, student: Outputs, teacher: Outputs) -> nn.Module:
        self._pairs = match_stages(student.features, teacher.features, states=True)
        return nn.Module()

    def term(self, student: Outputs, teacher: Outputs, labels: torch.Tensor) -> torch.Tensor:
        total = student.logits.new_zeros((), dtype=torch.float32)
        for i, j in self._pairs:
            maps = student.features[i].float(), teacher.features[j].float()
            maps = (_as_channels(maps[0]), _as_channels(maps[1])) if maps[0].ndim == 3 else bridge(*maps)
            ours, theirs = (unit(m.flatten(2), dim=2) for m in maps)
            total = total + _kernel(theirs, theirs) + _kernel(ours, ours) - 2 * _kernel(ours, theirs)
        return total


def _as_channels(states: torch.Tensor) -> torch.Tensor:
    """Hidden states [B, T, D] as one channel for each of their values, [B, D, T]."""
    return states.transpose(1, 2)


def _kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a @ b.transpose(1, 2)).square().mean()
