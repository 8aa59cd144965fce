"""The plots of `Results`, and how it is shown in a notebook. Plotly is imported at the first plot."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import pandas as pd

from kdsweep.errors import InputError, KdsweepError, did_you_mean, printable
from kdsweep.results.confirmed import verdict_of
from kdsweep.search.trial import STATE_WORDS
from kdsweep.tasks.metrics import shown
from kdsweep.words import count_of

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from kdsweep.results.report.found import Found

_TABLE = ("trial", "state", "method", "width", "temperature", "alpha", "lr", "epochs", "parameters")
_ROWS = 5


class Plots:
    """Adds plots to `Results`. Each returns a plotly figure, the same as in the report."""

    def plot_pareto(self, cost: str = "parameters") -> Figure:
        """The objective against a cost of the students, with the Pareto front, plain students and the teacher.

        Args:
            cost: A column of `trials`, such as parameters or size_mb.

        Raises:
            InputError: If there is no such column of numbers.
        """
        from kdsweep.results.report.charts import size

        self._need_numbers(cost)
        return size.pareto(self._found, cost).figure

    def plot_gains(self) -> Figure:
        """The confirmed gains with their intervals, and one point per seed."""
        from kdsweep.results.report.charts import gains

        return gains.gains(self._found).figure

    def plot_tuning_curves(
        self, n: int = 32, width: float | None = None, *, student: str = "", budget_epochs: int = 0
    ) -> Figure:
        """Expected best result of n random trials of each method, with confidence bands.

        Args:
            n: Length of the curves; each ends earlier where its method has fewer random trials.
            width: Only trials of this width; None uses all.
            student: Only trials of this student; empty uses all.
            budget_epochs: Only trials of this budget; 0 uses all.

        Raises:
            InputError: If n is not a whole number above 0, or no trial has this width, student or budget.
        """
        from kdsweep.results.report.charts import curves

        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise InputError(f"n: found {n!r}; accepted: a whole number above 0")
        return curves.tuning(self._found, n, width, student, budget_epochs).figure

    def plot_learning_curves(self) -> Figure:
        """The objective by epoch of every trial, by state, with the rungs."""
        from kdsweep.results.report.charts import curves

        return curves.learning(self._found).figure

    def plot_parallel(self) -> Figure:
        """Parallel coordinates of settings and objective."""
        from kdsweep.results.report.charts import settings

        return settings.parallel(self._found).figure

    def plot_response(self, setting: str = "temperature") -> Figure:
        """The objective against one setting, by method.

        Args:
            setting: A numeric column of `trials`, such as temperature or alpha.

        Raises:
            InputError: If there is no such column of numbers.
        """
        from kdsweep.results.report.charts import settings

        self._need_numbers(setting)
        return settings.response(self._found, setting).figure

    def plot_importance(self) -> Figure:
        """Importance of each setting, with the number of trials behind it."""
        from kdsweep.results.report.charts import settings

        return settings.importance(self._found).figure

    def plot_per_class(self) -> Figure:
        """Accuracy on the test split by class: the best confirmed student, the tuned plain student and the teacher."""
        from kdsweep.results.report.charts import predictions

        return predictions.per_class(self._found).figure

    def plot_confusion(self, model: str = "student") -> Figure:
        """The confusion matrix of one model on the test split.

        Args:
            model: `student`, `plain` (the tuned plain student) or `teacher`.

        Raises:
            InputError: If the model is none of these.
        """
        from kdsweep.results.report.charts import predictions

        return predictions.confusion_of(self._found, model).figure

    def plot_reliability(self) -> Figure:
        """Reliability diagram on the test split: accuracy against confidence."""
        from kdsweep.results.report.charts import predictions

        return predictions.reliability(self._found).figure

    def _need_numbers(self, column: str) -> None:
        numeric = list(self._found.trials.select_dtypes("number").columns)
        if column not in numeric:
            raise InputError(f"no column of numbers {column!r}; {did_you_mean(column, numeric)}")

    @property
    def _found(self) -> Found:
        return cast("Found", self)

    def __repr__(self) -> str:
        """The sweep, its best student, what was confirmed of it, and where the rows are."""
        found = self._found
        try:
            return "\n".join(_summary(found))
        except KdsweepError as error:
            return f"Results({str(found.sweep)!r}): {error}"

    def _repr_html_(self) -> str:
        """A short table for notebooks: the best students, with what was confirmed of them."""
        found = self._found
        best, confirmed = found.best(_ROWS), _judged(found)
        wanted = dict.fromkeys([*_TABLE, *(goal.column for goal in found.spec.goals)])
        columns = [name for name in wanted if name in best.columns]
        table = pd.DataFrame({name: [_cell(name, value) for value in best[name]] for name in columns})
        if confirmed:
            rows = [confirmed.get(key, {}) for key in best["trial"]]
            test = found.goal.test_column
            table[test] = [shown(test, row[test]) if row else "" for row in rows]
            table["gain over the plain twin"] = [_verdict(row, found.goal.name) for row in rows]
        title = f"{printable(found.spec.name)}: the best {len(best)} of {len(found.trials)} trials"
        return f"<p>{html.escape(title)}</p>{table.to_html(index=False, border=0)}"


def _summary(found: Found) -> list[str]:
    trials, goal, best = found.trials, found.goal, found.best().to_dict("records")
    counts = trials["state"].value_counts().to_dict()
    told = ", ".join(f"{counts[name]} {word}" for name, word in STATE_WORDS.items() if name in counts)
    lines = [f"Results({str(found.sweep)!r}): {count_of(len(trials), 'trial')}{f' ({told})' if told else ''}"]
    if best:
        row = best[0]
        teacher = found.teacher.get(goal.column)
        beside = "" if teacher is None else f" (teacher {shown(goal.column, teacher)})"
        settings = {key: value for key, value in json.loads(row["config"]).items() if key != "method"}
        text = ", ".join(f"{key} {_cell(key, value)}" for key, value in settings.items())
        lines.append(f"best {row['trial']}: {row['method']}, {text}")
        lines.append(
            f"     {goal.column} {shown(goal.column, row[goal.column])}{beside}, {int(row['parameters']):,} parameters"
        )
        judged = _judged(found).get(row["trial"])
        if judged:
            test = goal.test_column
            gain = _verdict(judged, goal.name)
            lines.append(
                f"     confirmed: {test} {shown(test, judged[test])} over {count_of(int(judged['seeds']), 'seed')}"
                + (f"; over its plain twin: {gain}" if gain else "")
            )
    rows = count_of(len(trials), "row")
    lines.append(f"frames: trials ({rows}), epochs ({len(found.epochs)}), confirmed ({len(found.confirmed)})")
    return [printable(line) for line in lines]


def _judged(found: Found) -> dict[str, dict[str, Any]]:
    """The confirmed trials by key."""
    confirmed = found.confirmed
    if confirmed.empty:
        return {}
    return {
        str(row["trial"]): {str(name): value for name, value in row.items()} for row in confirmed.to_dict("records")
    }


def _verdict(row: Mapping[str, Any], metric: str) -> str:
    verdict = verdict_of(row, "kd_gain") if row else None
    return verdict.text(metric) if verdict else ""


def _cell(name: str, value: Any) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, float):
        return shown(name, value)
    return f"{value:,}" if name == "parameters" else printable(str(value))
