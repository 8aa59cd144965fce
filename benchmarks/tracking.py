"""Measure what trackers cost the driver: processor time per epoch late in a sweep, and per look at logs without news.

A synthetic sweep of 100 and of 5,000 trials whose runs have all ended is continued by 20 trials of 20 epochs. The
feed passes each epoch of the 20 to the tracker: TensorBoard's event files, an SQLite store of MLflow, and a tracker
that does nothing, which is the cost of following the logs alone. The feed looks once per second while a sweep runs,
in a thread of the driver.

    python benchmarks/tracking.py [--trials 100 5000] [--trackers none tensorboard mlflow]
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import synthetic
from measure import arguments, report, say, shown, spread

from kdsweep.search.study import Study
from kdsweep.search.trial import State
from kdsweep.storage.paths import SweepDir
from kdsweep.tracking.base import TRACKERS, Ending, Metrics, Tracker
from kdsweep.tracking.feed import Feed
from kdsweep.tracking.logs import SweepLogs
from kdsweep.tracking.sent import SentLog

NEW, LOOKS = 20, 20  # trials that are followed, and looks at unchanged logs


class Nothing(Tracker):
    """Logs nowhere."""

    name = "none"
    package = ""

    @classmethod
    def place(cls, option: Any, sweep: SweepDir) -> str:
        return "nowhere"

    def start(self, key: str, config: Mapping[str, Any]) -> str:
        return key

    def log(self, run: str, epochs: Mapping[int, Metrics]) -> None:
        pass

    def end(self, run: str, ending: Ending) -> None:
        pass

    def confirm(self, run: str, values: Metrics, texts: Mapping[str, str]) -> None:
        pass

    def attach(self, run: str, folder: Path) -> None:
        pass

    def close(self) -> None:
        pass


def main() -> None:
    """Measure each tracker at each number of trials."""
    parser = arguments(__doc__.splitlines()[0], "tracking")
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 5000])
    parser.add_argument("--trackers", nargs="+", default=["none", "tensorboard", "mlflow"])
    options = parser.parse_args()
    rows, details = [], {}
    for trials in options.trials:
        for name in options.trackers:
            epochs, looks = [], []
            for repeat in range(options.repeats):
                with tempfile.TemporaryDirectory(prefix="kdsweep-tracking-") as folder:
                    epoch, look = cost(name, trials, Path(folder))
                epochs.append(epoch)
                looks.append(look)
                say(f"{name}, {trials} trials, repeat {repeat + 1}: {epoch:.3f} ms per epoch, {look:.3f} ms per look")
            details[f"{name} at {trials}"] = {"ms per epoch": spread(epochs), "ms per look": spread(looks)}
            rows.append({
                "tracker": name, "trials before": f"{trials:,}", "ms per epoch": shown(spread(epochs), 2),
                "ms per look without news": shown(spread(looks), 2),
            })  # fmt: skip
    report("processor time of the driver for trackers", rows, details, options.out)


def cost(name: str, trials: int, folder: Path) -> tuple[float, float]:
    """Milliseconds of processor time per epoch, and per look at logs without news."""
    spec = synthetic.spec_of(folder, "followed", trials + NEW)
    search = spec.search.model_copy(update={"sampler": "random"})
    spec = spec.replaced(search=search, scheduler=spec.scheduler.model_copy(update={"name": "none"}))
    sweep = spec.sweep_dir
    study = Study(spec, sweep, spec.search_space)
    spec.save(sweep.spec)
    for _ in range(trials):
        train(study, study.ask(), range(1, 3))
    tracker: type[Tracker] = Nothing if name == "none" else TRACKERS[name]
    option = f"sqlite:///{folder}/mlflow.db" if name == "mlflow" else True
    feed = Feed(tracker, option, sweep, spec.goal, say)
    sent = feed._sent = SentLog(sweep, name, tracker.identity(option), spec.goal)
    logs, opened = SweepLogs(sweep), tracker(option, sent.group)
    for trial in logs.trials():  # everything so far was logged before
        sent.note(trial.key, run="logged", epoch=2, state="COMPLETE")
    feed._pass_on(logs, opened)
    new = [study.ask() for _ in range(NEW)]
    spent = 0.0
    for epoch in range(1, synthetic.EPOCHS + 1):
        for trial in new:
            train(study, trial, range(epoch, epoch + 1), ends=epoch == synthetic.EPOCHS)
        spent += timed(feed, logs, opened)
    idle = sum(timed(feed, logs, opened) for _ in range(LOOKS))
    opened.close()
    sent.close()
    study.close()
    check(sweep, name, new)
    return spent / (NEW * synthetic.EPOCHS), idle / LOOKS


def train(study: Study, trial: Any, epochs: range, ends: bool = True) -> None:
    """Log epochs of a trial, and its end."""
    for epoch in epochs:
        study.report(trial.key, {
            "epoch": epoch, "train_loss": 1.0 / epoch, "val_loss": 1.5 / epoch, "lr": 1e-3, "seconds": 1.0,
            "val_accuracy": synthetic.accuracy(trial.config, trial.number, epoch), "size_mb": 1.0,
            "parameters": 100_000, "task_loss": 0.5, "distill_loss": 0.5,
        })  # fmt: skip
    if ends:
        study.finish(trial.key, State.COMPLETE)


def timed(feed: Feed, logs: SweepLogs, tracker: Tracker) -> float:
    """Milliseconds of processor time for passing on what is new."""
    begun = time.thread_time()
    feed._pass_on(logs, tracker)
    return 1000 * (time.thread_time() - begun)


def check(sweep: SweepDir, name: str, new: list[Any]) -> None:
    """The tracker was given every epoch and end of the new trials."""
    entries = [json.loads(line) for line in sweep.tracked(name).read_text().splitlines()]
    last = {
        trial.key: max(entry.get("epoch", 0) for entry in entries if entry.get("trial") == trial.key) for trial in new
    }
    assert set(last.values()) == {synthetic.EPOCHS}, last


if __name__ == "__main__":
    main()
