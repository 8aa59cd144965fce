"""The commands that list what there is: methods, models, data sets and other parts. Each imports what it lists."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdsweep.registry import import_from


def methods(
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="A method to describe, or your own package.module:Class.")
    ] = "",
) -> None:
    """List the distillation methods, or describe one."""
    from kdsweep.methods import reference
    from kdsweep.terminal import tables

    if name:
        import_from(str(Path.cwd()))  # so that it finds package.module:Class
        tables.print_method(reference.describe(name))
    else:
        tables.print_rows([tables.method_row(row) for row in reference.table()])


def models() -> None:
    """List the models for teachers and students."""
    from kdsweep.models import MODELS
    from kdsweep.terminal import tables

    rows = [{"model": key, "description": MODELS[key].summary} for key in MODELS]
    rows += [
        {
            "model": "torchvision/<name>",
            "description": "any torchvision classifier, with a head for your classes; some take a width",
        },
        {
            "model": "timm/<name>",
            "description": "any timm model, if timm is installed, such as timm/mobilenetv3_small_050",
        },
        {
            "model": "transformers/<type>",
            "description": "for texts: a sequence classifier, if transformers is installed, such as transformers/bert",
        },
        {"model": "package.module:function", "description": "your own: function(input_shape, num_classes, width, ...)"},
    ]
    tables.print_rows(rows)


def datasets() -> None:
    """List the data sets."""
    from kdsweep.datasets import DATASETS, nameable
    from kdsweep.terminal import tables

    rows = [{"dataset": key, "description": DATASETS[key].summary} for key in nameable()]
    rows.append({"dataset": "package.module:function", "description": "your own: function(source, split)"})
    tables.print_rows(rows)


def transforms() -> None:
    """List the transforms of training images, for dataset.augment and space.augment."""
    from kdsweep.tasks.image.transforms import TRANSFORMS
    from kdsweep.terminal import tables

    tables.print_rows(tables.part_rows(TRANSFORMS))


def optimizers() -> None:
    """List the optimizers."""
    from kdsweep.terminal import tables
    from kdsweep.training.optimizers import OPTIMIZERS

    tables.print_rows(tables.open_part_rows(OPTIMIZERS))


def schedules() -> None:
    """List the learning-rate schedules."""
    from kdsweep.terminal import tables
    from kdsweep.training.schedules import SCHEDULES

    tables.print_rows(tables.open_part_rows(SCHEDULES))


def losses() -> None:
    """List the losses on the labels."""
    from kdsweep.tasks.losses import LOSSES
    from kdsweep.terminal import tables

    tables.print_rows(tables.open_part_rows(LOSSES))


def samplers() -> None:
    """List the samplers, which propose configurations."""
    from kdsweep.search.samplers import SAMPLERS
    from kdsweep.terminal import tables

    tables.print_rows(tables.open_part_rows(SAMPLERS))


def schedulers() -> None:
    """List the stopping rules."""
    from kdsweep.search.stopping import STOPPING_RULES
    from kdsweep.terminal import tables

    tables.print_rows(tables.open_part_rows(STOPPING_RULES))


COMMANDS = (methods, models, datasets, transforms, optimizers, schedules, losses, samplers, schedulers)
