"""Reads tracked runs back with the trackers' own readers, in one form for all of them."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kdsweep.results.frames import load_results


@dataclass
class Run:
    """A run as its tracker has it.

    Attributes:
        params: The settings.
        epochs: Every value of each metric that is logged by epoch, as (epoch, value), repeated ones included.
        last: The last value of each number.
        texts: The texts: state, error, verdicts.
        files: Attached files by name, or their texts.
        group: What it is grouped by.
        status: The tracker's own state.
    """

    params: dict[str, Any] = field(default_factory=dict)
    epochs: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    group: str = ""
    status: str = ""


ONCE = ("best_", "epochs", "train_seconds", "parameters", "size_mb", "confirmed/")  # not logged by epoch


def agrees(runs: dict[str, Run], root: Path) -> None:
    """Assert that the runs are the trials, and their epochs, settings and last values those of the frames."""
    results = load_results(root)
    assert sorted(runs) == sorted(results.trials["trial"])
    for row in results.trials.to_dict("records"):
        run = runs[row["trial"]]
        epochs = results.epochs[results.epochs["trial"] == row["trial"]]
        for column in ("val_accuracy", "val_loss", "train_loss", "lr", "seconds"):
            expected = list(zip(epochs["epoch"], epochs[column], strict=True))
            assert [step for step, _ in run.epochs.get(column, [])] == [step for step, _ in expected]
            assert [value for _, value in run.epochs.get(column, [])] == pytest.approx([value for _, value in expected])
        ended = row["state"] != "RUNNING"
        if ended and len(epochs):
            numbers = {"best_val_accuracy": "val_accuracy", "epochs": "epochs", "parameters": "parameters",
                       "size_mb": "size_mb", "train_seconds": "train_seconds"}  # fmt: skip
            assert {name: run.last[name] for name in numbers} == pytest.approx(
                {name: float(row[column]) for name, column in numbers.items()}
            )
            assert run.last["best_epoch"] == epochs.loc[epochs["val_accuracy"].idxmax(), "epoch"]
        assert run.texts.get("state", "RUNNING") == row["state"]
        assert run.texts.get("error", "") == row["error"]
        for name, value in json.loads(row["config"]).items():
            assert run.params[name] == value or float(run.params[name]) == pytest.approx(value)


def tensorboard(sweep) -> dict[str, Run]:
    """Read the event files of each trial."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.api_pb2 import Status
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    runs = {}
    for folder in sorted(sweep.tensorboard.iterdir()):
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
        events.Reload()
        run = runs[folder.name] = Run(group=folder.parent.name)
        for tag in events.Tags()["scalars"]:
            points = [(event.step, event.value) for event in events.Scalars(tag)]
            run.last[tag] = points[-1][1]
            if not tag.startswith(ONCE):
                run.epochs[tag] = points
        for tag in events.Tags()["tensors"]:
            (content,) = events.Tensors(tag)[-1].tensor_proto.string_val or [b""]
            run.texts[tag.removesuffix("/text_summary")] = content.decode()
        begun = HParamsPluginData.FromString(
            events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        ).session_start_info
        run.params = {name: getattr(value, value.WhichOneof("kind")) for name, value in begun.hparams.items()}
        run.files = ["README.md"] if "student" in run.texts else []
        if "_hparams_/session_end_info" in events.summary_metadata:
            content = events.SummaryMetadata("_hparams_/session_end_info").plugin_data.content
            run.status = Status.Name(HParamsPluginData.FromString(content).session_end_info.status)
    return runs


def mlflow(sweep, uri: str = "") -> dict[str, Run]:
    """Read every run of every experiment of a server, or of the store beside the sweeps."""
    from mlflow import MlflowClient

    client = MlflowClient(uri or store(sweep))
    experiments = {one.experiment_id: one.name for one in client.search_experiments() if one.name != "Default"}
    runs = {}
    for found in client.search_runs(list(experiments)):
        key, number = found.info.run_name, found.info.run_id
        assert key not in runs, f"two runs of {key}"
        run = runs[key] = Run(params=found.data.params, last=found.data.metrics, texts=found.data.tags)
        run.epochs = {
            name: sorted((point.step, point.value) for point in client.get_metric_history(number, name))
            for name in run.last
            if not name.startswith(ONCE)
        }
        run.files = [Path(file.path).name for file in client.list_artifacts(number, "student")]
        run.group, run.status = experiments[found.info.experiment_id], found.info.status
    return runs


def store(sweep) -> str:
    return f"sqlite:///{sweep.root.parent.parent}/mlflow.db"


def wandb(sweep) -> dict[str, Run]:
    """Read the transaction logs of all offline runs; logs of one run id belong together."""
    runs: dict[str, Run] = {}
    for path in sorted(sweep.root.glob("wandb/offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime_ns):
        run = Run()
        for record in _records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                run = runs.setdefault(record.run.display_name, run)
                run.group, run.status = record.run.run_group, "running"
                run.params |= _values(record.run.config.update)
                run.texts |= {"tags": ",".join(record.run.tags)}
            elif kind == "config":
                run.params |= _values(record.config.update)
            elif kind == "history":
                for name, value in _values(record.history.item).items():
                    if not name.startswith("_"):
                        run.epochs.setdefault(name, []).append((record.history.step.num, value))
            elif kind == "summary":
                for name, value in _values(record.summary.update).items():
                    (run.texts if isinstance(value, str) else run.last)[name] = value
            elif kind == "exit":
                run.status = f"exit {record.exit.exit_code}"
            elif kind == "artifact":
                run.files += [entry.path for entry in record.artifact.manifest.contents]
    return runs


def _values(items) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def _records(path: Path) -> Iterator[Any]:
    """Yield the records of a transaction log: LevelDB's log format after a header of 7 bytes, without padding."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, parts = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length, kind = struct.unpack("<HB", data[position + 4 : position + 7])
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            yield Record.FromString(parts)
            parts = b""
