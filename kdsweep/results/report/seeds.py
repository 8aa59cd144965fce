"""The gains on single seeds, from the files of the confirmation runs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import partial
from itertools import islice
from typing import Any

from kdsweep.distributions import Config
from kdsweep.results.report.found import Found
from kdsweep.search.baseline import plain_twin
from kdsweep.seeds import derived_seed, run_name

MOST_SEEDS = 1000  # as in `confirm.seeds`


def seed_differences(found: Found, row: Mapping[str, Any], gain: str) -> list[float]:
    """The paired differences of a confirmed student, one per seed with both runs on disk.

    Args:
        found: The results.
        row: The row of the confirmed trial.
        gain: `kd_gain` (over its plain twin) or `kd_gain_tuned` (over the tuned plain student).
    """
    config = _config_of(found, str(row["trial"]))
    if not config:
        return []
    baseline = plain_twin(config) if gain == "kd_gain" else _tuned(found, row)
    if not baseline:
        return []
    seeds = (derived_seed(found.spec.seed, "confirm", number) % 2**31 for number in range(MOST_SEEDS))
    test = partial(_test_value, found)
    values = (found.goal.score(1.0) * (test(config, seed) - test(baseline, seed)) for seed in seeds)
    # With `seeds: auto`, the plain students have no runs on the seeds of the selection.
    return list(islice((value for value in values if not math.isnan(value)), int(row["seeds"])))


def _config_of(found: Found, trial: str) -> Config:
    rows = found.trials.loc[found.trials["trial"] == trial, "config"]
    return json.loads(rows.iloc[0]) if len(rows) else {}


def _tuned(found: Found, row: Mapping[str, Any]) -> Config:
    plain = found.plain(like=row)
    return json.loads(plain["config"].iloc[0]) if len(plain) else {}


def _test_value(found: Found, config: Config, seed: int) -> float:
    path = found.sweep.confirmation(run_name(config, seed)).result
    try:
        return float(json.loads(path.read_text(encoding="utf-8")).get(found.goal.test_column, math.nan))
    except (OSError, ValueError, TypeError, AttributeError):  # kdsweep doctor reports damaged files
        return math.nan
