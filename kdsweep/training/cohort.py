"""Trains K students of one shape as one computation.

All members see the same samples in the same order, and draw the same initial weights and dropout masks, as trials of a
sweep do. Their weights are stacked, so that a step of all members is one forward pass, one backward pass and one
optimizer step. Each member gets the curve that `Training` gives it, up to rounding, and both read and write the same
state files.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kdsweep import methods, models
from kdsweep.errors import CheckpointError, ModelError
from kdsweep.lazy import nn, torch
from kdsweep.models import Taps
from kdsweep.seeds import derived_seed
from kdsweep.storage import weights
from kdsweep.tasks import Prepared, Samples, Task
from kdsweep.tasks.losses import LOSSES
from kdsweep.tasks.metrics.totals import Totals
from kdsweep.training.averaging import Average
from kdsweep.training.batches import batch_size
from kdsweep.training.grouping import cohort_key
from kdsweep.training.precision import autocast_dtype
from kdsweep.training.recipe import Recipe
from kdsweep.training.shapes import Factor
from kdsweep.training.state import RunState, Tensors
from kdsweep.training.steps import LossMeans, Step, epoch_steps, labelled_in
from kdsweep.training.teaching import TeacherSource
from kdsweep.training.terms import StackedTerm
from kdsweep.training.trainer import DivergedError, on_device
from kdsweep.training.updates import StackedUpdates

Row = dict[str, float]


@dataclass
class Member:
    """One run of a cohort.

    Attributes:
        recipe: Its settings.
        best_value: The best value of the objective so far.
        best_epoch: The epoch of that value.
        history: Its row of each epoch.
        best: The weights of the best epoch.
        failure: Why it cannot go on; None if it can.
    """

    recipe: Recipe
    best_value: float
    best_epoch: int = 0
    history: list[Row] = field(default_factory=list)
    best: Tensors = field(default_factory=dict)
    failure: DivergedError | None = None

    def check(self, name: str, value: float, epoch: int) -> bool:
        """Return whether the run can go on; note a failure if a value is not finite."""
        if self.failure is None and not math.isfinite(value):
            self.failure = DivergedError(f"{name} became {value} in epoch {epoch}")
        return self.failure is None


class Cohort:
    """K training runs, advanced together one epoch at a time.

    Args:
        recipes: The settings of the runs. `grouping.cohort_key` gives the same key for all of them.
        data: The prepared data set.
        train: The training split, on the cohort's device.
        val: The validation split, on the same device.
        teacher: The source of teacher outputs.

    Attributes:
        members: The runs. Methods number them by their place here.

    Raises:
        ModelError: If these runs cannot train as one: their recipes differ in more than members may, or their task,
            method, optimizer or model has a part that works for one student only. Train them with `Training` then.
    """

    def __init__(self, recipes: Sequence[Recipe], data: Prepared, train: Samples, val: Samples, teacher: TeacherSource):
        recipe = recipes[0]
        if fault := refusal(recipes, data):
            raise ModelError(f"these runs cannot train as one: {fault}")
        self.members = [Member(one, one.goal.worst) for one in recipes]
        self._train, self._val, self._teacher = train, val, teacher
        self._labelled = labelled_in(train, data)
        self._device = train.device
        self._task, self._classes, self._input = data.task, data.num_classes, data.input_spec
        self._metrics = data.task.measured((recipe.goal.metric, *recipe.metrics), data.num_classes)
        torch.manual_seed(derived_seed(recipe.seed, "weights"))
        model = models.build(recipe.model, data.input_spec, data.num_classes, recipe.width, **recipe.options)
        if recipe.optimization.drop_path:
            models.drop_paths(recipe.model, model, recipe.optimization.drop_path)
        self._build(on_device(model, self._device), models.taps(recipe.model, model, data.input_spec))
        self._alpha_factor = Factor(recipe.alpha_schedule, self._device)
        self._cooling = Factor(recipe.temperature_schedule, self._device)
        self._method.cool(self._cooling.value)
        self._schedule = recipe.optimization.make_schedule()
        self._task_loss = LOSSES.create(recipe.task_loss, **recipe.task_loss_params)
        self._autocast = autocast_dtype(recipe.optimization.precision)
        self._arrange()

    @property
    def epoch(self) -> int:
        """Number of epochs done."""
        return max(len(member.history) for member in self.members)

    @property
    def done(self) -> bool:
        """Whether all epochs are done."""
        return self.epoch >= self.members[0].recipe.optimization.epochs

    def run_epoch(self) -> list[Row | DivergedError]:
        """Train one epoch and validate.

        Returns:
            For each member what `Training.run_epoch` returns, with its share of the time as `seconds`; or the error if
            its loss or objective is not finite. The other members are not affected. `keep` removes it; until then it
            is only carried along.

        Raises:
            ValueError: If members were loaded from different epochs.
        """
        epochs = {len(member.history) for member in self.members if member.failure is None}
        if len(epochs) > 1:
            raise ValueError(f"members are at different epochs: {sorted(epochs)}")
        started = time.perf_counter()
        epoch = self.epoch + 1
        torch.manual_seed(derived_seed(self.members[0].recipe.seed, "epoch", epoch))
        losses, multiplier = self._train_epoch(epoch)
        for member, loss in zip(self.members, losses, strict=True):
            member.check("the training loss", loss["train_loss"], epoch)
        with self._average.in_model():
            measured = self._validate(epoch)
        seconds = (time.perf_counter() - started) / len(self.members)
        for member, loss, values in zip(self.members, losses, measured, strict=True):
            if member.failure is None:
                rate = member.recipe.optimization.scaled_lr * multiplier
                row = {f"val_{name}": value for name, value in values.items()} | {"lr": rate, "seconds": seconds}
                member.history.append({"epoch": epoch, **loss, **row})
        return [member.failure or member.history[-1] for member in self.members]

    def keep(self, members: Sequence[int]) -> None:
        """Go on with some members only.

        Args:
            members: Their places; at least one. They are numbered anew, in this order.
        """
        from kdsweep.models.stacked import resize

        states = [self._state(place) for place in members]
        self.members = [self.members[place] for place in members]
        resize(self._student.model, len(members))
        self._student.members = len(members)
        self._arrange()
        for place, state in enumerate(states):
            self._restore(place, state)

    def save(self, member: int, state: Path, best: Path | None = None) -> None:
        """Write one member's resumable state and, if given, its best weights, as `Training.save` does."""
        if best is not None:
            weights.save(self.members[member].best, best, {})
        self._state(member).write(state)

    def load(self, member: int, state: Path) -> None:
        """Let one member go on from a state that `save` or `Training.save` wrote. All members must be of one epoch.

        Raises:
            CheckpointError: If the file is damaged or belongs to another run.
        """
        try:
            self._restore(member, RunState.read(state))
        except (KeyError, IndexError, RuntimeError, ValueError) as error:
            what = str(error).splitlines()[0]
            raise CheckpointError(f"trial state {state}: not the state of this run: {what}") from error

    def close(self) -> None:
        """Remove the taps from the model."""
        self._student.close()

    def _build(self, model: nn.Module, taps: Taps) -> None:
        """Create the method as `Training` does, and stack the model."""
        from kdsweep.models.stacked import StackedStudent, stack

        recipe = self.members[0].recipe
        batch = self._train.batch(torch.arange(min(2, len(self._train))))
        tapped = self._task.tapped(model.eval(), taps, self._input)
        with torch.no_grad():
            example = tapped(batch)
        tapped.close()
        self._method = methods.create(recipe.method, example, self._teacher.example(), **recipe.method_params)
        self._method.prepare(len(self._train))
        self._method.to(self._device)
        stacked = stack(model, len(self.members), batch)
        self._student = StackedStudent(stacked, taps, example.shapes(), len(self.members))

    def _arrange(self) -> None:
        """Create everything that is per member, apart from the model. Adapters begin anew."""
        recipes = [member.recipe for member in self.members]
        self._batch = 0
        self._alpha = torch.tensor([recipe.alpha for recipe in recipes], device=self._device)
        self._term = StackedTerm(self._method, recipes, self._device)
        trained = [*self._student.model.parameters(), *self._term.adapters.values()]
        self._updates = StackedUpdates([recipe.optimization for recipe in recipes], trained)
        self._average = Average(self._student.model, recipes[0].optimization.ema_decay)

    def _train_epoch(self, epoch: int) -> tuple[list[Row], float]:
        """Train one epoch. Return the mean loss parts of each member, and the last multiplier of the learning rate."""
        self._student.model.train()
        self._method.adapters.train()
        means, multiplier = LossMeans(), 1.0
        for step in epoch_steps(self.members[0].recipe, epoch, self._train, self._teacher, self._labelled):
            multiplier = self._schedule.multiplier(step.progress, step.share)
            self._alpha_factor.advance(step.progress)
            self._cooling.advance(step.progress)
            self._method.advance(step.progress, step.index)
            losses = self._losses(step)
            self._updates.zero_grad()
            losses["train_loss"].sum().backward()
            self._updates.step(multiplier)
            self._average.update()
            means.add(losses, step)
        return means.rows(), multiplier

    def _losses(self, step: Step) -> dict[str, torch.Tensor]:
        """Return the total loss of each member as `train_loss`, and its unweighted parts, [K] each."""
        enabled = self._autocast != torch.float32
        with torch.autocast(self._device.type, dtype=self._autocast if enabled else None, enabled=enabled):
            students = self._student(step.batch)
        labels, asked = step.asked(self._classes)
        task = self._task_loss.together(students.logits[:, : len(asked)].float(), asked)
        if self.members[0].recipe.alpha == 0:
            return {"train_loss": task, "task_loss": task}
        alpha = step.mean_alpha(self._alpha_factor.value * self._alpha)
        distill = self._term(students, step.teacher, labels)
        loss = (1 - alpha) * task + alpha * self._term.weight * distill
        return {"train_loss": loss, "task_loss": task, "distill_loss": distill}

    def _validate(self, epoch: int) -> list[dict[str, float]]:
        """Measure the members that have not failed, and keep the weights of each that is better than before."""
        self._student.model.eval()
        healthy = [place for place, member in enumerate(self.members) if member.failure is None]
        totals = {place: Totals(self._metrics) for place in healthy}
        with torch.inference_mode():
            for batch, labels in self._val.batches(self._validation_batch()):
                logits = self._student(batch).logits.float()
                for place, total in totals.items():
                    total.add(logits[place], labels)
        measured = {place: total.values(len(self._val)) for place, total in totals.items()}
        for place, values in measured.items():
            member = self.members[place]
            goal, value = member.recipe.goal, values[member.recipe.goal.name]
            if member.check(goal.column, value, epoch) and goal.better(value, member.best_value):
                member.best_value, member.best_epoch = value, epoch
                member.best = self._weights_of(place)
        return [measured.get(place, {}) for place in range(len(self.members))]

    def _validation_batch(self) -> int:
        """Return how many samples to validate at a time; measured once for a number of members."""
        if not self._batch:
            self._batch = batch_size(self._student.logits, self._val)
        return self._batch

    def _weights_of(self, place: int) -> dict[str, torch.Tensor]:
        return {name: tensor[place].clone() for name, tensor in self._student.model.state_dict().items()}

    def _state(self, place: int) -> RunState:
        member = self.members[place]
        return RunState(
            student=self._weights_of(place),
            method={name: tensor.clone() for name, tensor in self._term.state_of(place).items()},
            best=member.best,
            optimizer=self._updates.state_of(place),
            average={name: tensor[place].clone() for name, tensor in self._average.state_dict().items()},
            history=member.history,
            best_value=member.best_value,
            best_epoch=member.best_epoch,
            averaged_steps=self._average.steps,
        )

    def _restore(self, place: int, state: RunState) -> None:
        member = self.members[place]
        into = self._student.model.state_dict()
        averages = self._average.state_dict()
        with torch.no_grad():
            for name, tensor in into.items():
                tensor[place].copy_(_alike(tensor[place], state.student[name]))
            for name, tensor in averages.items():
                tensor[place].copy_(_alike(tensor[place], state.average[name]))
        self._average.load_state_dict(averages, state.averaged_steps)
        self._term.load(place, state.method)
        self._updates.load(place, state.optimizer)
        member.best = {name: tensor.to(self._device) for name, tensor in state.best.items()}
        member.history = list(state.history)
        member.best_value, member.best_epoch = state.best_value, state.best_epoch


def refusal(recipes: Sequence[Recipe], data: Prepared) -> str:
    """Return why runs cannot train as one; an empty string if they can."""
    from kdsweep.models.stacked import fault

    recipe = recipes[0]
    keys = {cohort_key(one) for one in recipes}
    if None in keys:
        return "the method, the optimizer or the loss on the labels is for one student at a time"
    if len(keys) > 1:
        return "they differ in more than members may"
    if type(data.task).tapped is not Task.tapped or type(data.task).losses is not Task.losses:
        return f"task {data.task.name!r} has outputs or losses of its own"
    options = json.dumps(dict(recipe.options), sort_keys=True)
    drop_path = recipe.optimization.drop_path
    unstackable = fault(recipe.model, data.input_spec, data.num_classes, recipe.width, options, drop_path)
    return f"model {recipe.model!r}: {unstackable}" if unstackable else ""


def _alike(into: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor if it has the wanted shape; a copy would repeat a smaller one.

    Raises:
        RuntimeError: If it has not.
    """
    if into.shape != tensor.shape:
        raise RuntimeError(f"a tensor is {list(tensor.shape)}, not {list(into.shape)}")
    return tensor
