"""Optuna's dashboard on a copy of a sweep's study, in memory. The sweep's own journal is only read."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import optuna
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from kdsweep.errors import InputError, SweepDirError, installing
from kdsweep.results.confirmed import GAINS, verdict_of
from kdsweep.results.frames import Results, load_results
from kdsweep.results.from_logs import frozen_trials
from kdsweep.results.importance import VERSUS_DASHBOARD
from kdsweep.results.report.answer import answer
from kdsweep.results.report.places import shortest
from kdsweep.search.journal import name_objectives
from kdsweep.serving.pages import Followed, refresh, state_of
from kdsweep.storage.paths import SweepDir
from kdsweep.storage.places import Place

_BASELINES = {"kd_gain": "its plain twin", "kd_gain_tuned": "the tuned plain student"}
_NO_ATTRIBUTES = ("trial", "number", "state", "config")


class Dashboard:
    """The application. It copies the study again when the sweep's files have changed.

    Args:
        directory: The sweep's directory or URI.

    Raises:
        InputError: If optuna-dashboard is not installed.
        SweepDirError: If there is no sweep, or none of its trials has begun.
    """

    def __init__(self, directory: Path | Place):
        try:
            import a2wsgi
            import optuna_dashboard
        except ModuleNotFoundError as error:
            raise InputError(f"{error.name} is not installed; install it with: {installing('dashboard')}") from error
        sweep = SweepDir.existing(directory)
        if not frozen_trials(sweep):
            raise SweepDirError(f"{directory}: no trial has begun; start the dashboard once one has")

        def state() -> str:
            refresh(sweep)
            return state_of(sweep)

        def build(_: str) -> ASGIApp:
            study = copied_study(load_results(sweep))
            return cast(ASGIApp, a2wsgi.WSGIMiddleware(optuna_dashboard.wsgi(study._storage)))

        self._app = Followed[ASGIApp](state, build)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        built = await self._app.latest()
        app = built.value or PlainTextResponse(f"{built.problem}\n", 503)
        await app(scope, receive, send)


def copied_study(found: Results) -> optuna.Study:
    """Copy the study of a sweep into memory, with all that its results know.

    Each setting and each measured value is an attribute of its trial, the gains of a confirmed trial are its note, and
    the study has the names of its objectives, a note and attributes.
    """
    from optuna_dashboard import save_note

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    goal = found.goal
    study = optuna.create_study(
        storage=InMemoryStorage(), study_name=found.path.name, directions=[one.direction for one in found.goals]
    )
    name_objectives(study, [one.column for one in found.goals])
    for name, value in _of_sweep(found).items():
        study.set_user_attr(name, value)
    save_note(study, _note_of_sweep(found))
    rows = {row["trial"]: row for row in found.trials.to_dict("records")}
    confirmed = {} if found.confirmed.empty else {row["trial"]: row for row in found.confirmed.to_dict("records")}
    curves: dict[str, list[float]] = {}
    if len(found.goals) == 1:  # Optuna has no values by epoch of several objectives
        curves = {key: list(values) for key, values in found.epochs.groupby("trial", sort=False)[goal.column]}
    added = 0
    for frozen in sorted(frozen_trials(found.sweep), key=lambda frozen: frozen.number):
        for _ in range(added, frozen.number):  # entries that a crash tore
            study.add_trial(create_trial(state=TrialState.FAIL))
        added = frozen.number + 1
        key = frozen.user_attrs["key"]
        judged = confirmed.get(key, {})
        study.add_trial(_copied(frozen, {**rows.get(key, {}), **judged}, curves.get(key, [])))
        if judged and (note := _note_of_trial(judged, goal.name)):
            trial = optuna.Trial(study, study.get_trials(deepcopy=False)[-1]._trial_id)
            save_note(trial, note)
    return study


def _copied(frozen: FrozenTrial, row: Mapping[str, Any], curve: list[float]) -> FrozenTrial:
    """A trial with everything known about it as attributes.

    Args:
        frozen: The trial in the sweep's journal.
        row: Its row in the frames.
        curve: The value of the objective after each epoch.
    """
    trial = copy.copy(frozen)
    attributes = {name: _plain(value) for name, value in row.items() if name not in _NO_ATTRIBUTES}
    trial.user_attrs = {"key": frozen.user_attrs["key"]} | {
        name: value for name, value in attributes.items() if value not in (None, "")
    }
    # The journal has the values of a trial only once it has ended.
    trial.intermediate_values = dict(enumerate(curve, start=1))
    return trial


def _of_sweep(found: Results) -> dict[str, Any]:
    spec, goal, teacher = found.spec, found.goal, found.teacher
    facts = {
        "directory": str(found.sweep),
        "objective": goal.column,
        "data set": spec.dataset.name,
        "student": ", ".join(label or one.model for label, one in spec.students.items()),
        "teacher": teacher.get("model"),
        f"teacher {goal.column}": teacher.get(goal.column),
        f"teacher {goal.test_column}": teacher.get(goal.test_column),
        "teacher parameters": teacher.get("parameters"),
        "trials asked": spec.search.trials,
        "epochs": spec.budgets[0] if len(spec.budgets) == 1 else " or ".join(map(str, spec.budgets)),
        "sampler": spec.search.sampler,
        "scheduler": spec.scheduler.name,
        "seed": spec.seed,
    }
    return {name: told for name, value in facts.items() if (told := _plain(value)) is not None}


def _note_of_sweep(found: Results) -> str:
    path = shortest(found.sweep.place)
    told = " ".join(filter(None, answer(found)))
    return (
        f"{_as_text(told)}\n\nThis is a copy of the sweep in memory: it follows the sweep, and changes are refused. "
        f"The whole report: `kdsweep watch {path}`. Importance of the settings: {VERSUS_DASHBOARD}"
    )


def _note_of_trial(judged: Mapping[str, Any], metric: str) -> str:
    """The confirmed gains in words; empty for a plain student."""
    verdicts = {baseline: verdict_of(judged, gain) for gain, baseline in _BASELINES.items() if gain in GAINS}
    lines = [
        f"- over {baseline}: {verdict.text(metric)}" for baseline, verdict in verdicts.items() if verdict is not None
    ]
    return _as_text("\n".join(["Gain on the test split, paired by fresh seeds:", *lines])) if lines else ""


def _as_text(text: str) -> str:
    """Escape what Markdown and HTML would read as markup."""
    return "".join(f"&#{ord(char)};" if char in "<>&`*_[]\\" else char for char in text)


def _plain(value: Any) -> Any:
    """A value as JSON knows it; None if it is missing."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or str(value) == "<NA>" or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value if isinstance(value, bool | int | float | str) else str(value)
