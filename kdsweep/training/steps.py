"""The steps of one epoch: which samples, which views, and what the teacher says of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kdsweep.lazy import torch
from kdsweep.methods import Outputs
from kdsweep.seeds import derived_seed
from kdsweep.tasks import Mixed, Samples
from kdsweep.tasks.order import on_device
from kdsweep.training.recipe import Recipe, view_number
from kdsweep.training.teaching import TeacherSource


@dataclass(frozen=True)
class Step:
    """One training step.

    Attributes:
        progress: Fraction of the budget's steps already done, 0 <= progress < 1.
        share: Fraction of the budget that one step takes.
        index: Positions of the samples in the training split, [B].
        batch: Their augmented inputs, [B, ...].
        targets: Their labels, [B], or those of mixed samples.
        teacher: The teacher's outputs for them.
    """

    progress: float
    share: float
    index: torch.Tensor
    batch: torch.Tensor
    targets: torch.Tensor | Mixed
    teacher: Outputs


def asked_of(targets: torch.Tensor | Mixed, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the labels as methods see them and as the task loss does.

    Args:
        targets: See `Step`.
        classes: Number of classes, C.

    Returns:
        Class indices [B], of mixed samples the class with the larger share; and the same, or of mixed samples the class
        probabilities [B, C].
    """
    if isinstance(targets, Mixed):
        return targets.dominant(), targets.probabilities(classes)
    return targets, targets


def epoch_steps(recipe: Recipe, epoch: int, train: Samples, source: TeacherSource) -> Iterator[Step]:
    """Yield the steps of an epoch, which depend only on the recipe's seeds, augmentation, batch size and budget.

    Args:
        recipe: The settings of the run.
        epoch: The epoch, counted from 1.
        train: The training split.
        source: The source of teacher outputs.
    """
    view = train.view(recipe.augment, recipe.view_seed, view_number(epoch, recipe.views))
    teacher = source.epoch(epoch, view)
    generator = torch.Generator().manual_seed(derived_seed(recipe.seed, "order", epoch))
    order = torch.randperm(len(train), generator=generator)
    size, epochs = recipe.optimization.batch_size, recipe.optimization.epochs
    # Batch normalisation has no variance over a last batch of one, so drop it; the next epoch has another order.
    batches = list(order.split(size))
    if len(batches) > 1 and len(batches[-1]) == 1 < size:
        batches.pop()
    samples = zip(on_device(batches, train.device), train.sequence(batches, view), strict=True)
    for step, (index, batch) in enumerate(samples):
        progress = (epoch - 1 + step / len(batches)) / epochs
        targets = train.targets(index, view)
        yield Step(progress, 1 / (len(batches) * epochs), index, batch, targets, teacher(index, batch))
