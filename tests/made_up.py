"""A made-up sweep for the report: real logs, written by the study, without any training."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest

from kdsweep.config.spec import SweepSpec
from kdsweep.results import predictions, predictor
from kdsweep.results.confirmed import gain_columns
from kdsweep.results.frames import load_results, write_frame
from kdsweep.search.baseline import plain_twin
from kdsweep.search.study import Study
from kdsweep.search.trial import State
from kdsweep.seeds import derived_seed, run_name

EVIL = "</script><img src=x onerror=\"document.title='hacked'\"><b>bold</b> {{7*7}} \u202e"
PARAMETERS = {0.25: 1000, 0.5: 4000, 1: 16000}
SEEDS = 3


def spec_of(root, **sections):
    return SweepSpec.model_validate({
        "name": "made-up",
        "dataset": {"name": "mnist_mini"},
        "teacher": {"model": "mnist_teacher"},
        "student": {"model": "mnist_student"},
        "space": {"method": ["kd", "dkd", "none"], "width": {"choice": [0.25, 0.5, 1]},
                  "temperature": {"loguniform": [1, 16]}, "alpha": {"uniform": [0.1, 0.9]}},
        "train": {"epochs": 6},
        "search": {"sampler": "random", "trials": 40},
        "scheduler": {"name": "asha", "grace_epochs": 2},
        "storage": str(root),
    } | sections)  # fmt: skip


def accuracy(config, epoch):
    """Rises with the width; distillation adds five points."""
    distilled = config["method"] != "none"
    best = 0.8 + 0.1 * config["width"] + 0.05 * distilled
    if distilled:
        best -= 0.02 * abs(math.log2(config["temperature"]) - 2) / 2
    return round(best * (1 - 0.5 * math.exp(-epoch)), 6)


def run_trials(spec, trials=1000, error=""):
    """Run trials: every fifth is stopped early, every eleventh fails."""
    study = Study(spec, spec.sweep_dir, spec.search_space)
    while trials > 0 and (trial := study.ask()) is not None:
        trials -= 1
        config, number = trial.config, trial.number
        epochs, state = 6, State.COMPLETE
        if number % 5 == 4:
            epochs, state = 2, State.PRUNED
        if error and number % 11 == 3:
            epochs, state = number % 2, State.FAILED
        for epoch in range(1, epochs + 1):
            value = accuracy(config, epoch)
            study.report(trial.key, {
                "epoch": epoch, "train_loss": 1.0, "val_loss": 1 - value, "val_accuracy": value, "lr": 0.1,
                "seconds": 0.5, "parameters": PARAMETERS[config["width"]], "size_mb": PARAMETERS[config["width"]] / 1e5,
            })  # fmt: skip
        study.finish(trial.key, state, error if state is State.FAILED else "")
    study.close()


def confirm(spec):
    """Confirm the best two distilled students: gains of two, three and four points over their plain twins."""
    sweep, results = spec.sweep_dir, load_results(spec.sweep_dir.root)
    best = results.best(100)
    chosen = best[best["method"] != "none"].head(2)
    gained, rows = {}, []
    for row in chosen.to_dict("records"):
        config = json.loads(row["config"])
        gained[row["trial"]] = []
        for number in range(SEEDS):
            seed = derived_seed(spec.seed, "confirm", number) % 2**31
            for settings, value in ((config, 0.9 + number / 100), (plain_twin(config), 0.88)):
                folder = sweep.confirmation(run_name(settings, seed))
                folder.root.mkdir(parents=True, exist_ok=True)
                folder.result.write_text(json.dumps({"test_accuracy": value}))
            gained[row["trial"]].append(0.02 + number / 100)
        rows.append({
            "trial": row["trial"], **config, "seeds": SEEDS, "parameters": row["parameters"],
            "size_mb": row["size_mb"], "first_layer_norm": 1.0, "val_accuracy": row["val_accuracy"],
            "test_accuracy": 0.91, "test_accuracy_std": 0.01, "plain_test_accuracy": 0.88,
            "plain_test_accuracy_std": 0.0, "tuned_plain_test_accuracy": math.nan,
            "tuned_plain_test_accuracy_std": math.nan, "tuned_plain_lr": math.nan,
        })  # fmt: skip
    differences = {
        "kd_gain": {key: pd.Series(values).to_numpy() for key, values in gained.items()},
        "kd_gain_tuned": {},
    }
    judged = gain_columns(differences, list(gained), 0.005)
    write_frame(pd.concat([pd.DataFrame(rows), judged], axis=1), sweep.confirmed_frame)


def predict(spec, samples=400, classes=2, pictures=6, side=8):
    """Write made-up predictions: the teacher is right on 95 % of the samples, students on fewer."""
    results, draw = load_results(spec.sweep_dir.root), np.random.default_rng(0)
    models = predictions.models_of(results)
    labels = draw.integers(0, classes, samples)
    frame = pd.DataFrame({"sample": np.arange(samples), "label": labels}, dtype=np.int32)
    for model, accuracy in zip(models, (0.9, 0.85, 0.95) if len(models) == 3 else (0.9, 0.95), strict=True):
        model.weights.parent.mkdir(parents=True, exist_ok=True)
        model.weights.write_bytes(model.role.encode())
        wrong = draw.random(samples) > accuracy
        answers = np.where(wrong, (labels + draw.integers(1, classes, samples)) % classes, labels)
        frame[f"{model.role}_class"] = answers.astype(np.int32)
        frame[f"{model.role}_confidence"] = draw.uniform(1 / classes, 1, samples).astype(np.float32)
    images = [None] * samples
    for place in predictions.disagreements(frame).head(pictures)["sample"]:
        images[place] = predictor._encoded(draw.integers(0, 256, (side, side, 3), dtype=np.uint8))
    predictions.save(frame.assign(image=images), models, spec.sweep_dir)


def begin(spec, teacher="mnist_teacher", classes=("cat", "dog")):
    """Write the files that a sweep has before its first trial."""
    sweep = spec.sweep_dir
    sweep.root.mkdir(parents=True)
    spec.save(sweep.spec)
    sweep.teacher.mkdir()
    sweep.teacher_card.write_text(json.dumps({
        "model": teacher, "origin": "trained", "parameters": 160_000, "size_mb": 1.6, "epochs": 5,
        "val_accuracy": 0.98, "val_loss": 0.1,
    }))  # fmt: skip
    sweep.teacher_test.write_text(json.dumps({"test_accuracy": 0.97}))
    sweep.data.write_text(json.dumps({"input_shape": [1, 28, 28], "class_names": list(classes), "digest": "abc"}))
    stage = {"begin": 2.0, "first_step": 3.0, "end": 12.0, "busy": 15.0}
    sweep.environment.write_text(json.dumps({
        "started": "2026-01-01T00:00:00", "python": "3.11.7", "packages": {"torch": "2.6.0"}, "command": ["kdsweep"],
        "timeline": {"workers": 2, "first_epoch": 4.0, "end": 12.0, "stages": {"search": stage}},
    }))  # fmt: skip
    return sweep


@pytest.fixture(scope="session", name="made_up")
def finished_sweep(tmp_path_factory):
    """The directory of a finished, confirmed sweep whose texts are all hostile; tests must not change it."""
    spec = spec_of(tmp_path_factory.mktemp("made-up"))
    begin(spec, teacher=EVIL, classes=(EVIL, "dog"))
    run_trials(spec, error=EVIL)
    confirm(spec)
    predict(spec)
    return spec.sweep_dir
