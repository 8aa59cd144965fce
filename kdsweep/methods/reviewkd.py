"""Knowledge review."""

from __future__ import annotations

from kdsweep.distributions import LogUniform
from kdsweep.lazy import F, nn, torch
from kdsweep.methods.base import FRACTION, WEIGHT, Method, Outputs, Param, Shapes, register
from kdsweep.methods.dkd import ramp, ramp_buffer
from kdsweep.methods.stages import match_stages, pool

POOLED_SIZES = (4, 2, 1)


@register
class KnowledgeReview(Method):
    """Knowledge review: match each teacher stage with the student's same and deeper stages, fused by attention.

    Stages are paired by resolution. Adapters, for each pair: a 1 x 1 convolution to a common width, attention that
    mixes the result with the fused map of the deeper stages, and a 3 x 3 convolution to the teacher's channels; the
    convolutions have batch normalisation. Buffers: the warm-up factor.
    """

    name = "reviewkd"
    formula = "sum over stages of mse(fused F_s, F_t), a mean over full, 4, 2, 1 pixels with weights 1, 1/2, 1/4, 1/8"
    source = "Chen et al. 2021, arXiv:2104.09044"
    needs = frozenset({"features"})
    warmup_fraction = Param(0.08, "fraction of training over which the term ramps up from 0", valid=FRACTION)
    weight = Param(5.0, "scale of the term", LogUniform(0.5, 10), valid=WEIGHT)

    def check(self, student: Shapes, teacher: Shapes) -> None:
        """Both models have stage maps."""
        match_stages(student.features, teacher.features)

    def build(self, student: Outputs, teacher: Outputs) -> nn.Module:
        """Create one fusion block per pair, from deep to shallow."""
        self._pairs = match_stages(student.features, teacher.features)[::-1]
        width = min(512, student.features[self._pairs[0][0]].shape[1])
        self._reduce, self._mix, self._expand = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for i, j in self._pairs:
            self._reduce.append(_convolution(student.features[i].shape[1], width, 1))
            self._expand.append(_convolution(width, teacher.features[j].shape[1], 3))
        for _ in self._pairs[1:]:
            self._mix.append(nn.Sequential(nn.Conv2d(2 * width, 2, 1), nn.Sigmoid()))
        parts = {"reduce": self._reduce, "mix": self._mix, "expand": self._expand}
        return ramp_buffer(nn.ModuleDict(parts))

    def advance(self, progress: float, index: torch.Tensor) -> None:
        self.adapters.get_buffer("ramp").fill_(ramp(progress, self.warmup_fraction))

    def term(self, student: Outputs, teacher: Outputs, labels: torch.Tensor) -> torch.Tensor:
        """Sum over paired stages, times the warm-up factor."""
        targets = [teacher.features[j].float() for _, j in self._pairs]
        reduced = [block(student.features[i].float()) for (i, _), block in zip(self._pairs, self._reduce, strict=True)]
        fused = [_resized(reduced[0], targets[0])]
        for own, target, mix in zip(reduced[1:], targets[1:], self._mix, strict=True):
            deeper = _resized(fused[-1], own)
            shares = mix(torch.cat([own, deeper], dim=1))
            fused.append(_resized(own * shares[:, :1] + deeper * shares[:, 1:], target))
        total = student.logits.new_zeros((), dtype=torch.float32)
        for maps, target, block in zip(fused, targets, self._expand, strict=True):
            total = total + _pyramid(block(maps), target)
        return total * self.adapters.get_buffer("ramp")


def _pyramid(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """Weighted mean of the squared errors at full size and at the smaller pooled sizes."""
    total, share, shares = F.mse_loss(ours, theirs), 1.0, 1.0
    for size in POOLED_SIZES:
        if size < min(theirs.shape[-2:]):
            share /= 2
            shares += share
            total = total + share * F.mse_loss(pool(ours, (size, size)), pool(theirs, (size, size)))
    return total / shares


def _resized(maps: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Resize maps to the size of `like` by nearest-neighbour interpolation."""
    return maps if maps.shape[-2:] == like.shape[-2:] else F.interpolate(maps, like.shape[-2:], mode="nearest")


def _convolution(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    from kdsweep.methods.adapters.norm import BatchNorm2d

    convolution = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_uniform_(convolution.weight, a=1)
    return nn.Sequential(convolution, BatchNorm2d(out_channels))
