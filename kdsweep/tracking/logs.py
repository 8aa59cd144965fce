"""Follows the logs of a sweep while its driver writes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kdsweep.distributions import Config
from kdsweep.storage.paths import SweepDir

if TYPE_CHECKING:
    from optuna.storages import JournalStorage
    from optuna.trial import FrozenTrial

_STATES = {"COMPLETE": "COMPLETE", "PRUNED": "PRUNED", "FAIL": "FAILED"}


@dataclass(frozen=True)
class LoggedTrial:
    """A trial in the journal.

    Attributes:
        key: Its key.
        config: Its configuration.
        state: COMPLETE, PRUNED or FAILED; empty while it runs.
        error: Why it failed.
    """

    key: str
    config: Config
    state: str
    error: str


class SweepLogs:
    """Reads a sweep's logs, each entry once.

    Args:
        sweep: The sweep's directory; its logs need not exist yet.
    """

    def __init__(self, sweep: SweepDir):
        self._sweep = sweep
        self._journal: JournalStorage | None = None
        self._ended: dict[int, LoggedTrial] = {}  # they change no more; a large sweep has many
        self._offset = 0
        self._confirmed: tuple[int, int] | None = None

    def trials(self) -> list[LoggedTrial]:
        """Return all trials proposed so far."""
        journal = self._sweep.journal
        if self._journal is None:
            if not journal.is_file() or not journal.stat().st_size:
                return []
            from optuna.storages import JournalStorage
            from optuna.storages.journal import JournalFileBackend

            self._journal = JournalStorage(JournalFileBackend(str(journal)))
        trials = [
            trial
            for study in self._journal.get_all_studies()
            for trial in self._journal.get_all_trials(study._study_id, deepcopy=False)
        ]
        return [self._logged(trial) for trial in trials if "key" in trial.user_attrs]

    def _logged(self, trial: FrozenTrial) -> LoggedTrial:
        known = self._ended.get(trial._trial_id)
        if known is not None:
            return known
        found = LoggedTrial(
            trial.user_attrs["key"],
            trial.user_attrs["config"],
            _STATES.get(trial.state.name, ""),
            trial.user_attrs.get("summary", {}).get("error", ""),
        )
        if found.state:
            self._ended[trial._trial_id] = found
        return found

    def new_epochs(self) -> Iterator[dict[str, Any]]:
        """Yield the epochs that were logged since the last call."""
        if not self._sweep.epochs_log.is_file():
            return
        with self._sweep.epochs_log.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                yield json.loads(line)

    def new_confirmed(self) -> list[dict[str, Any]]:
        """Return the rows of the confirmed trials, if they were written since the last call."""
        frame = self._sweep.confirmed_frame
        if not frame.is_file():
            return []
        version = (frame.stat().st_mtime_ns, frame.stat().st_size)
        if version == self._confirmed:
            return []
        import pandas as pd

        rows: list[dict[str, Any]] = pd.read_parquet(frame).to_dict("records")
        self._confirmed = version
        return rows
