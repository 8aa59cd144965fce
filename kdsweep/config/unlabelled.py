"""Checks of `dataset.unlabelled` beside the other sections."""

from __future__ import annotations

from collections.abc import Iterator

from kdsweep import methods
from kdsweep.config.spec import SweepSpec
from kdsweep.config.yaml import Keys
from kdsweep.errors import InputError
from kdsweep.methods import METHODS
from kdsweep.search.space import SearchSpace
from kdsweep.tasks import Task
from kdsweep.tasks.image.transforms.written import mixers_of


def unlabelled_faults(spec: SweepSpec, space: SearchSpace) -> Iterator[tuple[Keys, str]]:
    """Yield methods and transforms that need a label for each image, as (path, message)."""
    if spec.dataset.unlabelled is None or spec.label_free:
        return
    yield from label_readers(
        space, "the images of dataset.unlabelled have none", (), ", or leave out dataset.unlabelled"
    )
    if all(method == "none" for method in space.methods()):
        message = "found, without a method that distils; accepted: leave it out, plain students need labels"
        yield ("dataset", "unlabelled"), message
    searched = space.shared.get("augment")
    try:
        texts = (spec.augment,) if searched is None else tuple(map(str, searched.every()))
        mixers = sorted({mixer for text in texts for mixer in mixers_of(text)})
    except InputError:
        return  # reported as a fault of the data set
    if mixers:
        message = (
            f"found {' and '.join(mixers)}, which mixes the labels of two images; with dataset.unlabelled, accepted: "
            "other transforms"
        )
        yield ("dataset" if searched is None else "space", "augment"), message


def label_readers(
    space: SearchSpace, why: str, further: tuple[str, ...], otherwise: str = ""
) -> Iterator[tuple[Keys, str]]:
    """Yield the methods whose term reads labels, as (path, message).

    Args:
        space: The space.
        why: Why that is a fault.
        further: Names of methods that are not accepted either.
        otherwise: Text after the accepted methods.
    """
    for method in space.methods():
        readers = [term for term in methods.terms(method) if methods.get(term).reads_labels]
        if readers:
            which = f" in {' and '.join(readers)}" if readers != [method] else ""
            able = ", ".join(name for name in METHODS if not METHODS[name].reads_labels and name not in further)
            message = f"found {method}, which reads labels{which}, and {why}; accepted: {able}{otherwise}"
            yield ("space", "method"), message


def samples_fault(spec: SweepSpec, task: Task) -> str:
    """Return why samples of a task cannot be joined by unlabelled images; empty if they can."""
    if spec.dataset.unlabelled is None or task.has_transforms:
        return ""
    return f"found a folder of images; accepted: leave it out, the samples are {task.noun}"
