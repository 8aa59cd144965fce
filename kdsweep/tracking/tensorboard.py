"""TensorBoard: event files in the sweep's directory, written by tensorboardX, which needs no PyTorch."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdsweep.distributions import Config
from kdsweep.storage.paths import SweepDir
from kdsweep.tracking.base import TRACKERS, Ending, Group, Metrics, Tracker, steps

if TYPE_CHECKING:
    from tensorboardX.event_file_writer import EventsWriter


@TRACKERS.register("tensorboard")
class TensorBoard(Tracker):
    """One folder of event files per trial, with the settings as hyperparameters.

    It writes events itself, without tensorboardX's queues, so that an error such as a full disk is noticed.
    """

    name = "tensorboard"
    package = "tensorboardX"

    @classmethod
    def place(cls, option: Any, sweep: SweepDir) -> str:
        return str(sweep.tensorboard)

    def __init__(self, option: bool, group: Group):
        super().__init__(option, group)
        self._open: dict[str, EventsWriter] = {}

    def start(self, key: str, config: Config) -> str:
        from tensorboardX.summary import hparams

        # Without the summary of the whole experiment, TensorBoard collects the columns of its table from all trials.
        _, begun, _ = hparams(config, {})
        self._write(key, [begun])
        return key

    def log(self, run: str, epochs: Mapping[int, Metrics]) -> None:
        from tensorboardX.summary import scalar

        if run not in self._open:  # hides epochs that were written just before the driver was killed
            self._open_run(run, hidden_from=min(epochs))
        for batch in steps(epochs, 1000):
            for name, value, epoch in batch:
                self._write(run, [scalar(name, value)], epoch)

    def end(self, run: str, ending: Ending) -> None:
        from tensorboardX.summary import hparams, scalar, text

        _, _, ended = hparams({}, {})
        texts = {"state": ending.state} | ({"error": ending.error} if ending.error else {})
        events = [scalar(name, value) for name, value in ending.summary.items()]
        events += [text(name, value) for name, value in texts.items()]
        self._write(run, events + ([] if ending.error else [ended]))
        self._open.pop(run).close()

    def confirm(self, run: str, values: Metrics, texts: Mapping[str, str]) -> None:
        from tensorboardX.summary import scalar, text

        self._write(run, [scalar(f"confirmed/{name}", value) for name, value in values.items()])
        self._write(run, [text(f"confirmed/{name}", value) for name, value in texts.items()])
        self._open.pop(run).close()

    def attach(self, run: str, folder: Path) -> None:
        """TensorBoard keeps no files, so the run gets the model card and the folder's name."""
        from tensorboardX.summary import text

        card = (folder / "README.md").read_text(encoding="utf-8")
        self._write(run, [text("student", f"Exported to {folder.name}\n\n{card}")])
        self._open.pop(run).close()

    def close(self) -> None:
        for writer in self._open.values():
            writer.close()

    def _write(self, run: str, summaries: list[Any], epoch: int = 0) -> None:
        from tensorboardX.proto.event_pb2 import Event

        writer = self._open.get(run) or self._open_run(run)
        for summary in summaries:
            writer.write_event(Event(summary=summary, wall_time=time.time(), step=epoch))
        writer.flush()

    def _open_run(self, run: str, hidden_from: int = 0) -> EventsWriter:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        folder = self.group.sweep.tensorboard / run
        folder.mkdir(parents=True, exist_ok=True)
        number = sum(1 for _ in folder.iterdir())  # names contain only whole seconds
        writer = self._open[run] = EventsWriter(str(folder / "events"), f".{number}")
        if hidden_from and number:
            begun = SessionLog(status=SessionLog.START)
            writer.write_event(Event(session_log=begun, wall_time=time.time(), step=hidden_from))
        return writer
