"""No step of a run with all settings of a strong recipe waits for the GPU, with any optimizer."""

from __future__ import annotations

from pathlib import Path

import null_cuda
import pytest
from PIL import Image
from trainings import SMALL, begun, calls_of_steps, opened

pytestmark = pytest.mark.null_gpu
OPTIMIZERS = ("sgd", "adam", "adamw", "amsgrad", "lamb", "muon")


def waits(root: str) -> dict[str, list[int]]:
    """Count the waits and the pageable copies from the host of each step of an epoch, by optimizer."""
    found = {}
    settings = {"clip_norm": 1.0, "ema_decay": 0.9, "drop_path": 0.2, "warmup_epochs": 1.0}
    for optimizer in OPTIMIZERS:
        bench = opened(root, {**SMALL, "name": optimizer, "student": {"model": "resnet8"}})
        training = begun(bench, method="kd", optimizer=optimizer, **settings)
        training.run_epoch()
        steps = calls_of_steps(training)[1:]  # the first step includes the start of the epoch
        found[optimizer] = [null_cuda.syncs(step) + null_cuda.total(step, "COPY H2D pageable") for step in steps]
    return found


def test_no_step_with_clipping_and_averaging_waits(on_null_gpu, tmp_path):
    assert on_null_gpu(waits, str(tmp_path)) == {name: [0] * 3 for name in OPTIMIZERS}


def waits_without_labels(root: str) -> list[int]:
    """Count the same of a run that also learns from images without labels, which come in any number in a batch."""
    folder = Path(root) / "unlabelled"
    folder.mkdir()
    for shade in range(32):
        Image.new("L", (28, 28), shade).save(folder / f"{shade}.png")
    dataset = {**SMALL["dataset"], "unlabelled": {"root": str(folder)}}
    training = begun(opened(root, {**SMALL, "dataset": dataset}), method="kd")
    training.run_epoch()
    return [null_cuda.syncs(step) + null_cuda.total(step, "COPY H2D pageable") for step in calls_of_steps(training)[1:]]


def test_no_step_with_unlabelled_images_waits(on_null_gpu, tmp_path):
    assert on_null_gpu(waits_without_labels, str(tmp_path)) == [0] * 7
