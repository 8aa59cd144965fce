"""A trial as Ray Tune runs it, in a worker that stays warm from trial to trial."""

from __future__ import annotations

import faulthandler
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from kdsweep import tasks
from kdsweep.config.spec import read_spec
from kdsweep.errors import KdsweepError
from kdsweep.models import count_parameters, size_mb
from kdsweep.registry import import_from
from kdsweep.search.stopping import rule_of
from kdsweep.seeds import derived_seed
from kdsweep.storage.paths import SweepDir
from kdsweep.training.trainer import SAVE_SECONDS, Training
from kdsweep.worker import process
from kdsweep.worker.workbench import Workbench, open_workbench

# Short epochs are told together: Ray's part of each would cost more than it.
TOGETHER_SECONDS = 1.0


class DistillTrial(tune.Trainable):
    """Steps one trial by an epoch, or by several short ones.

    The configuration names the sweep's directory, its data, where the user's code lies, and the trial's key. Set up
    with a key whose state exists, the trial goes on from there; that one rule serves a lost worker, a lost node and a
    resumed sweep. It never says that it is done: the scheduler, which hears every epoch, stops it.

    A step ends at the latest where the scheduler may stop the trial, so nothing is trained in vain. What it returns:

        epochs: What each of its epochs measured.
        before: The same of all epochs that the trial's state already held, when it was just taken up. Their worker may
            have been lost before it could tell.
        failure: In one line, why the trial cannot go on.
        storage: In one line, why the sweep cannot.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Begin the worker's first trial. Files are opened by its first step, which can report what is wrong."""
        self._sweep = SweepDir(Path(config["sweep"]))
        self._places = {"code": config["code"], "data": config["data"]}
        self._bench: Workbench | None = None
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Go on with another trial: the driver has ended the one at hand."""
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train; a failure is reported, so that the worker stays warm.

        A hang cannot be reported from here: a watchdog outside Python ends the process, and the trial goes on from
        its state in another.
        """
        told: dict[str, Any] = {"epochs": []}
        try:
            self._train(told)
        except OSError as error:
            told["storage"] = f"{error.strerror or error}: {error.filename or self._sweep.root}"
        except KdsweepError as error:
            told["failure"] = str(error)
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            told["failure"] = f"out of GPU memory: {str(error).splitlines()[0]}"
        except Exception as error:
            told["failure"] = _described(error)
        finally:
            faulthandler.cancel_dump_traceback_later()
        return told

    def cleanup(self) -> None:
        """The worker is asked to stop: keep what was done."""
        with suppress(OSError):
            self._save_if_wanted()

    def _begin(self, config: dict[str, Any]) -> None:
        self._config = dict(config["config"])
        self._trial = self._sweep.trial(config["key"])
        self._training: Training | None = None
        self._saved_at = time.monotonic()
        self._saved_epoch = 0

    def _train(self, told: dict[str, Any]) -> None:
        started = time.monotonic()
        bench = self._bench or self._open()
        if self._training is None:
            self._trial.root.mkdir(parents=True, exist_ok=True)
            self._hang_file = self._trial.hang.open("w")
            self._watch(bench)
            self._training = bench.training(self._config, derived_seed(bench.spec.seed, "trial"), self._trial.state)
            student = self._training.inference
            self._student = {"parameters": count_parameters(student), "size_mb": size_mb(student)}
            told["before"] = [metrics | self._student for metrics in self._training.history]
        training = self._training
        ends = training.done  # it was stopped between its last epoch and the driver's note of it
        while not ends:
            self._watch(bench)
            told["epochs"].append(training.run_epoch() | self._student)
            ends = self._may_end(training) or time.monotonic() - started > TOGETHER_SECONDS
        self._save_if_due()

    def _watch(self, bench: Workbench) -> None:
        """Give the next epoch its time, and end the process after it."""
        faulthandler.dump_traceback_later(bench.spec.resources.step_timeout_seconds, exit=True, file=self._hang_file)

    def _open(self) -> Workbench:
        """Open the sweep's data and teacher, once per worker."""
        import_from(self._places["code"])
        spec = read_spec(self._sweep)
        gpu = ray.get_gpu_ids() and torch.cuda.is_available()
        process.set_up(spec.resources.cpus_per_trial)
        data = tasks.of(spec.dataset).load(Path(self._places["data"]))
        self._bench = open_workbench(spec, self._sweep, data, torch.device("cuda" if gpu else "cpu"))
        self._milestones = rule_of(spec).milestones
        return self._bench

    def _may_end(self, training: Training) -> bool:
        """Whether the scheduler may stop the trial here."""
        return training.done or training.epoch in self._milestones

    def _save_if_due(self) -> None:
        """Save where the trial may end here or where much would be lost."""
        assert self._training is not None
        if self._may_end(self._training) or time.monotonic() - self._saved_at > SAVE_SECONDS:
            self._save_if_wanted()

    def _save_if_wanted(self) -> None:
        """Save unless there is nothing new, or the driver has already given the trial up."""
        training = self._training
        if training is None or training.epoch == self._saved_epoch or not self._trial.root.is_dir():
            return
        training.save(self._trial.state, self._trial.best)
        self._saved_at = time.monotonic()
        self._saved_epoch = training.epoch


def _described(error: Exception) -> str:
    """An error that nobody foresaw, in one line."""
    text = str(error)
    first = text.splitlines()[0] if text else ""
    if isinstance(error, MemoryError) or "can't allocate memory" in text:  # torch's way of saying it
        return f"out of memory: {first or 'MemoryError'}"
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {first} ({Path(where.filename).name}:{where.lineno})"
