"""Hands the study's trials to Ray Tune."""

from __future__ import annotations

from typing import Any

from ray.tune.search import Searcher

from kdsweep.search.study import Study


class StudySearcher(Searcher):
    """Ray Tune asks, the study answers.

    Args:
        study: The sweep's memory.
        fixed: What every trial's configuration carries beside its own.
        max_concurrent: Trials at a time.
    """

    def __init__(self, study: Study, fixed: dict[str, Any], max_concurrent: int):
        super().__init__(metric=study.spec.goal.column, mode=study.spec.goal.mode)
        self._study = study
        self._fixed = fixed
        self._max_concurrent = max_concurrent
        self.keys: dict[str, str] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """The next configuration, None while all places are taken, FINISHED at the end."""
        if len(self.keys) >= self._max_concurrent:
            return None
        trial = self._study.ask()
        if trial is None:
            return Searcher.FINISHED
        self.keys[trial_id] = trial.key
        return {**self._fixed, "key": trial.key, "config": trial.config}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial left its worker; what became of it, the scheduler has heard."""
        self.keys.pop(trial_id, None)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is its own memory."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study is its own memory."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing that Ray Tune could restore."""
        return {}
