"""The strategies that `search.py` compares, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import optuna

from kdsweep.search.space import SearchSpace
from replay import of_optuna
from replay.of_kdsweep import KdsweepSearch
from replay.of_ray import RayTuneSearch
from replay.of_syne import SyneTuneSearch, scheduler
from replay.random_search import EarlyDiscarding, RandomSearch
from replay.workers import Strategy

TOP = 3


@dataclass(frozen=True)
class Setting:
    """What a strategy is started with.

    Attributes:
        space: The search space.
        seed: The seed.
        epochs: Epochs of a complete trial.
        budgets: Numbers of epochs after which the result is measured, ascending.
    """

    space: SearchSpace
    seed: int
    epochs: int
    budgets: list[int]


Create = Callable[[Setting], Strategy]


def _kdsweep(overrides: Mapping[str, Any], setting: Setting) -> Strategy:
    return KdsweepSearch(setting.seed, setting.epochs, overrides)


def _optuna(pruner: Callable[[int], optuna.pruners.BasePruner], tuned: bool, setting: Setting) -> Strategy:
    sampler = of_optuna.tpe(setting.seed, tuned)
    return of_optuna.OptunaSearch(setting.space, setting.epochs, sampler, pruner(setting.epochs))


def _syne(name: str, setting: Setting) -> Strategy:
    return SyneTuneSearch(setting.space, scheduler(name, setting.seed, setting.epochs), setting.epochs)


def _random(setting: Setting) -> Strategy:
    return RandomSearch(setting.space, setting.seed, setting.epochs)


def _early(first: int, setting: Setting) -> Strategy:
    widths = int(setting.space.shared["width"].size)
    return EarlyDiscarding(setting.space, setting.seed, setting.epochs, first, TOP, widths, setting.budgets)


def _ray(settings: Mapping[str, Any], setting: Setting) -> Strategy:
    return RayTuneSearch(setting.space, setting.seed, setting.epochs, **settings)


# What variants of kdsweep change in a sweep file. "kdsweep" has the defaults: trials pause at rungs, first after an
# eighteenth of the budget (epoch 1 of 18). "stopping" was the default before, with the first rung at a ninth.
GRACE_1 = {"scheduler.grace_epochs": 1}
GRACE_2 = {"scheduler.grace_epochs": 2}
FACTOR_2 = {"scheduler.reduction_factor": 2}
FACTOR_4 = {"scheduler.reduction_factor": 4}
STOPPING = {"scheduler.name": "asha"}
POOLED = {"scheduler.name": {"name": "asha-promotion", "pooled": True}}
POOLED_STOPPING = {"scheduler.name": {"name": "asha", "pooled": True}}
BALANCE = {"search.balance": "width"}
RANDOM = {"search.sampler": "random"}
NO_SHARE = {"search.plain_share": 0}

VARIANTS: dict[str, dict[str, Any]] = {
    "kdsweep": {},
    "kdsweep, grace 2": GRACE_2,
    "kdsweep, factor 4": FACTOR_4,
    "kdsweep, grace 2, factor 4": GRACE_2 | FACTOR_4,
    "kdsweep, pooled": POOLED,
    "kdsweep, balance": BALANCE,
    "kdsweep, balance, grace 2": BALANCE | GRACE_2,
    "kdsweep, startup 8": {"search.startup_trials": 8},
    "kdsweep, startup 64": {"search.startup_trials": 64},  # broad screening: TPE begins after 64 random trials
    "kdsweep, random": RANDOM,
    "kdsweep, grace 2, random": RANDOM | GRACE_2,
    "kdsweep, stopping": STOPPING,
    "kdsweep, stopping, grace 1": STOPPING | GRACE_1,
    "kdsweep, stopping, factor 2": STOPPING | FACTOR_2,
    "kdsweep, stopping, factor 4": STOPPING | FACTOR_4,
    "kdsweep, stopping, grace 1, factor 4": STOPPING | GRACE_1 | FACTOR_4,
    "kdsweep, stopping, pooled": POOLED_STOPPING,
    "kdsweep, stopping, balance": STOPPING | BALANCE,
    "kdsweep, stopping, balance, grace 1": STOPPING | BALANCE | GRACE_1,
    "kdsweep, stopping, startup 8": STOPPING | {"search.startup_trials": 8},
    "kdsweep, stopping, startup 32": STOPPING | {"search.startup_trials": 32},
    "kdsweep, stopping, plain_share 0": STOPPING | NO_SHARE,
    "kdsweep, stopping, grace 1, plain_share 0": STOPPING | GRACE_1 | NO_SHARE,
    "kdsweep, stopping, random": STOPPING | RANDOM,
    "kdsweep, stopping, grace 1, random": STOPPING | RANDOM | GRACE_1,
    "kdsweep, stopping, factor 2, random": STOPPING | RANDOM | FACTOR_2,
    "kdsweep, stopping, factor 4, random": STOPPING | RANDOM | FACTOR_4,
    "kdsweep, no groups": {"scheduler.group_by": []},
    "kdsweep, no stopping": {"scheduler.name": "none"},
}
PRUNERS: dict[str, Callable[[int], optuna.pruners.BasePruner]] = {
    "no pruner": lambda epochs: optuna.pruners.NopPruner(),
    "median": lambda epochs: optuna.pruners.MedianPruner(),
    "percentile 25": lambda epochs: optuna.pruners.PercentilePruner(25),
    "patient percentile 25": lambda epochs: optuna.pruners.PatientPruner(optuna.pruners.PercentilePruner(25), 2),
    "halving": lambda epochs: optuna.pruners.SuccessiveHalvingPruner(min_resource=1),
    "hyperband": lambda epochs: optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs),
}
SYNE = {"Syne Tune ASHA": "ASHA", "Syne Tune CQR": "CQR", "Syne Tune ASHA-CQR": "ASHACQR", "Syne Tune BOHB": "BOHB"}

STRATEGIES: dict[str, Create] = {
    **{name: partial(_kdsweep, overrides) for name, overrides in VARIANTS.items()},
    "random": _random,
    "random, 1 epoch then top 3": partial(_early, 1),
    "random, 2 epochs then top 3": partial(_early, 2),
    "Ray Tune OptunaSearch + ASHA": partial(_ray, {}),
    "Ray Tune OptunaSearch + ASHA, factor 3, grace 2": partial(_ray, {"reduction_factor": 3, "grace_period": 2}),
    **{f"Optuna TPE, {name}": partial(_optuna, pruner, False) for name, pruner in PRUNERS.items()},
    **{
        f"Optuna TPE multivariate, {name}": partial(_optuna, PRUNERS[name], True)
        for name in ("median", "halving", "hyperband")
    },
    **{name: partial(_syne, of) for name, of in SYNE.items()},
}


def missing(name: str) -> str:
    """Return why a strategy cannot run here, in a line; empty if it can."""
    if name not in SYNE:
        return ""
    try:
        import syne_tune.optimizer.baselines  # noqa: F401
    except ImportError as error:
        return (
            f'{name}: skipped: {error}; to include it: pip install "syne-tune>=0.16" scikit-learn xgboost statsmodels'
        )
    return ""
