"""Contrastive representation distillation."""

from __future__ import annotations

import math

from kdsweep.distributions import LogUniform, RandInt, Uniform
from kdsweep.errors import MethodError
from kdsweep.lazy import F, nn, torch
from kdsweep.methods.base import WEIGHT, Method, Outputs, Param, register
from kdsweep.methods.vectors import unit


@register
class Contrastive(Method):
    """Contrastive loss: pull a sample's two embeddings together, away from samples of other classes.

    Negatives come from a memory bank. They are drawn uniformly from the training split with torch's global generator,
    once per batch. Negatives of the sample's own class are ignored; classes are learned from the batches seen so
    far. Adapters: a linear projection of each embedding to `dim`. Buffers: a memory bank [N, dim] per model, the
    samples' classes, and two normalisers, set by the first batch; in total 8 (dim + 1) bytes per training sample. The
    class of an image mixed by MixUp or CutMix is the one with the larger share; the paper does not mix images.
    """

    name = "crd"
    formula = "-log h(s·t⁺) - sum log(1 - h(s·t⁻)), for both sides; h(x) = p / (p + K / N), p = exp(x / T) / Z"
    source = "Tian, Krishnan, Isola 2020, arXiv:1910.10699"
    needs = frozenset({"embedding"})
    reads_labels = True
    dim = Param(128, "width of the projections", valid=RandInt(1, 65536))
    negatives = Param(16384, "negatives per batch, at most the number of training samples", valid=RandInt(1, 10**9))
    temperature = Param(0.07, "temperature of the contrastive loss", valid=Uniform(1e-3, 10.0))
    momentum = Param(0.5, "share of the old entry that a memory update keeps", valid=Uniform(0.0, 0.999))
    weight = Param(0.8, "scale of the term", LogUniform(0.1, 2), valid=WEIGHT)

    def build(self, student: Outputs, teacher: Outputs) -> nn.Module:
        dim = int(self.dim)
        self._sides = nn.ModuleDict(
            {
                "student": nn.Linear(student.embedding.shape[1], dim),
                "teacher": nn.Linear(teacher.embedding.shape[1], dim),
            }
        )
        for side in self._sides.values():
            side.register_buffer("memory", torch.empty(0, dim))
            side.register_buffer("log_normaliser", torch.tensor(torch.inf))
        self._sides.register_buffer("classes", torch.empty(0, dtype=torch.long))
        self._index = torch.empty(0, dtype=torch.long)
        return self._sides

    def prepare(self, num_samples: int) -> None:
        """Initialise the memory bank with uniform noise."""
        bound = (3 / self.dim) ** 0.5
        for side in self._sides.values():
            noise = torch.rand(num_samples, int(self.dim)) * 2 * bound - bound
            side.register_buffer("memory", noise.to(side.get_buffer("memory").device))
        unknown = torch.full((num_samples,), -1).to(self._sides.get_buffer("classes").device)
        self._sides.register_buffer("classes", unknown)

    def advance(self, progress: float, index: torch.Tensor) -> None:
        self._index = index

    def term(self, student: Outputs, teacher: Outputs, labels: torch.Tensor) -> torch.Tensor:
        """Sum over negatives and both models, mean over the batch; then update the memory bank."""
        classes = self._sides.get_buffer("classes")
        if len(classes) == 0 or len(self._index) != len(labels):
            raise MethodError(
                f"method crd: call prepare() once and advance() before each step; it knows {len(classes)} training "
                f"samples, and {len(self._index)} sample indices for a batch of {len(labels)}"
            )
        drawn = torch.randint(len(classes), (min(int(self.negatives), len(classes)),), device=classes.device)
        classes[self._index] = labels
        usable = classes[drawn] != labels[:, None]
        ours, theirs = (
            unit(self._sides[who](outputs.embedding.float()), dim=1)
            for who, outputs in (("student", student), ("teacher", teacher))
        )
        total = self._contrast(ours, self._sides["teacher"], drawn, usable)
        total = total + self._contrast(theirs, self._sides["student"], drawn, usable)
        self._remember(ours, self._sides["student"])
        self._remember(theirs, self._sides["teacher"])
        return total

    def _contrast(
        self, anchors: torch.Tensor, side: nn.Module, drawn: torch.Tensor, usable: torch.Tensor
    ) -> torch.Tensor:
        """Noise-contrastive loss of anchors [B, dim] against a memory bank, in log space."""
        memory, normaliser = side.get_buffer("memory"), side.get_buffer("log_normaliser")
        positive = (anchors * memory[self._index]).sum(dim=1, keepdim=True) / self.temperature
        negative = anchors @ memory[drawn].T / self.temperature
        with torch.no_grad():
            scores = torch.cat([positive, negative.masked_fill(~usable, -torch.inf)], dim=1)
            mean = scores.logsumexp(dim=(0, 1)) - (usable.sum() + len(usable)).log()
            normaliser.copy_(torch.where(normaliser.isinf(), mean + math.log(len(memory)), normaliser))
        noise = normaliser.clone() + (usable.sum(dim=1, keepdim=True) / len(memory)).log()
        found = F.logsigmoid(positive - noise).squeeze(1)
        refused = torch.where(usable, F.logsigmoid(noise - negative), 0.0).sum(dim=1)
        return -(found + refused).mean()

    def _remember(self, embedded: torch.Tensor, side: nn.Module) -> None:
        memory = side.get_buffer("memory")
        kept = self.momentum * memory[self._index] + (1 - self.momentum) * embedded.detach()
        memory[self._index] = unit(kept, dim=1)
