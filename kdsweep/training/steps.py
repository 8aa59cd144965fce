"""The steps of one epoch: which samples, which views, and what the teacher says of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from kdsweep.lazy import torch
from kdsweep.methods import Outputs
from kdsweep.seeds import derived_seed
from kdsweep.tasks import Mixed, Prepared, Samples
from kdsweep.tasks.order import on_device
from kdsweep.training.recipe import Recipe, view_number
from kdsweep.training.teaching import TeacherSource

OF_ALL_SAMPLES = ("train_loss", "distill_loss")  # the other parts are means over the samples with labels


@dataclass(frozen=True)
class Step:
    """One training step.

    Attributes:
        progress: Fraction of the budget's steps already done, 0 <= progress < 1.
        share: Fraction of the budget that one step takes.
        index: Positions of the samples in the training split, [B].
        batch: Their augmented inputs, [B, ...].
        targets: Their labels, [B], or those of mixed samples; -1 for samples without a label.
        teacher: The teacher's outputs for them.
        labelled: Number of samples with labels. They come first; the number is known to the host, so that no step
            waits for the device to select them.
    """

    progress: float
    share: float
    index: torch.Tensor
    batch: torch.Tensor
    targets: torch.Tensor | Mixed
    teacher: Outputs
    labelled: int

    @property
    def judged(self) -> int:
        """Number of leading samples that the loss on the labels sees, L: those with labels, but at least one."""
        return max(1, self.labelled)

    def asked(self, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the labels as methods see them and as the task loss does.

        Args:
            classes: Number of classes, C.

        Returns:
            Class indices [B], of mixed samples the class with the larger share; and those of the L judged samples, [L],
            or of mixed samples the class probabilities [L, C].
        """
        if isinstance(self.targets, Mixed):
            if not self.labelled:
                return self.targets.dominant(), self.targets.first[:1].clamp(min=0)
            return self.targets.dominant(), self.targets.probabilities(classes)
        if self.labelled == len(self.index):
            return self.targets, self.targets
        # Without any label, one sample gets the class 0; `mean_alpha` is 1 then, so its loss does not count.
        return self.targets, self.targets[: self.judged].clamp(min=0)

    def shown(self, outputs: Outputs) -> Outputs:
        """Return the outputs for the judged samples."""
        if self.labelled == len(self.index):
            return outputs
        logits, embedding, features, classifier = outputs
        rows = slice(self.judged)
        return Outputs(logits[rows], embedding[rows], tuple(stage[rows] for stage in features), classifier)

    def mean_alpha(self, alpha: torch.Tensor | float) -> torch.Tensor | float:
        """Return the mean alpha of the samples: the given one for those with labels, 1 for the others."""
        if self.labelled == len(self.index):
            return alpha
        return alpha + (1 - self.labelled / len(self.index)) * (1 - alpha) if self.labelled else 1.0


class LossMeans:
    """The mean of each loss part over the samples of an epoch; summed on the device, without waiting for it."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._totals: torch.Tensor | float = 0.0
        self._seen = self._labelled = 0

    def add(self, losses: Mapping[str, torch.Tensor], step: Step) -> None:
        """Add the means over a step's samples, each a scalar or [K]."""
        self._names = tuple(losses)
        size = len(step.index)
        if step.labelled == size:
            sums = torch.stack([loss.detach() for loss in losses.values()], dim=-1) * size
        else:
            counts = [size if name in OF_ALL_SAMPLES else step.labelled for name in losses]
            sums = torch.stack([loss.detach() * n for loss, n in zip(losses.values(), counts, strict=True)], dim=-1)
        self._totals = self._totals + sums
        self._seen += size
        self._labelled += step.labelled

    def rows(self) -> list[dict[str, float]]:
        """Return the means by name: one dict, or K. Losses on labels are left out if no sample had one."""
        assert isinstance(self._totals, torch.Tensor)
        seen = [self._seen if name in OF_ALL_SAMPLES else self._labelled for name in self._names]
        totals = self._totals.reshape(-1, len(seen)).tolist()
        return [
            {name: total / count for name, total, count in zip(self._names, one, seen, strict=True) if count}
            for one in totals
        ]


def labelled_in(train: Samples, data: Prepared) -> int:
    """Return how many samples of the training split, or of its beginning, have labels. They come first."""
    return min(len(train), data.count("train") - data.unlabelled) if data.unlabelled else len(train)


def epoch_steps(recipe: Recipe, epoch: int, train: Samples, source: TeacherSource, labelled: int) -> Iterator[Step]:
    """Yield the steps of an epoch, which depend only on the recipe's seeds, augmentation, batch size and budget.

    Args:
        recipe: The settings of the run.
        epoch: The epoch, counted from 1.
        train: The training split.
        source: The source of teacher outputs.
        labelled: Number of samples with labels, which come first in the split.
    """
    view = train.view(recipe.augment, recipe.view_seed, view_number(epoch, recipe.views))
    teacher = source.epoch(epoch, view)
    generator = torch.Generator().manual_seed(derived_seed(recipe.seed, "order", epoch))
    order = _order(recipe, len(train), labelled, generator)
    size, epochs = recipe.optimization.batch_size, recipe.optimization.epochs
    # Batch normalisation has no variance over a last batch of one, so drop it; the next epoch has another order.
    batches = list(order.split(size))
    if len(batches) > 1 and len(batches[-1]) == 1 < size:
        batches.pop()
    counts = list(map(len, batches))
    if labelled < len(train) and (recipe.alpha or not labelled):  # on the CPU, where no step waits for it
        counts = [int((index < labelled).sum()) for index in batches]
        batches = [torch.cat([index[index < labelled], index[index >= labelled]]) for index in batches]
    samples = zip(on_device(batches, train.device), train.sequence(batches, view), strict=True)
    for step, (index, batch) in enumerate(samples):
        progress = (epoch - 1 + step / len(batches)) / epochs
        targets = train.targets(index, view)
        share = 1 / (len(batches) * epochs)
        yield Step(progress, share, index, batch, targets, teacher(index, batch), counts[step])


def _order(recipe: Recipe, count: int, labelled: int, generator: torch.Generator) -> torch.Tensor:
    """Return the positions of an epoch's samples in their order.

    A run without distillation sees only samples with labels: each once, or again and again until it has taken as many
    steps as the runs that distil from all samples. Where no sample has a label, only the probe runs so, for its times.
    """
    if recipe.alpha or labelled in (0, count):
        return torch.randperm(count, generator=generator)
    wanted = count if recipe.repeat_labelled else labelled
    rounds = [torch.randperm(labelled, generator=generator) for _ in range(-(-wanted // labelled))]
    return torch.cat(rounds)[:wanted]
