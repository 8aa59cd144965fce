"""Checks that a stacked model computes what its members compute alone."""

from __future__ import annotations

import copy
import json
from functools import lru_cache

import torch
from torch import nn

from kdsweep import models
from kdsweep.errors import ModelError
from kdsweep.methods.base import Outputs
from kdsweep.models.base import InputSpec, Tapped
from kdsweep.models.stacked.convert import stack
from kdsweep.models.stacked.student import StackedStudent

BATCH = 3
TOLERANCE = 1e-3


@lru_cache(maxsize=64)
def fault(name: str, spec: InputSpec, num_classes: int, width: float, options: str = "{}", drop_path: float = 0) -> str:
    """Return why students of a model cannot be stacked; an empty string if they can.

    Two members with different weights run on random samples, alone and stacked, in training and in evaluation. The
    global random state is not changed.

    Args:
        name: The model's name.
        spec: The samples.
        num_classes: Number of classes.
        width: Multiplier of the model's channels.
        options: Further arguments of the model, as JSON.
        drop_path: See `models.drop_paths`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            model = models.build(name, spec, num_classes, width, **json.loads(options))
            if drop_path:
                models.drop_paths(name, model, drop_path)
            example = spec.example(BATCH)
            if not example.is_floating_point():
                return f"samples are {spec.dtype}"
            return _difference(name, model, example.normal_(), spec)
        except ModelError as error:
            return str(error)


def _difference(name: str, model: nn.Module, batch: torch.Tensor, spec: InputSpec) -> str:
    taps = models.taps(name, model, spec)
    members = [_moved(model), _moved(model)]
    stacked = stack(copy.deepcopy(model), len(members), batch)
    own = [member.state_dict() for member in members]
    for key, tensor in stacked.state_dict().items():
        tensor.copy_(torch.stack([state[key] for state in own]))
    shapes = _run(Tapped(copy.deepcopy(model).eval(), taps), batch).shapes()
    student = StackedStudent(stacked, taps, shapes, len(members))
    for training in (False, True):
        stacked.train(training)
        alone = [_run(Tapped(member.train(training), taps), batch) for member in members]
        try:
            together = _run(student, batch)
        except (RuntimeError, IndexError, ValueError) as error:
            return f"its code between layers fails for several members: {str(error).splitlines()[0]}"
        for place, one in enumerate(alone):
            pairs = zip(_tensors(one), _tensors(together), strict=True)
            if not all(_close(theirs, ours[place]) for theirs, ours in pairs):
                return "its code between layers mixes the members"
    return ""


def _moved(model: nn.Module) -> nn.Module:
    """Return a copy whose weights and statistics differ from the model's and, with the next call, from each other's."""
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for tensor in (*moved.parameters(), *moved.buffers()):
            if tensor.is_floating_point():
                tensor.mul_(torch.rand_like(tensor) + 0.5).add_(0.02 * torch.rand_like(tensor))
    return moved


def _run(student: Tapped | StackedStudent, batch: torch.Tensor) -> Outputs:
    torch.manual_seed(1)  # of dropout
    with torch.no_grad():
        outputs = student(batch)
    if isinstance(student, Tapped):
        student.close()
    return outputs


def _tensors(outputs: Outputs) -> tuple[torch.Tensor, ...]:
    return outputs.logits, outputs.embedding, *outputs.features


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape:
        return False
    return bool((one - other).abs().max() <= TOLERANCE * one.abs().max().clamp(min=1e-12))
