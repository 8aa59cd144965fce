"""What is learnt? A task says what a sample is, how batches are made, and what a good model is.

A data set declares its task by name, so the sweep file's `dataset` decides it.
"""

from __future__ import annotations

from kdsweep import datasets
from kdsweep.datasets.section import DatasetSpec
from kdsweep.errors import InputError
from kdsweep.registry import is_user_object, load_user_object
from kdsweep.tasks.arrays import ArrayTask
from kdsweep.tasks.base import TASKS, Prepared, Samples, Task, View, register
from kdsweep.tasks.metrics import Goal, Metric

__all__ = ["TASKS", "ArrayTask", "Goal", "Metric", "Prepared", "Samples", "Task", "View", "get", "of", "register"]


def get(name: str) -> Task:
    """The task of a registered name, or the user's own `package.module:Class`.

    Raises:
        UnknownNameError: With the nearest valid name.
        InputError: If what `name` names is not a task.
    """
    if not is_user_object(name):
        return TASKS[name]
    found = load_user_object(name, "task")
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise InputError(f"task {name!r}: a {type(found).__name__}; accepted: a subclass of kdsweep.tasks.Task")
    task = found()
    task.name = name
    return task


def of(spec: DatasetSpec) -> Task:
    """The task of a sweep file's data set."""
    return get(datasets.get(spec.name).task)
