"""Trains one student, epoch by epoch and resumable. Knows nothing of Ray and names no method.

The loss of every run is computed here: `loss = (1 - alpha) * task + alpha * weight * distill`. In a batch with samples
that have no labels, alpha is the mean over the samples, which is 1 for those, and `task` is the mean over the others.

Every random draw (weights, order, views, dropout) uses a seed derived from its purpose and epoch, so a resumed run
draws the same numbers as an uninterrupted one.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from kdsweep import methods, models
from kdsweep.errors import CheckpointError, KdsweepError
from kdsweep.lazy import nn, torch
from kdsweep.methods import Outputs
from kdsweep.models import Taps
from kdsweep.seeds import derived_seed
from kdsweep.storage import weights
from kdsweep.storage.following import discard
from kdsweep.tasks import Prepared, Samples
from kdsweep.tasks.losses import LOSSES
from kdsweep.training.averaging import Average
from kdsweep.training.captured import Replays, captures
from kdsweep.training.evaluate import Evaluation
from kdsweep.training.precision import autocast_dtype
from kdsweep.training.recipe import Recipe
from kdsweep.training.shapes import Factor
from kdsweep.training.state import RunState
from kdsweep.training.steps import Epoch, LossMeans, Moment, Step, labelled_in
from kdsweep.training.teaching import TeacherSource

SAVE_SECONDS = 30.0


class DivergedError(KdsweepError):
    """The training loss or the objective is no longer finite."""


class Training:
    """A training run, advanced one epoch at a time.

    Args:
        recipe: The settings of the run.
        data: The prepared data set.
        train: The training split, on the run's device.
        val: The validation split, on the same device.
        teacher: The source of teacher outputs.

    Attributes:
        epoch: Number of epochs done.
        history: The result of `run_epoch` for each epoch.
        best_value: The best value of the objective so far.
        student: The student model.
        first_layer_norm: Norm of the first layer's initial weights. Equal seeds give equal norms.
        inference: The model that is evaluated and exported: the student, plus the method's inference head if any. With
            `ema_decay`, it is evaluated and exported with the moving average of its weights.
    """

    def __init__(self, recipe: Recipe, data: Prepared, train: Samples, val: Samples, teacher: TeacherSource):
        self.recipe = recipe
        self.epoch = 0
        self.history: list[dict[str, float]] = []
        self.best_value = recipe.goal.worst
        self.best_epoch = 0
        self._train, self._teacher = train, teacher
        self._labelled = labelled_in(train, data)
        self._task, self._classes = data.task, data.num_classes
        self._device = train.device
        torch.manual_seed(derived_seed(recipe.seed, "weights"))
        model = models.build(recipe.model, data.input_spec, data.num_classes, recipe.width, **recipe.options)
        if recipe.optimization.drop_path:
            models.drop_paths(recipe.model, model, recipe.optimization.drop_path)
        self.first_layer_norm = float(next(model.parameters()).detach().norm())
        self.student = on_device(model, self._device)
        taps = models.taps(recipe.model, model, data.input_spec)
        self._tapped = self._task.tapped(self.student, taps, data.input_spec)
        self.method = methods.create(recipe.method, self._example(), teacher.example(), **recipe.method_params)
        self.method.prepare(len(train))
        self.method.to(self._device)
        self._alpha = Factor(recipe.alpha_schedule, self._device)
        self._cooling = Factor(recipe.temperature_schedule, self._device)
        self.method.cool(self._cooling.value)
        head = self.method.inference_head()
        self.inference = self.student if head is None else _headed(model, self._tapped.taps, head)
        self._average = Average(self.inference, recipe.optimization.ema_decay)
        metrics = self._task.measured((recipe.goal.metric, *recipe.metrics), data.num_classes)
        self._evaluation = Evaluation(self.inference, val, metrics)
        self._optimizer = recipe.optimization.make_optimizer([*self.student.parameters(), *self.method.parameters()])
        self._captures = captures(recipe, getattr(train, "resident", False)) and self._labelled == len(train)
        if self._captures:
            self._optimizer.rate = torch.zeros((), device=self._device)
        self._rate = 0.0
        self._schedule = recipe.optimization.make_schedule()
        self._task_loss = LOSSES.create(recipe.task_loss, **recipe.task_loss_params)
        self._best: dict[str, torch.Tensor] = {}
        self._autocast = autocast_dtype(recipe.optimization.precision)

    @property
    def done(self) -> bool:
        """Whether all epochs are done."""
        return self.epoch >= self.recipe.optimization.epochs

    def run_epoch(self) -> dict[str, float]:
        """Train one epoch and validate.

        Returns:
            epoch, train_loss and its parts (task_loss, and distill_loss if distilling; unweighted means over the
            epoch), each metric as val_NAME, lr at the end of the epoch, and seconds.

        Raises:
            DivergedError: If the training loss or the objective is not finite.
        """
        started = time.perf_counter()
        self.epoch += 1
        torch.manual_seed(derived_seed(self.recipe.seed, "epoch", self.epoch))
        losses = self._train_epoch()
        if not math.isfinite(losses["train_loss"]):
            raise DivergedError(f"the training loss became {losses['train_loss']} in epoch {self.epoch}")
        with self._average.in_model():
            measured = self._validate()
        self.history.append({
            "epoch": self.epoch,
            **losses,
            **{f"val_{name}": value for name, value in measured.items()},
            "lr": self._rate,
            "seconds": time.perf_counter() - started,
        })  # fmt: skip
        return self.history[-1]

    def use_average(self) -> None:
        """End training: load the moving average of the weights, if there is one, as of the last epoch."""
        self._average.load_into_model()

    def restore_best(self) -> None:
        """Load the weights of the best epoch."""
        self.inference.load_state_dict(self._best)

    def save(self, state: Path, best: Path | None = None) -> None:
        """Write the resumable state to `state` and, if given, the best weights to `best`. Each write is atomic."""
        if best is not None:
            head = self.method.inference_head()
            weights.save(self._best, best, {"head": json.dumps(head.options)} if head is not None else {})
        RunState(
            student=self.student.state_dict(),
            method=self.method.state_dict(),
            best=self._best,
            optimizer=self._optimizer.state_dict(),
            average=self._average.state_dict(),
            history=self.history,
            best_value=self.best_value,
            best_epoch=self.best_epoch,
            averaged_steps=self._average.steps,
        ).write(state)

    def load(self, state: Path) -> None:
        """Resume from a state written by `save`.

        Raises:
            CheckpointError: If the file is damaged or belongs to another run.
        """
        try:
            saved = RunState.read(state)
            self.student.load_state_dict(saved.student)
            self.method.load_state_dict(saved.method)
            self._optimizer.load_state_dict(saved.optimizer)
            self._average.load_state_dict(saved.average, saved.averaged_steps)
            self._best = {name: tensor.to(self._device) for name, tensor in saved.best.items()}
            self.history, self.epoch = saved.history, len(saved.history)
            self.best_value, self.best_epoch = saved.best_value, saved.best_epoch
        except (KeyError, IndexError, RuntimeError, ValueError) as error:
            what = str(error).splitlines()[0]
            raise CheckpointError(f"trial state {state}: not the state of this run: {what}") from error

    def _validate(self) -> dict[str, float]:
        """Measure the student on the validation split, and keep its weights if they are the best so far."""
        measured = self._evaluation.run()
        goal = self.recipe.goal
        value = measured[goal.name]
        if not math.isfinite(value):
            raise DivergedError(f"{goal.column} became {value} in epoch {self.epoch}")
        if goal.better(value, self.best_value):
            self.best_value, self.best_epoch = value, self.epoch
            self._best = {name: tensor.detach().clone() for name, tensor in self.inference.state_dict().items()}
        return measured

    def _train_epoch(self) -> dict[str, float]:
        """Train one epoch. Return the mean of each loss part by name; the total is `train_loss`."""
        self.student.train()
        self.method.adapters.train()
        means = LossMeans()
        epoch = Epoch(self.recipe, self.epoch, self._train, self._teacher, self._labelled)
        if not self._captures:
            for step in epoch.steps():
                self._advance(step)
                self._update(step, means)
                self._end(step, means)
            return means.rows()[0]
        replays = Replays(self._device)
        for moment in epoch.moments:
            self._advance(moment)
            replays.run(moment, lambda moment: self._update(epoch.step(moment), means))
            self._end(moment, means)
        return means.rows()[0]

    def _advance(self, moment: Moment) -> None:
        """Set what depends on the progress."""
        multiplier = self._schedule.multiplier(moment.progress, moment.share)
        self._rate = self.recipe.optimization.scaled_lr * multiplier
        if isinstance(self._optimizer.rate, torch.Tensor):
            self._optimizer.rate.fill_(self._rate)
        else:
            self._optimizer.rate = self._rate
        self._alpha.advance(moment.progress)
        self._cooling.advance(moment.progress)
        self.method.advance(moment.progress, moment.index)

    def _update(self, step: Step, means: LossMeans) -> None:
        """Update the weights; on the device alone, so that a CUDA graph can repeat it."""
        losses = self._losses(step)
        self._optimizer.zero_grad()
        losses["train_loss"].backward()
        if self.recipe.optimization.clip_norm:
            nn.utils.clip_grad_norm_(self._optimizer.weights, self.recipe.optimization.clip_norm)
        self._optimizer.step()
        means.sum(losses, step)

    def _end(self, moment: Moment, means: LossMeans) -> None:
        """Do what follows a step and counts steps on the host."""
        self._average.update()
        means.count(moment)

    def _losses(self, step: Step) -> dict[str, torch.Tensor]:
        """Return the total loss as `train_loss`, and its unweighted parts."""
        recipe = self.recipe
        enabled = self._autocast != torch.float32
        with torch.autocast(self._device.type, dtype=self._autocast if enabled else None, enabled=enabled):
            student = self._tapped(step.batch)
        labels, asked = step.asked(self._classes)
        parts = self._task.losses(step.shown(student), asked, self._task_loss)
        task = parts["task_loss"]
        if recipe.alpha == 0:
            return {"train_loss": task, **parts}
        alpha = step.mean_alpha(self._alpha.value * recipe.alpha)
        distill = self.method(student, step.teacher, labels)
        loss = (1 - alpha) * task + alpha * self.method.weight * distill
        return {"train_loss": loss, **parts, "distill_loss": distill}

    def _example(self) -> Outputs:
        self.student.eval()
        with torch.no_grad():
            return self._tapped(self._train.batch(torch.arange(min(2, len(self._train)))))


def resumed(begin: Callable[[], Training], state: Path) -> Training:
    """Create a run and resume it from its saved state, if there is one.

    Args:
        begin: Creates the run. Called again if the state is damaged: a fresh run gives the same curve, so only time
            is lost.
        state: The file that `Training.save` wrote.
    """
    training = begin()
    if not state.is_file():
        return training
    try:
        training.load(state)
    except CheckpointError:
        discard(state)
        return begin()
    return training


def run_through(training: Training, state: Path) -> Iterator[dict[str, float]]:
    """Run the remaining epochs. The state is saved every `SAVE_SECONDS` and removed at the end."""
    saved = time.monotonic()
    while not training.done:
        yield training.run_epoch()
        if time.monotonic() - saved > SAVE_SECONDS:
            training.save(state)
            saved = time.monotonic()
    discard(state)


def on_device(model: nn.Module, device: torch.device) -> nn.Module:
    """Move a model to a device, in channels-last layout like the images."""
    return model.to(device).to(memory_format=torch.channels_last)


def _headed(model: nn.Module, taps: Taps, head: nn.Module) -> nn.Module:
    from kdsweep.models.blocks import HeadedStudent  # defines modules, so it imports torch

    return HeadedStudent(model, taps, head)
