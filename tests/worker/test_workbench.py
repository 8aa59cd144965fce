"""A worker opens a sweep once and keeps it."""

from __future__ import annotations

import pytest
import torch

from kdsweep.config.spec import SweepSpec
from kdsweep.tasks.image.splits import prepare
from kdsweep.worker.place import WorkerPlace
from kdsweep.worker.workbench import open_workbench, provide_teacher

CPU = torch.device("cpu")


@pytest.fixture
def place(tmp_path) -> WorkerPlace:
    spec = SweepSpec.model_validate({
        "name": "small",
        "dataset": {"name": "mnist_mini", "subset": 100, "val_fraction": 0.5},
        "teacher": {"model": "mnist_teacher", "width": 0.25, "checkpoint": "kdsweep:mnist_mini_teacher"},
        "student": {"model": "mnist_student"},
        "space": {"method": "kd"},
        "storage": str(tmp_path),
    })  # fmt: skip
    sweep = spec.sweep_dir
    sweep.root.mkdir()
    spec.save(sweep.spec)
    data = prepare(spec.dataset, spec.seed, sweep.store)
    provide_teacher(spec, sweep, data, CPU, lambda metrics: None)
    return WorkerPlace(sweep, data.root, tmp_path)


def test_a_workbench_is_opened_once_per_process_and_device(place):
    bench = open_workbench(place, CPU)
    assert open_workbench(WorkerPlace(place.sweep, place.data, place.code), torch.device("cpu")) is bench
    assert bench.train is open_workbench(place, CPU).train
    assert (len(bench.train), len(bench.val)) == (50, 50)
