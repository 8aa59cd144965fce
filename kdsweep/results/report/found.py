"""What the report and the charts read: the part of `Results` that they use."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from kdsweep.config.spec import SweepSpec
from kdsweep.results import order
from kdsweep.search.baseline import PLAIN
from kdsweep.storage.paths import SweepDir
from kdsweep.tasks import Goal


class Found(Protocol):
    """The results of a sweep, see `kdsweep.results.frames.Results`."""

    sweep: SweepDir

    @property
    def path(self) -> Path:
        """The sweep's directory."""

    @property
    def spec(self) -> SweepSpec:
        """The sweep's spec."""

    @property
    def goal(self) -> Goal:
        """The first objective."""

    @property
    def trials(self) -> pd.DataFrame:
        """One row per trial."""

    @property
    def epochs(self) -> pd.DataFrame:
        """One row per trial and epoch."""

    @property
    def confirmed(self) -> pd.DataFrame:
        """One row per confirmed trial."""

    @property
    def predictions(self) -> pd.DataFrame:
        """Predictions on the test split."""

    @property
    def teacher(self) -> dict[str, Any]:
        """Description of the teacher."""

    @property
    def teachers(self) -> dict[str, dict[str, Any]]:
        """Descriptions of all teachers by name."""

    @property
    def taught(self) -> pd.DataFrame:
        """What each of several teachers gave at each size."""

    def best(self, top: int = 1) -> pd.DataFrame:
        """The best trials, best first."""

    def plain(self, width: float | None = None, *, like: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """The best complete plain trial."""

    def effort(self) -> pd.DataFrame:
        """Trials, complete trials and epochs per width and method."""

    def tuning_curves(
        self,
        n: int = 32,
        width: float | None = None,
        confidence: float = 0.95,
        *,
        pooled: bool = False,
        student: str = "",
        budget_epochs: int = 0,
    ) -> pd.DataFrame:
        """Expected best of n trials per method."""

    def importance(self) -> pd.DataFrame:
        """Importance of each setting."""


def measured_trials(found: Found) -> pd.DataFrame:
    """The trials with a value of the objective, without failed ones, best first."""
    return found.best(len(found.trials))


def complete_trials(found: Found) -> pd.DataFrame:
    """The trials that reached the last epoch, best first; with several objectives, by the first one."""
    trials = measured_trials(found)
    complete = trials[trials["state"] == "COMPLETE"]
    return complete if len(found.spec.goals) == 1 else order.ranked(complete, found.goal)


def methods_of(found: Found) -> list[str]:
    """The methods of the trials, in the order of the sweep file, plain students last."""
    have = dict.fromkeys(found.trials["method"].dropna().astype(str))
    ordered = [name for name in found.spec.search_space.methods() if name in have]
    ordered += [name for name in have if name not in ordered]
    return sorted(ordered, key=lambda name: name == PLAIN)


def settings_text(config: Mapping[str, Any] | str) -> str:
    """Format the settings of a trial on one line, without its method: `width 0.5, lr 0.0031`.

    Args:
        config: The configuration, or its JSON.
    """
    values = json.loads(config) if isinstance(config, str) else config
    shown = {key: value for key, value in values.items() if key != "method"}
    return ", ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in shown.items()
    )
