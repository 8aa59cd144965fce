"""MLflow, through its own client."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdsweep.distributions import Config
from kdsweep.storage.paths import SweepDir
from kdsweep.tracking.base import TRACKERS, Ending, Group, Metrics, Tracker

MOST_METRICS = 1000  # that MLflow takes in one request
LONGEST_TEXT = 4000  # characters of a tag or parameter
_TRIAL, _SWEEP = "kdsweep.trial", "kdsweep.sweep"
# MLflow's defaults wait four minutes for a server that is gone.
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # two lines per trial, on standard output
    "GIT_PYTHON_REFRESH": "quiet",
}
_STATUS = {"COMPLETE": "FINISHED", "PRUNED": "FINISHED", "FAILED": "FAILED"}


@TRACKERS.register("mlflow")
class MLflow(Tracker):
    """One experiment per sweep, one run per trial."""

    name = "mlflow"
    package = "mlflow"

    @classmethod
    def place(cls, option: str | bool, sweep: SweepDir) -> str:
        return f"{'MLFLOW_TRACKING_URI' if option is True else option}, experiment {sweep.root.name}"

    @classmethod
    def identity(cls, option: str | bool) -> str:
        return os.environ.get("MLFLOW_TRACKING_URI", "") if option is True else str(option)

    def __init__(self, option: str | bool, group: Group):
        super().__init__(option, group)
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        for package in ("mlflow", "alembic"):
            logging.getLogger(package).setLevel(logging.WARNING)
        self._uri = self.identity(option)
        self._client = MlflowClient(tracking_uri=self._uri)
        self._experiment = self._experiment_of(group)

    def start(self, key: str, config: Config) -> str:
        # A driver that was killed may have created the run without recording its id.
        found = self._client.search_runs([self._experiment], f"tags.`{_TRIAL}` = '{key}'", max_results=1)
        if found:
            return str(found[0].info.run_id)
        run = self._client.create_run(self._experiment, run_name=key, tags={_TRIAL: key, "state": "RUNNING"})
        self._log(run.info.run_id, params=dict(config))
        return str(run.info.run_id)

    def logged(self, run: str) -> int:
        history = self._client.get_metric_history(run, self.group.goal.column)
        return max((metric.step for metric in history), default=0)

    def log(self, run: str, epochs: Mapping[int, Metrics]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [
            Metric(_name(name), value, now, epoch) for epoch, row in epochs.items() for name, value in row.items()
        ]
        for begin in range(0, len(metrics), MOST_METRICS):
            self._client.log_batch(run, metrics=metrics[begin : begin + MOST_METRICS])

    def end(self, run: str, ending: Ending) -> None:
        self._log(run, ending.summary, {"state": ending.state} | ({"error": ending.error} if ending.error else {}))
        self._client.set_terminated(run, _STATUS[ending.state])

    def confirm(self, run: str, values: Metrics, texts: Mapping[str, str]) -> None:
        self._log(
            run,
            {f"confirmed/{name}": value for name, value in values.items()},
            {f"confirmed/{name}": value for name, value in texts.items()},
        )

    def attach(self, run: str, folder: Path) -> None:
        self._client.log_artifacts(run, str(folder), "student")

    def _experiment_of(self, group: Group) -> str:
        """Return the id of the sweep's experiment. An experiment of the same name may belong to another sweep."""
        for name in (group.name, f"{group.name}-{group.id}"):
            found = self._client.get_experiment_by_name(name)
            if found is None:
                return str(self._client.create_experiment(name, self._artifacts(name), tags={_SWEEP: group.id}))
            if found.tags.get(_SWEEP) == group.id and found.lifecycle_stage == "active":
                return str(found.experiment_id)
        raise ValueError(f"the experiments {group.name} and {group.name}-{group.id} were deleted or of another sweep")

    def close(self) -> None:
        """Nothing is buffered."""

    def _artifacts(self, experiment: str) -> str | None:
        """Return where the files of a new experiment go: beside an SQLite store, not into the current directory."""
        if not self._uri.startswith("sqlite:///"):
            return None  # as the server or MLflow decides
        return str(Path(self._uri.removeprefix("sqlite:///")).absolute().parent / "mlruns" / experiment)

    def _log(
        self,
        run: str,
        values: Metrics | None = None,
        texts: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        now = int(time.time() * 1000)
        self._client.log_batch(
            run,
            metrics=[Metric(_name(name), value, now, 0) for name, value in (values or {}).items()],
            params=[Param(_name(name), str(value)[:LONGEST_TEXT]) for name, value in (params or {}).items()],
            tags=[RunTag(_name(name), text[:LONGEST_TEXT]) for name, text in (texts or {}).items()],
        )


def _name(name: str) -> str:
    """Replace the characters that MLflow does not accept in names."""
    return re.sub(r"[^\w\-. /]", "_", name)
