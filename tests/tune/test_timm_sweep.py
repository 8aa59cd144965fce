"""timm's models among the students of a sweep; needs the extra timm."""

from __future__ import annotations

import json

import pytest
import torch

import kdsweep

pytestmark = pytest.mark.slow
TIMM = "timm/mobilenetv3_small_050"


def test_a_timm_model_is_searched_trained_and_exported(local_ray, tmp_path):
    pytest.importorskip("timm")
    results = kdsweep.run({
        "name": "timm",
        "dataset": {"name": "mnist_mini", "subset": 200, "val_fraction": 0.5, "resize": 32},
        "teacher": {"model": "mnist_teacher", "width": 0.25, "train": {"epochs": 6, "lr": 3e-3, "batch_size": 16}},
        "space": {"method": "kd", "student": {"choice": [TIMM, "mnist_student"]}, "temperature": 4, "alpha": 0.9},
        "train": {"epochs": 1, "batch_size": 32, "precision": "float32"},
        "search": {"sampler": "grid"},
        "scheduler": {"name": "none"},
        "confirm": {"top": 0},
        "storage": str(tmp_path),
    }, progress=False)  # fmt: skip
    assert set(results.trials["student"]) == {TIMM, "mnist_student"}
    assert (results.trials["state"] == "COMPLETE").all()
    assert results.trials.set_index("student")["parameters"][TIMM] > 100_000
    for folder in results.export(tmp_path / "students", top=2):
        student = kdsweep.load_student(folder)
        assert student(torch.rand(2, 1, 32, 32)).shape == (2, 10)
        if json.loads((folder / "config.json").read_text())["model"] == TIMM:
            assert sum(weights.numel() for weights in student.parameters()) > 100_000
