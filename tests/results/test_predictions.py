"""Predictions on the test split: right, made once, remade when they are damaged or outdated, and drawn as they are."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock
from made_up import begin, predict, run_trials, spec_of
from made_up import confirm as confirm_made_up
from pandas.testing import assert_frame_equal
from PIL import Image

import kdsweep
from kdsweep import cli
from kdsweep.datasets import Source, get
from kdsweep.errors import InputError
from kdsweep.results import predictions, predictor
from kdsweep.results.classification import calibration, confusion
from kdsweep.results.doctor import examine
from kdsweep.results.frames import load_results
from kdsweep.results.report.page import render
from kdsweep.storage.paths import SweepDir
from kdsweep.tasks.base import Task
from kdsweep.tasks.metrics import METRICS

FINISHED = Path(__file__).parents[1] / "data" / "finished_0.1.0"
NOISE = {"empty": b"", "noise": b"\x00\xff" * 400}


@pytest.fixture(scope="module")
def predicted(tmp_path_factory):
    """A finished sweep of version 0.1.0, whose predictions were made afterwards; tests must not change it."""
    copy = shutil.copytree(FINISHED, tmp_path_factory.mktemp("predicted") / "sweep")
    assert predictor.provide(load_results(copy)) == ""
    return SweepDir(copy)


@pytest.fixture
def sweep(predicted, tmp_path):
    """A copy of it, with the same data beside it."""
    (tmp_path / ".cache").symlink_to(predicted.root.parent / ".cache")
    return SweepDir(shutil.copytree(predicted.root, tmp_path / "sweep"))


@pytest.fixture(scope="module")
def digits():
    """Images and labels of the test split, as the data set has them."""
    return get("mnist_mini").load(Source(Path("data"), False, 0, False), "test")


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["kdsweep", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


# What they are


def answers_of(folder, images):
    """Answers and confidences of an exported student."""
    student = kdsweep.load_student(folder)
    with torch.inference_mode():
        probabilities = student(torch.from_numpy(images)).softmax(1).numpy()
    return probabilities.argmax(1), probabilities.max(1)


def test_a_sweep_ends_with_the_predictions_of_what_it_exports(swept, digits, tmp_path):
    results = load_results(swept)
    frame = results.predictions
    models = {model.role: model.trial for model in predictions.models_of(results)}
    assert models["student"] == results.confirmed["trial"].iloc[0]
    width = results.trials.set_index("trial").loc[models["student"], "width"]
    assert models["plain"] == results.plain(width)["trial"].iloc[0]
    np.testing.assert_array_equal(frame["label"], digits.labels)
    for role in ("student", "plain"):
        (folder,) = results.export(tmp_path, trial=models[role])
        answers, confidences = answers_of(folder, digits.images)
        np.testing.assert_array_equal(frame[f"{role}_class"], answers)
        np.testing.assert_allclose(frame[f"{role}_confidence"], confidences, atol=1e-5)
    accuracy = (frame["teacher_class"] == frame["label"]).mean()
    assert accuracy == pytest.approx(results.teacher["test_accuracy"], abs=1e-12)


def test_the_confusion_matrix_counts_each_sample_once(swept):
    results = load_results(swept)
    frame = results.predictions
    for role in ("student", "plain", "teacher"):
        expected = np.zeros((10, 10), int)
        for label, answer in zip(frame["label"], frame[f"{role}_class"], strict=True):
            expected[label, answer] += 1
        right, errors = results.plot_confusion(role).data
        drawn = [[int((one or other or "0").replace(",", "")) for one, other in zip(*row, strict=True)]
                 for row in zip(right.text, errors.text, strict=True)]  # fmt: skip
        np.testing.assert_array_equal(drawn, expected)
        share = np.nan_to_num(right.z) + np.nan_to_num(errors.z)
        np.testing.assert_allclose(share, expected / expected.sum(1, keepdims=True), atol=1e-6)


def test_confusion_by_hand():
    labels, answers = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 2, 1, 2, 2, 0])
    assert confusion(labels, answers, 4).tolist() == [[1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 2, 0], [0, 0, 0, 0]]


def test_accuracy_by_class_is_that_of_the_frame_from_the_weakest_class_up(swept):
    results = load_results(swept)
    frame = results.predictions
    traces = {trace.name: trace for trace in results.plot_per_class().data}
    own = (frame["student_class"] == frame["label"]).groupby(frame["label"]).mean()
    assert traces["student"].x == pytest.approx(sorted(own), abs=1e-4)
    order = [int(name) for name in traces["student"].text]
    teacher = (frame["teacher_class"] == frame["label"]).groupby(frame["label"]).mean()
    assert traces["teacher"].x == pytest.approx(teacher[order].tolist(), abs=1e-4)


def test_calibration_error_by_hand():
    # Bins of 1/15: 0.9 in the 14th, 0.8 in the 12th, 0.6 and 0.55 in the 9th.
    measured = calibration(np.array([0.9, 0.8, 0.6, 0.55]), np.array([True, True, False, True]))
    assert measured.ece == pytest.approx((0.1 + 0.2 + 0.15) / 4)
    assert measured.counts.tolist() == [0] * 8 + [2, 0, 0, 1, 0, 1, 0]
    assert measured.accuracy[8] == 0.5
    assert measured.confidence[8] == pytest.approx(0.575)


def test_calibration_error_is_that_of_the_metric():
    logits, labels = torch.randn(500, 7, generator=torch.manual_seed(0)) * 3, torch.arange(500) % 7
    confidence, answer = logits.softmax(1).max(1)
    ece = METRICS["ece"]
    expected = ece.value(ece.sums(logits, labels), 500)
    assert calibration(confidence.numpy(), (answer == labels).numpy()).ece == pytest.approx(expected, abs=1e-9)


def test_the_diagram_says_the_error_and_the_bins(swept):
    results = load_results(swept)
    frame = results.predictions
    ece = calibration(frame["teacher_confidence"].to_numpy(), (frame["teacher_class"] == frame["label"]).to_numpy()).ece
    page = render(results, running=False)
    assert f"teacher (ECE {ece:.4g})" in [trace.name for trace in results.plot_reliability().data]
    assert "Expected calibration error, 15 bins of equal width: student" in page


# The strip of images


def test_the_strip_shows_the_images_of_the_data_set_with_both_answers(swept, digits):
    results = load_results(swept)
    frame = results.predictions
    other = [row for row in frame.to_dict("records") if row["student_class"] != row["teacher_class"]]
    other.sort(key=lambda row: (-abs(row["student_confidence"] - row["teacher_confidence"]), row["sample"]))
    chosen = other[: predictor.MOST_PICTURES]
    assert set(frame.loc[frame["image"].notna(), "sample"]) == {row["sample"] for row in chosen}
    page = render(results, running=False)
    shown = re.findall(r'<img class="pixels" src="data:image/png;base64,([^"]+)" alt="([^"]+)"', page)
    assert len(shown) == len(chosen) > 3
    for (data, text), row in zip(shown, chosen, strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        np.testing.assert_array_equal(pixels, digits.images[row["sample"], 0])
        assert text == (
            f"test image {row['sample']}, true class {digits.labels[row['sample']]}: "
            f"teacher {row['teacher_class']}, {row['teacher_confidence']:.0%}; "
            f"student {row['student_class']}, {row['student_confidence']:.0%}"
        )


def test_small_images_are_kept_pixel_by_pixel_and_large_ones_are_shrunk():
    draw = np.random.default_rng(0)
    small, large = draw.integers(0, 256, (96, 80, 3), np.uint8), draw.integers(0, 256, (400, 200, 3), np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(predictor._encoded(small)))), small)
    shrunk = Image.open(io.BytesIO(predictor._encoded(large)))
    assert (shrunk.format, shrunk.size) == ("JPEG", (80, 160))


def test_samples_that_are_no_images_have_no_pictures(tmp_path):
    assert Task().pictures(None, torch.arange(3)).shape == (3, 0, 1, 1)
    spec = spec_of(tmp_path)
    begin(spec)
    run_trials(spec, 20)
    confirm_made_up(spec)
    predict(spec, pictures=0)
    page = render(load_results(spec.sweep_dir.root), running=False)
    assert "The samples cannot be shown as images." in page
    assert "<img" not in page


# Missing, damaged, outdated


def remade(sweep, before):
    """Check that the file on disk is not used, and make it again."""
    results = load_results(sweep.root)
    assert results.predictions.empty
    assert predictor.wanted(results)
    assert predictor.provide(results) == ""
    assert_frame_equal(load_results(sweep.root).predictions, before)


@pytest.mark.parametrize("kind", ["missing", "cut", *NOISE, "another table"])
def test_missing_and_damaged_predictions_are_made_again(kind, sweep):
    before, whole = load_results(sweep.root).predictions, sweep.predictions.read_bytes()
    assert len(before) == 2000
    if kind == "missing":
        sweep.predictions.unlink()
    elif kind == "another table":
        pd.DataFrame({"sample": [1]}).to_parquet(sweep.predictions)
    else:
        sweep.predictions.write_bytes(NOISE.get(kind, whole[: len(whole) // 2]))
    remade(sweep, before)


def test_predictions_of_other_weights_are_outdated(sweep):
    results = load_results(sweep.root)
    student = predictions.models_of(results)[0]
    kept = student.weights.read_bytes()
    trials = results.trials[results.trials["width"] == 0.5]["trial"]
    other = next(key for key in trials if key != student.trial)
    student.weights.write_bytes(sweep.trial(other).best.read_bytes())
    assert load_results(sweep.root).predictions.empty
    found = {finding.file: finding for finding in examine(sweep)}["predictions.parquet"]
    assert found.note == "was outdated and has been removed; kdsweep report makes it again"
    student.weights.write_bytes(kept)


def test_predictions_stay_when_weights_are_deleted(sweep):
    before = load_results(sweep.root).predictions
    shutil.rmtree(sweep.trials)
    sweep.teacher_weights.unlink()
    results = load_results(sweep.root)
    assert_frame_equal(results.predictions, before)
    assert not predictor.wanted(results)


@pytest.mark.parametrize("kind", NOISE)
def test_doctor_removes_damaged_predictions(kind, sweep):
    sweep.predictions.write_bytes(NOISE[kind])
    found = {finding.file: finding for finding in examine(sweep)}
    assert found["predictions.parquet"].state == "repaired"
    assert not sweep.predictions.exists()
    assert "predictions.parquet" not in {finding.file for finding in examine(sweep)}


def test_predictions_that_cannot_be_saved_are_shown_all_the_same(sweep):
    sweep.predictions.unlink()
    (sweep.predictions / "in the way").mkdir(parents=True)
    results = load_results(sweep.root)
    assert predictor.provide(results).startswith("note: predictions were not saved: IsADirectoryError")
    assert len(results.predictions) == 2000


def test_the_command_makes_missing_predictions_and_says_so(sweep, monkeypatch, capsys):
    sweep.predictions.unlink()
    assert not command(monkeypatch, "report", sweep.root)
    assert capsys.readouterr().err == "predicting the test split\n"
    assert "confusion-student" in sweep.report.read_text()
    assert not command(monkeypatch, "report", sweep.root)
    assert capsys.readouterr().err == ""


def test_without_the_data_the_report_leaves_the_charts_out(sweep, monkeypatch, capsys):
    sweep.predictions.unlink()
    spec = sweep.spec.read_text().replace("name: mnist_mini, root: /home/someone/data", "name: cifar10, root: nowhere")
    sweep.spec.write_text(spec)
    assert not command(monkeypatch, "report", sweep.root)
    note = capsys.readouterr().err.splitlines()[1]
    assert note.startswith("note: no predictions of the test split: ")
    assert "nowhere" in note
    page = sweep.report.read_text()
    assert f"where the data set can be read, they are made by: kdsweep report {sweep.root.name}" in page
    assert "chart-reliability" not in page
    assert load_results(sweep.root).plot_reliability().data == ()


def test_changed_data_are_not_predicted(sweep):
    sweep.predictions.unlink()
    described = json.loads(sweep.data.read_text())
    sweep.data.write_text(json.dumps(described | {"digest": "other", "mean": [0.5]}))
    note = predictor.provide(load_results(sweep.root))
    assert note == (f"note: no predictions of the test split: {sweep.root}: the data set has changed since the sweep")


def test_nothing_is_predicted_while_the_sweep_is_running(sweep, monkeypatch, capsys):
    sweep.predictions.unlink()
    with FileLock(sweep.lock):
        assert not command(monkeypatch, "report", sweep.root)
    assert capsys.readouterr().err == ""
    assert "The predictions on the test split are made when the sweep ends." in sweep.report.read_text()
    assert not sweep.predictions.exists()


def test_without_confirmation_the_test_split_is_not_used(sweep):
    sweep.predictions.unlink()
    sweep.confirmed_frame.unlink()
    results = load_results(sweep.root)
    assert not predictor.wanted(results)
    with pytest.raises(InputError, match="no student has been confirmed"):
        predictor.predict_here(results)
    assert "No student has been confirmed, so the test split has not been used" in render(results, running=False)


def test_weights_that_are_missing_are_named(sweep):
    sweep.predictions.unlink()
    student = predictions.models_of(load_results(sweep.root))[0]
    student.weights.unlink()
    results = load_results(sweep.root)
    with pytest.raises(InputError, match="missing; only the weights of the best trials are kept"):
        predictor.predict_here(results)
    text = f"The weights of the best confirmed student, {student.trial}, are missing, so it has no predictions."
    assert text in render(results, running=False)


def test_damaged_weights_are_refused_in_one_line(sweep):
    sweep.predictions.unlink()
    student = predictions.models_of(load_results(sweep.root))[0]
    student.weights.write_bytes(b"broken")
    with pytest.raises(InputError, match="the weights must be as the sweep wrote them"):
        predictor.predict_here(load_results(sweep.root))


def test_a_confusion_matrix_is_of_one_of_three_models(sweep):
    results = load_results(sweep.root)
    with pytest.raises(InputError, match="model: found 'teachers'; accepted: student, plain, teacher"):
        results.plot_confusion("teachers")
    assert results.plot_confusion("plain").data == ()  # no plain trial was trained to the end


# Many classes


@pytest.fixture(scope="module")
def hundred(tmp_path_factory):
    """A made-up sweep with 10,000 test samples of 100 classes and the largest pictures that are not shrunk."""
    spec = spec_of(tmp_path_factory.mktemp("hundred"))
    begin(spec, classes=[f"class {number}" for number in range(100)])
    run_trials(spec, 20)
    confirm_made_up(spec)
    predict(spec, 10_000, 100, pictures=predictor.MOST_PICTURES, side=predictor.SIDE)
    return spec.sweep_dir


def test_the_most_frequent_errors_of_100_classes_are_a_table(hundred):
    results = load_results(hundred.root)
    frame = results.predictions
    wrong = frame[frame["student_class"] != frame["label"]]
    counts = wrong.groupby(["label", "student_class"]).size().sort_values(ascending=False, kind="stable")
    page = render(results, running=False)
    table = page[page.index("Most frequent errors of the student") :]
    cells = re.findall(
        r'<td class="wrap">class (\d+)</td><td class="wrap">class (\d+)</td><td class="number">(\d+)', table
    )
    assert [int(count) for *_, count in cells] == counts.head(10).tolist()
    assert all(counts[int(label), int(answer)] == int(count) for label, answer, count in cells)
    right, errors = results.plot_confusion().data
    assert right.texttemplate is errors.texttemplate is None
    assert np.shape(errors.z) == (100, 100)


def test_ten_thousand_samples_add_less_than_two_megabytes(hundred, made_up):
    size = len(render(load_results(hundred.root), running=False)) - len(
        render(load_results(made_up.root), running=False)
    )
    assert size < 2e6
    assert hundred.predictions.stat().st_size < 1.5e6


def test_more_classes_than_can_be_drawn_have_no_matrix(tmp_path):
    spec = spec_of(tmp_path)
    begin(spec, classes=[f"class {number}" for number in range(300)])
    run_trials(spec, 20)
    confirm_made_up(spec)
    predict(spec, 600, 300)
    page = render(load_results(spec.sweep_dir.root), running=False)
    assert "A matrix of more than 128 classes is not drawn." in page
    assert "Most frequent errors of the student" in page
