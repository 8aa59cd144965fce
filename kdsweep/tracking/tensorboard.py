"""TensorBoard: event files in the sweep's directory."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdsweep.distributions import Config
from kdsweep.storage.paths import SweepDir
from kdsweep.tracking.base import MOST_OPEN, TRACKERS, Ending, Group, Metrics, Tracker

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter


@TRACKERS.register("tensorboard")
class TensorBoard(Tracker):
    """One folder of event files per trial, with the settings as hyperparameters.

    Written with TensorBoard's own parts: PyTorch's writer and tensorboardX import PyTorch, which the driver does not
    need, and all of them write in a thread that prints a traceback if the disk is full.
    """

    name = "tensorboard"
    package = "tensorboard"

    @classmethod
    def place(cls, option: Any, sweep: SweepDir) -> str:
        return str(sweep.tensorboard)

    def __init__(self, option: bool, group: Group):
        super().__init__(option, group)
        self._open: dict[str, RecordWriter] = {}

    def start(self, key: str, config: Config) -> str:
        self._open_run(key, hidden_from=1)
        # Without a summary of the whole experiment, TensorBoard collects the columns of its table from all trials.
        self._write(key, [_hparams_begin(config)])
        return key

    def log(self, run: str, epochs: Mapping[int, Metrics]) -> None:
        if run not in self._open:  # hides epochs that were written just before the driver was killed
            self._open_run(run, hidden_from=min(epochs))
        for epoch, metrics in epochs.items():
            self._write(run, [_scalar(name, value) for name, value in metrics.items()], epoch)

    def end(self, run: str, ending: Ending) -> None:
        texts = {"state": ending.state} | ({"error": ending.error} if ending.error else {})
        summaries = [_scalar(name, value) for name, value in ending.summary.items()]
        summaries += [_text(name, value) for name, value in texts.items()]
        self._write(run, [*summaries, _hparams_end(failed=ending.state == "FAILED")])
        self._open.pop(run).close()

    def confirm(self, run: str, values: Metrics, texts: Mapping[str, str]) -> None:
        self._write(run, [_scalar(f"confirmed/{name}", value) for name, value in values.items()])
        self._write(run, [_text(f"confirmed/{name}", value) for name, value in texts.items()])
        self._open.pop(run).close()

    def attach(self, run: str, folder: Path) -> None:
        """TensorBoard keeps no files: the run gets the model card and the folder's name."""
        card = (folder / "README.md").read_text(encoding="utf-8")
        self._write(run, [_text("student", f"Exported to {folder.name}\n\n{card}")])
        self._open.pop(run).close()

    def close(self) -> None:
        for writer in self._open.values():
            writer.close()

    def _write(self, run: str, summaries: Sequence[Summary], epoch: int = 0) -> None:
        writer = self._open.pop(run, None) or self._open_run(run)
        self._open[run] = writer  # the least recently used one comes first
        for summary in summaries:
            writer.write(_event(summary=summary, step=epoch))
        writer.flush()

    def _open_run(self, run: str, hidden_from: int = 0) -> RecordWriter:
        """Begin a new event file for a run. In earlier ones, epochs from `hidden_from` on are then ignored."""
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder = self.group.sweep.tensorboard / run
        folder.mkdir(parents=True, exist_ok=True)
        if len(self._open) >= MOST_OPEN:
            self._open.pop(next(iter(self._open))).close()
        number = sum(1 for _ in folder.iterdir())
        # TensorBoard reads the files of a folder in the order of their names.
        name = f"events.out.tfevents.{int(time.time()):010d}.{number}.{socket.gethostname()}.{os.getpid()}"
        writer = RecordWriter((folder / name).open("xb"))
        writer.write(_event(file_version="brain.Event:2"))
        if hidden_from and number:
            writer.write(_event(session_log=SessionLog(status=SessionLog.START), step=hidden_from))
        self._open[run] = writer
        return writer


def _event(**content: Any) -> bytes:
    from tensorboard.compat.proto.event_pb2 import Event

    return bytes(Event(wall_time=time.time(), **content).SerializeToString())


def _scalar(name: str, value: float) -> Summary:
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(value=[Summary.Value(tag=name, simple_value=value)])


def _text(name: str, text: str) -> Summary:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.plugins.text.metadata import create_summary_metadata

    tensor = TensorProto(dtype="DT_STRING", string_val=[text.encode()])
    tensor.tensor_shape.dim.add(size=1)
    metadata = create_summary_metadata(display_name=name, description="")
    return Summary(value=[Summary.Value(tag=f"{name}/text_summary", metadata=metadata, tensor=tensor)])


def _hparams_begin(config: Config) -> Summary:
    from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo

    begun = SessionStartInfo(start_time_secs=time.time())
    for name, value in config.items():
        if isinstance(value, bool):
            begun.hparams[name].bool_value = value
        elif isinstance(value, int | float):
            begun.hparams[name].number_value = value
        else:
            begun.hparams[name].string_value = str(value)
    return _hparams(SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=begun))


def _hparams_end(failed: bool) -> Summary:
    from tensorboard.plugins.hparams.api_pb2 import Status
    from tensorboard.plugins.hparams.metadata import SESSION_END_INFO_TAG
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo

    status = Status.Value("STATUS_FAILURE" if failed else "STATUS_SUCCESS")
    ended = SessionEndInfo(status=status, end_time_secs=time.time())
    return _hparams(SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=ended))


def _hparams(tag: str, content: Any) -> Summary:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams.metadata import NULL_TENSOR, create_summary_metadata

    return Summary(value=[Summary.Value(tag=tag, metadata=create_summary_metadata(content), tensor=NULL_TENSOR)])
