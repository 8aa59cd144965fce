"""Weights & Biases, through its own client."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdsweep.distributions import Config
from kdsweep.errors import InputError
from kdsweep.storage.paths import SweepDir
from kdsweep.tracking.base import MOST_OPEN, TRACKERS, Ending, Group, Metrics, Tracker

if TYPE_CHECKING:
    from wandb import Run

    from kdsweep.tracking.section import WandbSection

FINISH_SECONDS = 30.0  # to upload the last data of a run; wandb keeps the rest on disk
_SETTINGS = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}


@TRACKERS.register("wandb")
class WeightsAndBiases(Tracker):
    """One run per trial, grouped by sweep. Offline runs lie in the sweep's directory, below `wandb/`."""

    name = "wandb"
    package = "wandb"

    @classmethod
    def place(cls, option: WandbSection, sweep: SweepDir) -> str:
        return f"project {'/'.join(filter(None, (option.entity, option.project)))}"

    @classmethod
    def identity(cls, option: WandbSection) -> str:
        return f"{os.environ.get('WANDB_BASE_URL', '')} {option.entity} {option.project}"

    def __init__(self, option: WandbSection, group: Group):
        super().__init__(option, group)
        self._option = option
        self._open: dict[str, Run] = {}
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        import wandb

        if wandb.setup().settings.mode in ("online", "shared") and not wandb.login(prompt=False):
            raise InputError("no API key; set WANDB_API_KEY, run wandb login, or set WANDB_MODE=offline")

    def start(self, key: str, config: Config) -> str:
        run = f"{self.group.id}-{key}"
        self._run(run).config.update({"trial": key, **config}, allow_val_change=True)
        return run

    def logged(self, run: str) -> int:
        return self._run(run).starting_step - 1  # offline, wandb does not know

    def log(self, run: str, epochs: Mapping[int, Metrics]) -> None:
        for epoch, metrics in epochs.items():
            self._run(run).log(dict(metrics), step=epoch)

    def end(self, run: str, ending: Ending) -> None:
        texts = {"state": ending.state} | ({"error": ending.error} if ending.error else {})
        opened = self._run(run)
        opened.summary.update({**ending.summary, **texts})
        opened.tags = (*(opened.tags or ()), ending.state)
        self._finish(run, failed=bool(ending.error))

    def confirm(self, run: str, values: Metrics, texts: Mapping[str, str]) -> None:
        self._run(run).summary.update({f"confirmed/{name}": value for name, value in {**values, **texts}.items()})
        self._finish(run)

    def attach(self, run: str, folder: Path) -> None:
        import wandb

        student = wandb.Artifact(f"student-{run}", type="model")
        student.add_dir(str(folder))
        self._run(run).log_artifact(student)
        self._finish(run)

    def close(self) -> None:
        for run in list(self._open):
            self._finish(run)

    def _run(self, run: str) -> Run:
        """Return an open run; create or resume it if needed."""
        import wandb

        if run in self._open:
            self._open[run] = self._open.pop(run)  # the least recently used one comes first
        else:
            if len(self._open) >= MOST_OPEN:
                self._finish(next(iter(self._open)))
            settings: dict[str, Any] = {
                "console": "off", "silent": True, "disable_git": True, "x_disable_stats": True,
                "finish_timeout": FINISH_SECONDS, "finish_timeout_raises": True, "init_timeout": FINISH_SECONDS,
            }  # fmt: skip
            self._open[run] = wandb.init(
                project=self._option.project,
                entity=self._option.entity,
                group=f"{self.group.name}-{self.group.id}",
                name=run.removeprefix(f"{self.group.id}-"),
                id=run,
                dir=str(self.group.sweep.root),
                resume="allow",
                reinit="create_new",
                settings=wandb.Settings(**settings),
            )
        return self._open[run]

    def _finish(self, run: str, failed: bool = False) -> None:
        self._open.pop(run).finish(exit_code=int(failed))
