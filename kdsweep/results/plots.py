"""The plots of `Results`, and how it is shown in a notebook. Plotly is imported at the first plot."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, cast

from kdsweep.errors import InputError, did_you_mean, printable

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

    def plot_tuning_curves(self, n: int = 32, width: float | None = None) -> Figure:
        """Expected best result of n random trials of each method, with confidence bands.

        Args:
            n: Length of the curves; each ends earlier where its method has fewer random trials.
            width: Only trials of this width; None uses all.

        Raises:
            InputError: If n is not a whole number above 0, or no trial has this width.
        """
        from kdsweep.results.report.charts import curves

        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise InputError(f"n: found {n!r}; accepted: a whole number above 0")
        widths = sorted(self._found.trials["width"].unique())
        if width is not None and width not in widths:
            listed = ", ".join(f"{known:g}" for known in widths[:10]) or "none, because no trial has begun"
            raise InputError(f"width: found {width!r}; accepted: {listed}")
        return curves.tuning(self._found, n, width).figure

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

    def _repr_html_(self) -> str:
        """A short table for notebooks: the best students."""
        found = self._found
        best = found.best(_ROWS)
        wanted = dict.fromkeys([*_TABLE, *(goal.column for goal in found.spec.goals)])
        columns = [name for name in wanted if name in best.columns]
        title = f"{printable(found.spec.name)}: the best {len(best)} of {len(found.trials)} trials"
        table = best[columns].map(lambda value: printable(value) if isinstance(value, str) else value)
        return f"<p>{html.escape(title)}</p>{table.to_html(index=False, na_rep='', border=0, float_format='%.4g')}"
