"""What the search does with reports of its trials. Nothing here starts Ray."""

from __future__ import annotations

from pathlib import Path

import pytest
from studies import close_studies, opened  # noqa: F401 - every test uses the fixture

from kdsweep.config.load import load_spec
from kdsweep.errors import SweepError
from kdsweep.storage.paths import SweepDir
from kdsweep.teacher.build import TeacherCard
from kdsweep.terminal.progress import Silent
from kdsweep.training.trainer import DivergedError
from kdsweep.tune.agenda import Background
from kdsweep.tune.search import IN_A_ROW_LIMIT, Search
from kdsweep.worker.place import WorkerPlace

CARD = TeacherCard("", "mnist_teacher", 1.0, {}, "trained", {"val_accuracy": 0.9}, 1, 1.0, 1)


@pytest.fixture
def search(sweep_file, tmp_path):
    sections = {"train.epochs": 1, "search.trials": 40, "search.points": [], "search.sampler": "random"}
    spec = load_spec(sweep_file, {**sections, "scheduler.name": "none"})
    place = Background(lambda: WorkerPlace(SweepDir(tmp_path), tmp_path, Path.cwd()))
    place.result()
    stage = Search(spec, place, lambda: opened(spec), lambda: CARD, lambda: None, lambda: 1, Silent(), lambda: 1.0)
    stage.begin()
    return stage


def fail(search, reason, **values):
    search.on_report(search.next(), {"failure": reason, **values})


def complete(search):
    epoch = {"epoch": 1, "val_accuracy": 0.5, "train_loss": 1.0, "val_loss": 1.0, "lr": 0.1, "seconds": 0.5}
    search.on_report(search.next(), {"epochs": [epoch]})


def test_a_run_of_equal_failures_after_successes_ends_the_search(search):
    complete(search)
    for _ in range(IN_A_ROW_LIMIT - 1):
        fail(search, "RuntimeError: no GPU any more")
    complete(search)
    for _ in range(IN_A_ROW_LIMIT - 1):
        fail(search, "RuntimeError: no GPU any more")
    fail(search, "RuntimeError: something else")
    for _ in range(IN_A_ROW_LIMIT - 1):
        fail(search, "RuntimeError: no GPU any more")
    with pytest.raises(SweepError, match=f"the latest {IN_A_ROW_LIMIT} trials all failed .*: RuntimeError: no GPU any"):
        fail(search, "RuntimeError: no GPU any more")


def test_settings_that_diverge_do_not_end_the_search(search):
    complete(search)
    for _ in range(2 * IN_A_ROW_LIMIT):
        fail(search, "the training loss became nan in epoch 1", error=DivergedError("the training loss became nan"))
    complete(search)
