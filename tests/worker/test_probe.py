"""The machine is measured once before a search, and every trial uses the result."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from kdsweep.config.spec import SweepSpec
from kdsweep.tasks.image.splits import prepare
from kdsweep.tune.cluster import _fitting, _packed
from kdsweep.worker import capacity, probe
from kdsweep.worker.capacity import Pace, Probe
from kdsweep.worker.short_runs import short_together, steps_of
from kdsweep.worker.workbench import Workbench, provide_teacher

CPU = torch.device("cpu")


def opened(root, name="small", **train):
    spec = SweepSpec.model_validate({
        "name": name,
        "dataset": {"name": "mnist_mini", "subset": 400, "val_fraction": 0.5},
        "teacher": {"model": "mnist_teacher", "width": 0.25, "checkpoint": "kdsweep:mnist_mini_teacher"},
        "student": {"model": "mnist_student"},
        "space": {"method": ["kd", "none"], "width": {"choice": [0.25, 1.0, 0.5]}},
        "train": {"epochs": 2, "batch_size": 16} | train,
        "storage": str(root),
    })  # fmt: skip
    data = prepare(spec.dataset, spec.seed, spec.sweep_dir.store)
    provide_teacher(spec, spec.sweep_dir, data, CPU, lambda metrics: None)
    return spec, Workbench.of(spec, spec.sweep_dir, data, CPU)


def test_precision_is_measured_once_and_bfloat16_is_chosen_only_if_clearly_faster(tmp_path):
    spec, bench = opened(tmp_path)
    found = probe.provide(spec, spec.sweep_dir, bench)
    steps = found.step_ms
    if steps:
        assert (found.precision == "bfloat16") == (steps["float32"] > probe.WORTH * steps["bfloat16"])
    else:  # a processor without bfloat16
        assert found.precision == "float32"
    assert probe.provide(spec, spec.sweep_dir, bench) == found
    spec.sweep_dir.probe.write_text("{")
    assert capacity.stored(spec.sweep_dir) is None
    probe.provide(spec, spec.sweep_dir, bench)
    assert capacity.stored(spec.sweep_dir) is not None


def test_a_later_sweep_of_the_same_student_reuses_the_measurement(tmp_path, monkeypatch):
    measured = []

    def measure(spec, bench):
        measured.append(spec.student.model)
        return Probe("bfloat16", {"float32": 3.0, "bfloat16": 1.0})

    monkeypatch.setattr(probe, "measure", measure)
    for name, changes in (("first", {}), ("second", {}), ("third", {"batch_size": 32}), ("fourth", {"epochs": 3})):
        spec, bench = opened(tmp_path, name, **changes)
        assert probe.provide(spec, spec.sweep_dir, bench).precision == "bfloat16"
        assert capacity.stored(spec.sweep_dir) is not None
    assert len(measured) == 2  # `third` has other batches; the number of epochs does not matter


def test_a_failed_measurement_is_not_reused(tmp_path, monkeypatch):
    measured = []
    monkeypatch.setattr(probe, "measure", lambda spec, bench: measured.append(1) or Probe("float32", {}))
    for name in ("first", "second"):
        spec, bench = opened(tmp_path, name)
        probe.provide(spec, spec.sweep_dir, bench)
    assert len(measured) == 2


def test_an_explicit_precision_is_not_measured(tmp_path):
    spec, bench = opened(tmp_path, precision="bfloat16")
    assert probe.provide(spec, spec.sweep_dir, bench) == Probe("bfloat16", {})


@pytest.mark.parametrize("measured", ["float32", "bfloat16"])
def test_trials_use_the_measured_precision_unless_they_draw_their_own(measured, tmp_path):
    spec, bench = opened(tmp_path)
    spec.sweep_dir.probe.write_text(json.dumps({"precision": measured, "step_ms": {}}))
    config = {"method": "none", "width": 0.25}
    assert bench.training(config, 0, tmp_path / "none").recipe.optimization.precision == measured
    drawn = bench.training({**config, "precision": "float32"}, 0, tmp_path / "none")
    assert drawn.recipe.optimization.precision == "float32"


def test_a_student_that_cannot_be_trained_does_not_fail_the_probe(tmp_path):
    spec, bench = opened(tmp_path, lr=1e30, optimizer="sgd", batch_size=4)
    assert probe.measure(spec, bench).precision in ("float32", "bfloat16")


def test_the_widest_student_is_measured(tmp_path):
    spec, _ = opened(tmp_path)
    assert spec.search_space.widest == 1.0
    ranged = spec.replaced(space={"method": "none", "width": {"uniform": [0.25, 2]}})
    assert ranged.search_space.widest == 2


@pytest.mark.parametrize(("trial_gb", "gpu_gb", "expected"), [(0, 0, 1), (2, 80, 27), (0.4, 16, 14), (30, 16, 1)])
def test_trials_per_gpu_fill_its_memory_with_a_margin(trial_gb, gpu_gb, expected):
    assert Probe("float32", {}, int(trial_gb * 1e9), int(gpu_gb * 1e9)).lanes_per_gpu(1) == expected


def test_a_cohort_needs_the_memory_of_all_its_trials():
    found = Probe("float32", {}, int(2e9), int(80e9))
    assert found.lanes_per_gpu(4) == 8  # 72 GB / (4 * 2 GB + 0.6 GB)
    assert found.most_at_once == 35  # (72 GB - 0.6 GB) / 2 GB
    assert found.lanes_per_gpu(found.most_at_once) == 1


def test_more_processes_share_a_gpu_only_if_they_train_faster_in_all():
    found = Probe("float32", {}, int(2e9), int(80e9), steps_per_second={"1": 100, "2": 190, "4": 200})
    assert found.fitting(1) == 27
    assert found.lanes_per_gpu(1) == 2  # 4 are within the noise
    still_faster = replace(found, steps_per_second={"1": 100, "2": 190, "4": 380, "8": 700})
    assert still_faster.lanes_per_gpu(1) == 8  # more were not tried, because there are no cores for them
    assert still_faster.lanes_per_gpu(6) == 5  # no more fit


@pytest.mark.parametrize(("capture", "steps"), [(False, 4), (True, 12)])
def test_a_short_epoch_has_more_steps_where_they_are_captured_but_never_more_than_there_are(capture, steps, tmp_path):
    spec, bench = opened(tmp_path, capture=capture)
    training = short_together(spec, bench, {"method": "kd", "alpha": 0.5, "width": 0.25}, bench.val.first(2), 1)
    assert steps_of(spec, bench, {"method": "kd", "alpha": 0.5, "width": 0.25}) == steps
    assert len(training._train) == 16 * steps  # 200 images in batches of 16


# Cohorts


def test_the_cohort_with_the_least_time_per_trial_is_chosen_if_it_is_clearly_faster():
    assert Pace("", 0.25, {"1": 8.0, "4": 4.0, "16": 3.0, "64": 2.9}).fastest == 16  # 64 is within the noise
    assert Pace("", 1.0, {"1": 8.0, "4": 7.9}).fastest == 1
    assert Pace("", 1.0, {"1": 8.0, "4": 7.5, "16": 7.0}).fastest == 16  # each step alone is within the noise


def test_a_width_that_was_not_measured_counts_as_the_next_larger_one():
    narrow, wide = Pace("a", 0.25, {"1": 8.0, "4": 2.0}), Pace("a", 1.0, {"1": 8.0, "4": 8.0})
    found = Probe("float32", {}, paces=[narrow, wide, Pace("b", 0.5, {"1": 9.0, "4": 4.0})])
    assert [found.cohort("a", width, 64) for width in (0.125, 0.25, 0.5, 1.0, 2.0)] == [4, 4, 1, 1, 1]
    assert [found.cohort(student, 0.5, 64) for student in ("b", "c")] == [4, 1]
    assert found.cohort("b", 0.5, 3) == 3


def test_cohorts_are_measured_only_for_auto_and_the_measurement_survives_its_file(tmp_path):
    spec, bench = opened(tmp_path, precision="float32")
    assert probe.provide(spec, spec.sweep_dir, bench).paces is None
    spec, bench = opened(tmp_path, precision="float32", cohort="auto")  # the same sweep, resumed with another setting
    found = probe.provide(spec, spec.sweep_dir, bench)
    assert [(pace.student, pace.width) for pace in found.paces] == [("", 0.25), ("", 0.5), ("", 1.0)]
    for pace in found.paces:
        assert list(pace.step_ms)[:2] == ["1", "4"]
        assert all(milliseconds > 0 for milliseconds in pace.step_ms.values())
    assert capacity.stored(spec.sweep_dir) == found
    later, bench = opened(tmp_path, "later", precision="float32", cohort="auto")
    assert probe.provide(later, later.sweep_dir, bench) == found  # reused


def test_what_does_not_stack_is_measured_once_and_trains_alone(tmp_path):
    spec, bench = opened(tmp_path, precision="float32", cohort="auto", optimizer="lamb")
    found = probe.provide(spec, spec.sweep_dir, bench)
    assert found.paces == []
    assert found.cohort("", 1.0, 64) == 1
    assert probe.provide(spec, spec.sweep_dir, bench) == found


@pytest.mark.parametrize(
    ("node", "cpus", "per_gpu", "share", "places"),
    [
        ({"CPU": 16, "GPU": 1}, 1, 27, 0.0625, 16),  # the cores are the limit
        ({"CPU": 16, "GPU": 1}, 1, 3, 0.3333, 3),  # the memory is the limit
        ({"CPU": 16, "GPU": 4}, 2, 27, 0.5, 8),
        ({"CPU": 2, "GPU": 2}, 1, 1, 1.0, 2),
        ({"CPU": 1, "GPU": 1}, 2, 4, 1.0, 0),
        ({"CPU": 4}, 1, 4, 0.0, 4),
    ],
)
def test_trials_are_packed_by_memory_and_cores(node, cpus, per_gpu, share, places):
    assert _packed([node], cpus, per_gpu) == share
    assert _fitting(node, cpus, share) == places
