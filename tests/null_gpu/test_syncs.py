"""No training step waits for the GPU, wherever the images are and whatever is done to them."""

from __future__ import annotations

import null_cuda
import pytest
from trainings import SMALL, begun, calls_of_steps, opened

from kdsweep.tasks.image import splits

pytestmark = pytest.mark.null_gpu


def waits(root: str, augment: str, where: str) -> dict[str, list[int]]:
    """Count the waits, the allocations of pinned memory and the copies from pageable memory of each step."""
    if where == "host":
        splits.RESIDENT_SHARE = 0.0
    bench = opened(root, {**SMALL, "dataset": {**SMALL["dataset"], "augment": augment}})
    training = begun(bench, method="kd", alpha_schedule="linear", temperature_schedule="linear")
    training.run_epoch()
    steps = calls_of_steps(training)
    assert bench.train.images.device.type == ("cpu" if where == "host" else "cuda")
    return {
        "syncs": [null_cuda.syncs(step) for step in steps],
        "pinned": [step["ALLOCATION pinned"] for step in steps],
        "pageable": [null_cuda.total(step, "COPY H2D pageable") for step in steps],
        "images": [null_cuda.total(step, "COPY H2D pinned") for step in steps],
    }


@pytest.mark.parametrize("where", ["gpu", "host"])
@pytest.mark.parametrize("augment", ["none", "flip", "crop_flip"])
def test_no_step_waits_for_the_gpu(augment, where, on_null_gpu, tmp_path):
    found = on_null_gpu(waits, str(tmp_path), augment, where)
    assert len(found["syncs"]) == 4
    later = {kind: set(calls[1:]) for kind, calls in found.items()}  # the first step includes the start of the epoch
    assert later == {"syncs": {0}, "pinned": {0}, "pageable": {0}, "images": {1 if where == "host" else 0}}
