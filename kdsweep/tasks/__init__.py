"""Tasks: what a sample is, how batches are made, and how models are scored.

Each data set declares its task by name, so `dataset.name` in the sweep file determines the task.
"""

from __future__ import annotations

from kdsweep import datasets
from kdsweep.datasets.section import DatasetSpec
from kdsweep.errors import InputError
from kdsweep.registry import is_user_object, load_user_object
from kdsweep.tasks.arrays import ArrayTask
from kdsweep.tasks.base import TASKS, Mixed, Prepared, Samples, Task, View, counted, register
from kdsweep.tasks.metrics import Goal, Metric
from kdsweep.words import kind_of

__all__ = [
    "TASKS", "ArrayTask", "Goal", "Metric", "Mixed", "Prepared", "Samples", "Task", "View", "counted", "get", "of",
    "register",
]  # fmt: skip


def get(name: str) -> Task:
    """Look up a registered task, or load the user's own `package.module:Class`.

    Raises:
        UnknownNameError: If there is no such task; the message suggests the closest name.
        InputError: If the object is not a subclass of `Task`.
    """
    if not is_user_object(name):
        return TASKS[name]
    found = load_user_object(name, "task")
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise InputError(f"task {name!r}: {kind_of(found)}; accepted: a subclass of kdsweep.tasks.Task")
    task = found()
    task.name = name
    return task


def of(spec: DatasetSpec) -> Task:
    """The task that a sweep file's data set declares."""
    return get(datasets.get(spec.name).task)
