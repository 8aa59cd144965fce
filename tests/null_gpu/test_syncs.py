"""No training step waits for the GPU, wherever the images are and whatever is done to them."""

from __future__ import annotations

from itertools import product

import null_cuda
import pytest
from trainings import SMALL, begun, calls_of_steps, opened

from kdsweep.tasks.image import splits

pytestmark = pytest.mark.null_gpu
AUGMENTS = (
    "none", "flip", "crop_flip", "random_resized_crop+color_jitter+random_erasing+mixup", "rand_augment+mixup+cutmix",
    "trivial_augment+cutmix",
)  # fmt: skip


def waits(root: str) -> dict[str, dict[str, list[int]]]:
    """Count the waits, the allocations of pinned memory and the copies from the host of the steps of an epoch."""
    found = {}
    for number, (augment, where) in enumerate(product(AUGMENTS, ("gpu", "host"))):
        splits.RESIDENT_SHARE = 0.0 if where == "host" else 0.25
        name = f"{augment} {where}"
        sections = {**SMALL, "name": f"{number}-{where}", "dataset": {**SMALL["dataset"], "augment": augment}}
        bench = opened(root, sections)
        training = begun(bench, method="kd", alpha_schedule="linear", temperature_schedule="linear")
        training.run_epoch()
        steps = calls_of_steps(training)[1:]  # the first step includes the start of the epoch
        assert bench.train.images.device.type == {"host": "cpu", "gpu": "cuda"}[where]
        found[name] = {
            "syncs": [null_cuda.syncs(step) for step in steps],
            "pinned": [step["ALLOCATION pinned"] for step in steps],
            "pageable": [null_cuda.total(step, "COPY H2D pageable") for step in steps],
            "images": [null_cuda.total(step, "COPY H2D pinned") for step in steps],
        }
    return found


def test_no_step_waits_for_the_gpu(on_null_gpu, tmp_path):
    found = on_null_gpu(waits, str(tmp_path))
    assert len(found) == 2 * len(AUGMENTS)
    for name, steps in found.items():
        copies = 1 if name.endswith("host") else 0
        assert steps == {"syncs": [0] * 3, "pinned": [0] * 3, "pageable": [0] * 3, "images": [copies] * 3}, name
