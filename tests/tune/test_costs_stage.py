"""The stages after the confirmation say what they do, so that the view does not stand still."""

from __future__ import annotations

from pathlib import Path

from made_up import begin, confirm, predict, run_trials, spec_of

from kdsweep.results.frames import load_results
from kdsweep.tune.agenda import Background
from kdsweep.tune.costs import Costs
from kdsweep.tune.predict import Prediction
from kdsweep.worker.place import WorkerPlace


class Told:
    def __init__(self):
        self.lines = []

    def phase(self, name, text):
        self.lines.append((name, text))

    def counted(self, name, done, total, text):
        self.lines.append((name, done, total))


def test_the_measurement_of_costs_counts_its_students(tmp_path):
    spec = spec_of(tmp_path)
    begin(spec)
    run_trials(spec, 20)
    told = Told()
    place = Background(lambda: WorkerPlace(spec.sweep_dir, tmp_path, Path.cwd()))
    stage = Costs(spec, place, told, lambda: None)
    stage.begin()
    trials = load_results(spec.sweep_dir.root).trials
    total = len(trials[["width", "method"]].drop_duplicates()) + 1
    work = stage.next()
    for done in (1, 2):
        assert stage.on_report(work, {"measuring": [done]})
    assert told.lines == [("costs", 0, total), ("costs", 1, total), ("costs", 2, total)]
    assert total > 3


def test_predictions_are_announced_if_there_is_something_to_predict(tmp_path):
    spec = spec_of(tmp_path)
    begin(spec)
    run_trials(spec, 20)
    confirm(spec)
    predict(spec)
    told = Told()
    place = Background(lambda: WorkerPlace(spec.sweep_dir, tmp_path, Path.cwd()))
    stage = Prediction(spec.sweep_dir, place, told)
    stage.begin()
    assert (stage.done, told.lines) == (True, [])
    spec.sweep_dir.predictions.unlink()
    stage.begin()
    assert told.lines == [("predict", "the best students and the teacher, on the test split")]
