"""The last stage of a sweep: whatever goes wrong with the predictions, the sweep ends well."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kdsweep.errors import InputError
from kdsweep.results.frames import load_results
from kdsweep.storage.paths import SweepDir
from kdsweep.terminal.progress import Silent
from kdsweep.tune.agenda import Agenda, Background, End
from kdsweep.tune.predict import Prediction
from kdsweep.tune.timeline import Timeline
from kdsweep.tune.work import Predict
from kdsweep.worker.place import WorkerPlace

BEGUN = ("predict", "the best students and the teacher, on the test split")
FINISHED = Path(__file__).parents[1] / "data" / "finished_0.1.0"


class Noted(Silent):
    def __init__(self):
        self.texts = []

    def phase(self, name, text):
        self.texts.append((name, text))


@pytest.fixture
def sweep(tmp_path):
    return SweepDir(shutil.copytree(FINISHED, tmp_path / "sweep"))


@pytest.fixture
def progress():
    return Noted()


@pytest.fixture
def agenda(sweep, progress):
    place = WorkerPlace(sweep, sweep.root / "no data", Path.cwd())
    return Agenda([Prediction(sweep, Background(lambda: place), progress)], 1, 1, Timeline(1))


def test_a_failure_is_a_warning_and_the_sweep_ends(agenda, sweep, progress):
    work = agenda.next()
    assert isinstance(work, Predict)
    report = {"failure": "out of memory", "error": InputError("out of memory"), "seconds": 1.0}
    assert agenda.on_report(work, report) is False
    assert agenda.next() is None
    assert agenda.outcome.end is End.ENDED
    assert progress.texts == [
        BEGUN,
        ("predict", f"warning: test split not predicted: out of memory; to try again: kdsweep report {sweep.root}"),
    ]


def test_a_worker_that_is_lost_too_often_is_a_warning(agenda, progress):
    work = agenda.next()
    agenda.give_back(work)
    assert agenda.next() is work
    agenda.on_lost(work)
    assert agenda.next() is None
    assert agenda.outcome.end is End.ENDED
    assert "the worker was lost too often" in progress.texts[1][1]


def test_predictions_that_cannot_be_made_are_a_warning(agenda, progress):
    work = agenda.next()
    assert agenda.on_report(work, {"predicted": ["no space left on device"], "seconds": 1.0}) is False
    assert agenda.outcome.end is End.INTERRUPTED  # until the lanes ask for the next work
    assert agenda.next() is None
    assert agenda.outcome.end is End.ENDED
    assert [text[:50] for _, text in progress.texts[1:]] == ["warning: test split not predicted: no space left o"]


def test_made_predictions_end_the_stage_without_a_word(agenda, progress):
    work = agenda.next()
    assert agenda.on_report(work, {"predicted": [""], "seconds": 1.0}) is False
    assert agenda.next() is None
    assert progress.texts == [BEGUN]


def test_there_is_nothing_to_do_without_a_confirmed_student(agenda, sweep, progress):
    sweep.confirmed_frame.unlink()
    assert load_results(sweep.root).confirmed.empty
    assert agenda.next() is None
    assert agenda.outcome.end is End.ENDED
    assert progress.texts == []
