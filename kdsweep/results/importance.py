"""Which settings mattered, judged by trials that ran to the end.

A trial that was stopped early was judged after fewer epochs; to compare it with a complete one would credit its
settings with what the epochs did.
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


def importance(trials: Sequence[FrozenTrial], direction: Direction) -> pd.DataFrame:
    """How much the best quarter's values of each searched setting differ from everybody's, by PED-ANOVA.

    A setting that only some methods have is judged among the trials that have it.

    Args:
        trials: Optuna's; those that are not complete are left out.
        direction: Of their values, `maximize` or `minimize`.

    Returns:
        One row per setting, the most important first: parameter, importance (not normalised), trials (judged by).

    Source: Watanabe et al. 2023, "PED-ANOVA", arXiv:2304.10255.
    """
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator

    complete = [trial for trial in trials if trial.state == optuna.trial.TrialState.COMPLETE]
    names = dict.fromkeys(name for trial in complete for name in trial.distributions)
    rows = []
    for name in names:
        having = [trial for trial in complete if name in trial.distributions]
        # Several distributions of one name are several sweeps' ranges in one journal: the latest counts.
        having = [trial for trial in having if trial.distributions[name] == having[-1].distributions[name]]
        if len(having) < LEAST_TRIALS or having[-1].distributions[name].single():
            continue
        study = optuna.create_study(direction=direction)
        study.add_trials(having)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # where all are equal, nothing is important
            found = PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE).evaluate(study, params=[name])
        rows.append({"parameter": name, "importance": found[name], "trials": len(having)})
    frame = pd.DataFrame(rows, columns=["parameter", "importance", "trials"])
    return frame.sort_values("importance", ascending=False, kind="stable").reset_index(drop=True)
