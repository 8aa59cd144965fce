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
class Moment:
    """What the host knows of a training step.

    Attributes:
        progress: Fraction of the budget's steps already done, 0 <= progress < 1.
        share: Fraction of the budget that one step takes.
        index: Positions of the samples in the training split, [B].
        labelled: Number of samples with labels. They come first; the number is known to the host, so that no step
            waits for the device to select them.
    """

    progress: float
    share: float
    index: torch.Tensor
    labelled: int


@dataclass(frozen=True)
class Step(Moment):
    """One training step.

    Attributes:
        batch: The samples' augmented inputs, [B, ...].
        targets: Their labels, [B], or those of mixed samples; -1 for samples without a label.
        teacher: The teacher's outputs for them.
    """

    batch: torch.Tensor
    targets: torch.Tensor | Mixed
    teacher: Outputs

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
        self._totals: torch.Tensor | None = None
        self._seen = self._labelled = 0

    def add(self, losses: Mapping[str, torch.Tensor], step: Step) -> None:
        """Add the means over a step's samples, each a scalar or [K]."""
        self.sum(losses, step)
        self.count(step)

    def sum(self, losses: Mapping[str, torch.Tensor], step: Step) -> None:
        """Add to the sums, after the first step in place. `count` follows."""
        self._names = tuple(losses)
        size = len(step.index)
        if step.labelled == size:
            sums = torch.stack([loss.detach() for loss in losses.values()], dim=-1) * size
        else:
            counts = [size if name in OF_ALL_SAMPLES else step.labelled for name in losses]
            sums = torch.stack([loss.detach() * n for loss, n in zip(losses.values(), counts, strict=True)], dim=-1)
        if self._totals is None:
            self._totals = sums
        else:
            self._totals += sums

    def count(self, step: Moment) -> None:
        """Count the samples of a step."""
        self._seen += len(step.index)
        self._labelled += step.labelled

    def rows(self) -> list[dict[str, float]]:
        """Return the means by name: one dict, or K. Losses on labels are left out if no sample had one."""
        assert self._totals is not None
        seen = [self._seen if name in OF_ALL_SAMPLES else self._labelled for name in self._names]
        totals = self._totals.reshape(-1, len(seen)).tolist()
        return [
            {name: total / count for name, total, count in zip(self._names, one, seen, strict=True) if count}
            for one in totals
        ]


def labelled_in(train: Samples, data: Prepared) -> int:
    """Return how many samples of the training split, or of its beginning, have labels. They come first."""
    return min(len(train), data.count("train") - data.unlabelled) if data.unlabelled else len(train)


class Epoch:
    """The steps of an epoch, which depend only on the recipe's seeds, augmentation, batch size and budget.

    Args:
        recipe: The settings of the run.
        epoch: The epoch, counted from 1.
        train: The training split.
        source: The source of teacher outputs.
        labelled: Number of samples with labels, which come first in the split.

    Attributes:
        moments: The steps as the host knows them, with the positions of the samples on the device.
    """

    def __init__(self, recipe: Recipe, epoch: int, train: Samples, source: TeacherSource, labelled: int):
        self._train = train
        self._view = train.view(recipe.augment, recipe.view_seed, view_number(epoch, recipe.views))
        self._teacher = source.epoch(epoch, self._view)
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
        self._batches = batches
        share = 1 / (len(batches) * epochs)
        there = zip(on_device(batches, train.device), counts, strict=True)
        self.moments = [
            Moment((epoch - 1 + number / len(batches)) / epochs, share, index, count)
            for number, (index, count) in enumerate(there)
        ]

    def steps(self) -> Iterator[Step]:
        """Yield the steps, each while the data of the next one may already be on its way to the device."""
        inputs = self._train.sequence(self._batches, self._view)
        for moment, batch in zip(self.moments, inputs, strict=True):
            yield self._step(moment, batch)

    def step(self, moment: Moment) -> Step:
        """Return one step, from the positions of its samples on the device alone."""
        return self._step(moment, self._train.batch(moment.index, self._view))

    def _step(self, moment: Moment, batch: torch.Tensor) -> Step:
        index = moment.index
        targets = self._train.targets(index, self._view)
        return Step(moment.progress, moment.share, index, moment.labelled, batch, targets, self._teacher(index, batch))


def epoch_steps(recipe: Recipe, epoch: int, train: Samples, source: TeacherSource, labelled: int) -> Iterator[Step]:
    """Yield the steps of an epoch. See `Epoch`."""
    return Epoch(recipe, epoch, train, source, labelled).steps()


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
