"""How many kernels a step of a cohort launches, and that it does not wait for the GPU."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import null_cuda
import pytest
from trainings import SMALL, opened

from kdsweep.training import cohort as cohorts

pytestmark = pytest.mark.null_gpu

MEMBERS = 16
# Kernels of one step, recorded with PyTorch 2.15: 5.9 for each trial. A trial alone launches 72; our goal was 12.
MOST = 95


def steps(root: str) -> list[dict[str, Any]]:
    """Count what the steps of a cohort call, without the first, which includes the start of the epoch."""
    cohorts.math = SimpleNamespace(isfinite=lambda value: True)  # type: ignore[attr-defined]  # no kernel runs
    bench = opened(root, {**SMALL, "student": {"model": "lightnn"}})
    configs = [
        {"method": "kd", "width": 0.25, "lr": 1e-3 * (1 + n), "alpha": 0.05 * (1 + n), "temperature": 1.0 + n}
        for n in range(MEMBERS)
    ]
    cohort = bench.cohort(configs, 0)
    cohort.run_epoch()
    found: list[Counter[str]] = []
    last: Counter[str] = Counter()
    step = cohort._updates.step

    def watched(multiplier: float) -> None:
        nonlocal last
        step(multiplier)
        now = Counter(null_cuda.counts())
        found.append(now - last)
        last = now

    cohort._updates.step = watched  # type: ignore[method-assign]
    null_cuda.reset()
    cohort.run_epoch()
    cohort.keep(list(range(4)))
    return [
        {"launches": null_cuda.total(one, "KERNEL"), "syncs": null_cuda.syncs(one), "kinds": one} for one in found[1:]
    ]


def test_a_cohort_of_16_launches_fewer_than_6_kernels_for_each_trial_and_never_waits(on_null_gpu, tmp_path):
    found = on_null_gpu(steps, str(tmp_path))
    assert len(found) == 3
    for one in found:
        assert one["syncs"] == 0
        assert 0 < one["launches"] <= MOST, one["kinds"]
