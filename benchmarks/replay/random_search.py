"""Random search, and random search that trains many configurations for one epoch and the best to the end."""

from __future__ import annotations

import optuna

from kdsweep.search.space import SearchSpace
from replay.workers import Job


class RandomSearch:
    """Draws every configuration at random and trains it to the end.

    Args:
        space: The search space.
        seed: Seed of the draws.
        epochs: Epochs of each trial.
    """

    def __init__(self, space: SearchSpace, seed: int, epochs: int):
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = space
        self._epochs = epochs
        self._study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
        self._drawn = 0

    def ask(self) -> Job | None:
        """Draw a configuration."""
        return self._draw()

    def report(self, job: Job, value: float, seconds: float) -> bool:
        """Train every trial to the end."""
        return job.epochs < self._epochs

    def close(self) -> None:
        """Nothing to release."""

    def _draw(self) -> Job:
        self._drawn += 1
        return Job(str(self._drawn), self._space.suggest(self._study.ask()))


class EarlyDiscarding(RandomSearch):
    """Trains random configurations for a few epochs, then the best of each width to the end.

    Egele et al. 2024, "The Unreasonable Effectiveness of Early Discarding after One Epoch in Neural Network
    Hyperparameter Optimization", arXiv:2404.04111. The method needs to know its budget, so this repeats it for each of
    several budgets: up to each of them, as many configurations are tried as leave enough epochs for the best.

    Args:
        space: The search space.
        seed: Seed of the draws.
        epochs: Epochs of each trial that is trained to the end.
        first: Epochs of each other trial.
        top: Number of trials per width that are trained to the end.
        widths: Number of widths.
        budgets: The budgets in epochs, ascending.
    """

    def __init__(
        self, space: SearchSpace, seed: int, epochs: int, first: int, top: int, widths: int, budgets: list[int]
    ):
        super().__init__(space, seed, epochs)
        self._first, self._top = first, top
        self._reserve = widths * top * (epochs - first)
        self._budgets = [*budgets]
        self._spent = self._open = self._to_draw = 0
        self._seen: dict[str, tuple[float, Job]] = {}
        self._chosen: list[Job] = []
        self._drawing = False

    def ask(self) -> Job | None:
        """Draw a configuration or continue one of the best; None while the last trials of either kind are trained."""
        if not (self._open or self._to_draw or self._chosen):
            self._advance()
        if not (self._to_draw or self._chosen):
            return None
        self._open += 1
        if self._chosen:
            return self._chosen.pop()
        self._to_draw -= 1
        return self._draw()

    def report(self, job: Job, value: float, seconds: float) -> bool:
        """Stop a trial after its first epochs, unless it was chosen."""
        self._spent += 1
        if job.epochs <= self._first:
            self._seen[job.key] = (max(value, self._seen.get(job.key, (value, job))[0]), job)
        ends = job.epochs in (self._first, self._epochs)
        self._open -= ends
        return not ends

    def _advance(self) -> None:
        """Choose the best of each width after drawing; otherwise draw for the next budget."""
        if self._drawing:
            for width in {job.config["width"] for _, job in self._seen.values()}:
                here = [entry for entry in self._seen.values() if entry[1].config["width"] == width]
                ranked = sorted(here, key=lambda entry: (-entry[0], int(entry[1].key)))
                self._chosen += [job for _, job in ranked[: self._top] if job.epochs == self._first]
        self._drawing = not self._chosen
        if self._drawing:
            budget = self._budgets.pop(0) if self._budgets else self._spent + 2 * self._reserve
            self._to_draw = max(1, (budget - self._spent - self._reserve) // self._first)
