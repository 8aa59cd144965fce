"""Every method and every model on the null GPU: built, trained, saved, resumed, evaluated and restored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import null_cuda
import numpy as np
import pytest
import torch
import trainings
from cases import BENCHES, METHOD_NAMES, Bench, cases
from PIL import Image

from kdsweep.config.spec import SweepSpec
from kdsweep.errors import MethodError
from kdsweep.methods import simkd
from kdsweep.models import MODELS
from kdsweep.tasks.base import Task
from kdsweep.tasks.image import splits
from kdsweep.training.trainer import Training
from kdsweep.worker.workbench import Workbench

pytestmark = pytest.mark.null_gpu

FOR_IMAGES = [name for name in MODELS if MODELS[name].takes == "images"]
SIDE = 40  # the least that all models take, rounded up
# The most kernels of one training step, recorded with PyTorch 2.15: lightnn in float32, taught by tutorial_teacher from
# stored outputs, without augmentation. simkd does not take this teacher.
KERNELS = {
    "at": 123,
    "cc": 77,
    "cosine": 87,
    "crd": 264,
    "ctkd": 102,
    "dist": 147,
    "dkd": 152,
    "hint": 70,
    "kd": 72,
    "lskd": 101,
    "mse": 60,
    "nkd": 138,
    "none": 49,
    "nst": 159,
    "ofd": 103,
    "pkt": 113,
    "reviewkd": 207,
    "rkd": 140,
    "sp": 92,
    "srrl": 73,
    "tfkd": 73,
    "vid": 138,
    "kd+at": 148,
}


def ignore_values() -> None:
    """Nothing is computed, so teachers are no better than chance and simkd cannot compare values."""
    trainings.ignore_values()
    Task.teacher_fault = lambda self, measured, num_classes: ""
    simkd._alike = lambda read, embedding: True


def folder_of_images(root: Path) -> Path:
    for split, count in (("train", 32), ("val", 8)):
        for kind, name in enumerate(("day", "night", "dusk")):
            place = root / split / name
            place.mkdir(parents=True)
            for number in range(count // 2):
                pixels = np.full((SIDE, SIDE, 3), (number, kind, count), np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.png")
    return root


def opened(root: Path, images: Path, number: int, bench: Bench) -> Workbench:
    splits.RESIDENT_SHARE = 0.0 if bench.images == "host" else 0.25
    sections: dict[str, Any] = {
        "name": f"bench-{number}",
        "dataset": {
            "name": "image_folder", "root": str(images), "resize": SIDE, "augment": bench.augment,
            "stream": bench.images == "streamed",
        },
        "teacher": {
            "model": bench.teacher, "width": 0.5, "cache_gb": 1.0 if bench.outputs == "cached" else 0.0,
            "train": {"epochs": 1, "batch_size": 16},
        },
        "student": {"model": "lightnn"},
        "space": {"method": list(METHOD_NAMES), "width": 0.5},
        "train": {"epochs": 3, "batch_size": 12},
    }  # fmt: skip
    return trainings.opened(root, sections, device=trainings.GPU)


def with_student(bench: Workbench, name: str) -> SweepSpec:
    student = bench.spec.student.model_copy(update={"model": name})
    return bench.spec.model_copy(update={"student": student})


def told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def trained(bench: Workbench, state: Path, **config: Any) -> list[Any]:
    """Train, save, resume, evaluate and restore. Return the steps of the second epoch."""
    first = trainings.begun(bench, **config)
    first.run_epoch()
    first.save(state, state.with_name("best.safetensors"))
    second = trainings.begun(bench, **config)
    second.load(state)
    assert second.epoch == 1
    steps = trainings.calls_of_steps(second)
    second.restore_best()
    devices = {tensor.device.type for tensor in [*second.inference.state_dict().values(), *_states(second)]}
    assert devices == {"cuda"}, devices
    return steps


def _states(training: Training) -> list[torch.Tensor]:
    return [*training.method.state_dict().values(), *training._optimizer.state_dict().values()]


def swept(root: str) -> dict[str, Any]:
    """Run all cases, bench by bench. Return the faults and the waits of steps by case."""
    faults: dict[str, str] = {}
    waits: dict[str, int] = {}
    refused: list[str] = []
    ignore_values()
    images = folder_of_images(Path(root) / "images")
    by_bench = sorted(cases(), key=lambda case: BENCHES.index(case.bench))
    bench, last = None, None
    for case in by_bench:
        if case.bench != last:
            number = BENCHES.index(case.bench)
            bench, last = opened(Path(root), images, number, case.bench), case.bench
        bench.spec = with_student(bench, case.student)
        name = " ".join((case.method, case.student, case.precision, *case.bench))
        try:
            steps = trained(bench, Path(root) / "state.safetensors", method=case.method, precision=case.precision)
        except MethodError:
            refused.append(case.method)
        except Exception as error:
            faults[name] = told(error)
        else:
            waits[name] = max(null_cuda.syncs(step) for step in steps[1:])
    return {"faults": faults, "refused": refused, "waits": waits}


def test_every_method_trains_and_no_step_waits_whatever_the_data_and_the_teacher(on_null_gpu, tmp_path):
    found = on_null_gpu(swept, str(tmp_path))
    assert found["faults"] == {}
    assert {name: count for name, count in found["waits"].items() if count} == {}
    assert set(found["refused"]) <= {"simkd"}  # it takes teachers whose classifier reads averages of the last map
    assert {name.split()[0] for name in found["waits"]} == set(METHOD_NAMES)


def all_models(root: str) -> dict[str, str]:
    """Train every built-in model as a student of another one, and every one as a teacher."""
    faults = {}
    ignore_values()
    images = folder_of_images(Path(root) / "images")
    names = FOR_IMAGES
    for number, teacher in enumerate(names):
        student = names[(number + 7) % len(names)]
        bench = opened(Path(root), images, number, Bench(teacher, "none", "resident", "loop"))
        bench.spec = with_student(bench, student)
        try:
            trained(bench, Path(root) / "state.safetensors", method="kd+at")
        except Exception as error:
            faults[f"{student} of {teacher}"] = told(error)
    return faults


def test_every_built_in_model_is_student_and_teacher(on_null_gpu, tmp_path):
    assert on_null_gpu(all_models, str(tmp_path)) == {}


def kernels(root: str) -> dict[str, int]:
    found = {}
    ignore_values()
    images = folder_of_images(Path(root) / "images")
    bench = opened(Path(root), images, 0, BENCHES[0])
    for method in KERNELS:
        steps = trained(bench, Path(root) / "state.safetensors", method=method, precision="float32")
        found[method] = max(null_cuda.total(step, "KERNEL") for step in steps[1:])
    return found


def test_a_step_launches_no_more_kernels_than_recorded(on_null_gpu, tmp_path):
    found = on_null_gpu(kernels, str(tmp_path))
    assert {*found, "simkd"} == set(METHOD_NAMES)
    assert {method: count for method, count in found.items() if count > KERNELS[method]} == {}


def not_deterministic(root: str) -> list[str]:
    """Return the operations of training for which PyTorch has no deterministic algorithm, with their method."""
    ignore_values()
    images = folder_of_images(Path(root) / "images")
    found = []
    bench = opened(Path(root), images, 0, Bench("resnet8x4", "crop_flip", "resident", "loop"))
    assert torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)  # no warning, but an error
    for method in METHOD_NAMES:
        try:
            training = trainings.begun(bench, method=method)
            training.epoch += 1
            training._train_epoch()
        except RuntimeError as error:
            found.append(f"{method}: {str(error).split()[0]}")
    return found


def test_all_methods_but_one_are_deterministic_according_to_pytorch(on_null_gpu, tmp_path):
    assert on_null_gpu(not_deterministic, str(tmp_path)) == ["reviewkd: adaptive_avg_pool2d_backward_cuda"]
