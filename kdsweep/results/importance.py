"""Importance of each setting, based on the complete trials.

A trial stopped early has trained fewer epochs. Comparing it with a complete trial would attribute the effect of the
missing epochs to its settings.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from kdsweep.tasks.metrics import Direction

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

LEAST_TRIALS = 10
BEST_SHARE = 0.25
VERSUS_DASHBOARD = (
    "Optuna's dashboard differs: it compares the best tenth with all complete trials, and only settings that every "
    "trial has; kdsweep compares the best quarter, for each setting among the trials that have it."
)


def importance(trials: Sequence[FrozenTrial], direction: Direction) -> pd.DataFrame:
    """Compute the importance of each searched setting with PED-ANOVA.

    It measures how much the setting's distribution among the best quarter of the trials differs from its distribution
    among all trials. A setting that only some methods use is evaluated among the trials that have it.

    Args:
        trials: Optuna trials; only complete ones are used.
        direction: Direction of the first objective, `maximize` or `minimize`.

    Returns:
        One row per setting, most important first: parameter, importance (not normalised), trials (number used).

    Source: Watanabe et al. 2023, "PED-ANOVA", arXiv:2304.10255.
    """
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator

    complete = [trial for trial in trials if trial.state == optuna.trial.TrialState.COMPLETE]
    names = dict.fromkeys(name for trial in complete for name in trial.distributions)
    rows = []
    for name in names:
        having = [trial for trial in complete if name in trial.distributions]
        # If the journal holds several distributions under one name, use the latest.
        having = [trial for trial in having if trial.distributions[name] == having[-1].distributions[name]]
        if len(having) < LEAST_TRIALS or having[-1].distributions[name].single():
            continue
        study = optuna.create_study(direction=direction)
        study.add_trials([_only(trial, name) for trial in having])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns if all values are equal
            found = PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE).evaluate(study, params=[name])
        rows.append({"parameter": name, "importance": found[name], "trials": len(having)})
    frame = pd.DataFrame(rows, columns=["parameter", "importance", "trials"])
    return frame.sort_values("importance", ascending=False, kind="stable").reset_index(drop=True)


def _only(trial: FrozenTrial, name: str) -> FrozenTrial:
    """The trial with one setting and its first value alone. A study copies trials, which is slow with every epoch."""
    import optuna

    params, distributions = {name: trial.params[name]}, {name: trial.distributions[name]}
    return optuna.trial.create_trial(params=params, distributions=distributions, value=trial.values[0])
