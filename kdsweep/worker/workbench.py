"""What a worker keeps between trials: the data and the teacher's outputs, on its device."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from kdsweep.config.recipes import trial_recipe
from kdsweep.config.spec import SweepSpec
from kdsweep.distributions import Config
from kdsweep.errors import CheckpointError
from kdsweep.lazy import torch
from kdsweep.methods import Outputs
from kdsweep.storage.paths import SweepDir
from kdsweep.tasks import Prepared, Samples
from kdsweep.teacher import build as teachers
from kdsweep.teacher.build import TeacherCard
from kdsweep.teacher.outputs import (
    OutputStore,
    StoredOutputs,
    StoredTeacher,
    TeacherInLoop,
    load_example,
    save_example,
    trial_needs,
)
from kdsweep.training.recipe import Recipe
from kdsweep.training.teaching import NoTeacher, TeacherSource
from kdsweep.training.trainer import Training, resumed
from kdsweep.worker import probe


def provide_teacher(
    spec: SweepSpec,
    sweep: SweepDir,
    data: Prepared,
    device: torch.device,
    on_epoch: Callable[[dict[str, float]], None],
) -> TeacherCard:
    """Have the teacher in the sweep's directory and, without augmentation, its outputs in the store.

    Args:
        spec: The sweep.
        sweep: Its directory.
        data: Its data.
        device: Where the teacher runs.
        on_epoch: Hears of each epoch of training.

    Raises:
        CheckpointError: If the checkpoint does not fit.
        TeacherError: If the teacher is not worth distilling from.
    """
    card = teachers.stored(spec, data, sweep) or teachers.make(spec, data, sweep.store, device, on_epoch)
    card = teachers.with_objective(card, spec, data, sweep, device)
    teachers.judge(card, data)
    teachers.adopt(card, sweep)
    bench = Workbench(spec, sweep, data, card, device)
    if spec.dataset.augment == "none" and not bench.outputs.store.complete(1):
        bench.outputs.store.ensure(1, bench.teacher, bench.train)
    return card


def open_workbench(spec: SweepSpec, sweep: SweepDir, data: Prepared, device: torch.device) -> Workbench:
    """The workbench of a sweep whose teacher was adopted, in a process that trains."""
    card = TeacherCard.read(sweep.teacher_card)
    return Workbench(spec, sweep, data, card, device)


class Workbench:
    """Makes the runs of a sweep, one after another, in one process.

    Args:
        spec: The sweep.
        sweep: Its directory, with the teacher in it.
        data: Its data.
        card: Its teacher.
        device: Where the runs are trained.
    """

    def __init__(self, spec: SweepSpec, sweep: SweepDir, data: Prepared, card: TeacherCard, device: torch.device):
        self.spec = spec
        self.data = data
        self.device = device
        self._sweep = sweep
        self._card = card

    @cached_property
    def precision(self) -> str:
        """What `auto` means for this sweep."""
        known = probe.stored(self._sweep)
        return known.precision if known else "float32"

    @cached_property
    def train(self) -> Samples:
        """The training split."""
        return self.data.split("train", self.device)

    @cached_property
    def val(self) -> Samples:
        """The validation split."""
        return self.data.split("val", self.device)

    @cached_property
    def test(self) -> Samples:
        """The test split, which only confirmation reads."""
        return self.data.split("test", self.device)

    @cached_property
    def teacher(self) -> TeacherInLoop:
        """The teacher itself."""
        tapped = teachers.load(self.spec, self.data, self._sweep.teacher_weights, self.device)
        return TeacherInLoop(tapped, self.data.input_spec, self.device)

    @cached_property
    def example(self) -> Outputs:
        """The teacher's outputs of a small batch."""
        path = self._sweep.teacher_example
        try:
            return load_example(path, self.device)
        except CheckpointError:  # not there yet, or damaged
            save_example(self.teacher.example(), path)
        return load_example(path, self.device)

    @cached_property
    def outputs(self) -> StoredOutputs:
        """The teacher's outputs in files."""
        store = OutputStore.of(self.spec, self.data, self._card.digest, self.example, self._sweep.store)
        return StoredOutputs(store, lambda: self.teacher, self.train)

    def training(self, config: Config, seed: int, state: Path) -> Training:
        """A run of one configuration, gone on with where its state was saved.

        Args:
            config: The configuration.
            seed: Of weights, order and dropout.
            state: Where the run's state may lie.
        """
        if self.spec.train.precision == "auto":
            config = {"precision": self.precision, **config}
        recipe = trial_recipe(self.spec, config, seed)
        return resumed(lambda: Training(recipe, self.data, self.train, self.val, self.source(recipe)), state)

    def source(self, recipe: Recipe) -> TeacherSource:
        """Where a run gets the teacher's outputs from."""
        needs = trial_needs(recipe.method, recipe.method_params)
        if not needs:
            return NoTeacher(self.device)
        if self.outputs.store.holds(needs):
            return StoredTeacher(self.outputs, needs, self.example)
        return self.teacher
