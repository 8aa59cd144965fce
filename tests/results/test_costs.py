"""What running a student costs: in the results of a sweep, as a constraint, and measured on one's own machine."""

from __future__ import annotations

import json
import math
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
from inputs import COMMAND, SPEC, refused

from kdsweep import cli, models
from kdsweep.config.constraints import within_constraints
from kdsweep.config.spec import SweepSpec
from kdsweep.errors import InputError
from kdsweep.models import InputSpec
from kdsweep.results.frames import load_results
from kdsweep.results.report import answer
from kdsweep.results.report.charts import size
from kdsweep.results.speed import student_speed, within_noise
from kdsweep.results.student_config import read_config
from kdsweep.storage.paths import SweepDir

SPEEDS = ["latency_ms", "latency_iqr_ms", "throughput", "activation_mb"]
SHAPE = (1, 28, 28)


def test_a_sweep_measures_the_costs_of_its_students_and_its_teacher(swept):
    results = load_results(swept)
    trials = results.trials[results.trials["state"] != "FAILED"]
    for row in trials.to_dict("records"):
        assert row["flops"] == models.flops("mnist_student", SHAPE, 10, row["width"])
        model = models.architecture("mnist_student", SHAPE, 10, row["width"])
        assert row["activation_mb"] == pytest.approx(models.activation_mb(model, torch.zeros(1, *SHAPE)))
        assert row["latency_ms"] > 0
        assert row["throughput"] > 0
    # Students of one width are the same network, so they have one measurement, whatever their method.
    assert (trials.groupby("width")[SPEEDS].nunique() == 1).all(axis=None)
    assert results.confirmed["latency_ms"].tolist() == [
        trials.set_index("trial").loc[trial, "latency_ms"] for trial in results.confirmed["trial"]
    ]
    assert results.teacher["latency_ms"] > 0
    assert results.teacher["flops"] == models.flops("mnist_teacher", SHAPE, 10, 0.25)
    costs = json.loads(results.sweep.costs.read_text())
    assert (costs["device"], costs["threads"]) == ("cpu", 1)
    assert results.is_current(results.sweep.trials_frame)


def test_costs_belong_to_the_trials_of_the_same_width_and_method(swept, tmp_path):
    copy = SweepDir(shutil.copytree(swept, tmp_path / "small"))
    row = {
        "width": 0.5,
        "method": "kd",
        "latency_ms": 1.5,
        "latency_iqr_ms": 0.5,
        "throughput": 10.0,
        "activation_mb": 2.0,
    }
    copy.costs.write_text(json.dumps({"students": [row], "teacher": {"latency_ms": 9.0}}))
    results = load_results(copy.root)
    same = (results.trials["width"] == 0.5) & (results.trials["method"] == "kd")
    assert same.any()
    assert (results.trials.loc[same, SPEEDS] == [1.5, 0.5, 10.0, 2.0]).all(axis=None)
    assert results.trials.loc[~same, SPEEDS].isna().all(axis=None)
    assert results.teacher["latency_ms"] == 9.0
    copy.costs.write_text("{")
    assert load_results(copy.root).trials[SPEEDS].isna().all(axis=None)


# The constraint on operations


def spec_of(constraints, width):
    return SweepSpec.model_validate({
        "name": "limited", "dataset": {"name": "mnist_mini"}, "teacher": {"model": "mnist_teacher"},
        "student": {"model": "mnist_student"}, "space": {"method": ["kd"], "width": width}, "constraints": constraints,
    })  # fmt: skip


def test_widths_with_more_operations_than_the_constraint_are_not_searched():
    counted = {width: models.flops("mnist_student", SHAPE, 10, width) for width in (0.25, 0.5, 1.0)}
    assert sorted(counted.values()) == list(counted.values())
    choice = {"choice": list(counted)}
    for limit, kept in ((counted[0.5], (0.25, 0.5)), (counted[0.5] - 1, (0.25,)), (counted[1.0], (0.25, 0.5, 1.0))):
        space = within_constraints(spec_of({"flops": limit}, choice), InputSpec(SHAPE), 10)
        assert space.shared["width"].every() == kept
    with refused(SPEC, InputError, match=r"no searched width of mnist_student .* satisfies {'flops': 1000}"):
        within_constraints(spec_of({"flops": 1000}, choice), InputSpec(SHAPE), 10)


@pytest.mark.parametrize(
    "constraints", [{"flops": -1}, {"flops": 1.5}, {"latency_ms": -1.0}, {"latency_ms": float("nan")}]
)
def test_limits_that_are_no_amounts_are_refused(constraints):
    with pytest.raises(ValueError, match=next(iter(constraints))):
        spec_of(constraints, 0.5)


# One's own machine


@pytest.fixture(scope="module")
def student(swept, tmp_path_factory):
    (folder,) = load_results(swept).export(tmp_path_factory.mktemp("students"), top=1)
    return folder


def test_a_students_speed_is_measured_on_this_machine(student):
    found = student_speed(student, threads=1)
    assert (found["device"], found["threads"]) == ("cpu", 1)
    assert found["machine"]
    assert found["throughput"] == pytest.approx(64_000 / found["batch_ms"])
    assert found["latency_iqr_ms"] >= 0
    assert found["latency_ms"] > 0
    assert found["flops"] == models.flops("mnist_student", SHAPE, 10, read_config(student).width)


def test_a_device_that_is_not_there_is_refused(student):
    for device in ("tpu", "meta", "cpu:7", "cuda:99", ""):
        with refused(COMMAND, InputError, match="^--device: found .*; accepted: cpu"):
            student_speed(student, device)


def test_options_of_an_evaluation_are_refused_with_latency(student, monkeypatch, capsys):
    for option, value in (("--split", "test"), ("--dataset", "mnist_mini"), ("--root", "data")):
        monkeypatch.setattr(sys, "argv", ["kdsweep", "evaluate", str(student), "--latency", option, value])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == 2
        assert capsys.readouterr().err.startswith(f"{option} has no effect with --latency")


@pytest.mark.parametrize(
    ("latencies", "ranges", "noise"),
    [((0.14, 0.15), (0.02, 0.01), True), ((0.14, 0.18), (0.02, 0.01), False), ((0.14, 0.14), (0.0, 0.0), True),
     ((0.14, 0.18), (math.nan, 0.1), True), ((0.14, 0.18), (math.nan, math.nan), False)],
)  # fmt: skip
def test_a_difference_of_latencies_within_their_ranges_is_noise(latencies, ranges, noise):
    rows = [
        {"latency_ms": latency, "latency_iqr_ms": spread} for latency, spread in zip(latencies, ranges, strict=True)
    ]
    assert within_noise(*rows) is noise
    assert within_noise(*reversed(rows)) is noise


def test_the_report_calls_a_latency_that_may_be_the_teachers_noise():
    row = {"parameters": 1000, "size_mb": 0.1, "latency_ms": 0.15, "latency_iqr_ms": 0.04}
    teacher = {"model": "big", "parameters": 2000, "size_mb": 0.2, "latency_ms": 0.16, "latency_iqr_ms": 0.02}
    found = SimpleNamespace(teacher=teacher)
    assert answer._cost(found, row).endswith(
        "takes 0.15 ms per sample; the difference from the teacher's 0.16 ms is within the noise of the measurement "
        "(interquartile ranges 0.04 and 0.02 ms)."
    )
    assert answer._cost(SimpleNamespace(teacher=teacher | {"latency_ms": 1.5}), row).endswith(
        "and takes 0.15 ms per sample instead of 1.5 ms."
    )


def test_the_chart_of_latencies_has_their_ranges_and_counts_those_as_fast_as_the_fastest(made_up, monkeypatch):
    results = load_results(made_up.root)
    monkeypatch.setattr(size.from_logs, "costs_of", lambda sweep: {"device": "cpu", "threads": 1})
    results.trials = results.trials.assign(latency_ms=0.1 + results.trials["width"], latency_iqr_ms=0.3)
    chart = size.pareto(results, "latency_ms")
    assert "2 of 3 different students are as fast as the fastest within these ranges: noise." in chart.text
    drawn = [trace for trace in chart.figure.data if trace.error_x.array is not None]
    assert len(drawn) == 3
    assert {value for trace in drawn for value in trace.error_x.array} == {0.15}
    assert all(trace.error_x.array is None for trace in size.pareto(results, "parameters").figure.data)


def test_options_of_the_speed_need_latency(student, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["kdsweep", "evaluate", str(student), "--threads", "1"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "--device and --threads measure the speed; accepted: together with --latency\n"
