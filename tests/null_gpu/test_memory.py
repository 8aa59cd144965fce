"""Memory of the GPU: a finished trial leaves none of its own behind."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch
from trainings import begun, opened

from kdsweep.methods import METHODS

pytestmark = pytest.mark.null_gpu


def left_by_trials(root: str) -> dict[str, int]:
    """Train a trial of each method; return the bytes that it left allocated, without the garbage collector's help."""
    bench = opened(root)
    gc.disable()
    found = {}
    for method in METHODS:
        for _ in range(2):  # the first run also loads the data, the teacher and the libraries
            before = torch.cuda.memory_allocated()
            training = begun(bench, method=method)
            training.run_epoch()
            training.save(Path(root) / "state.safetensors", Path(root) / "best")
            training.restore_best()
            del training
        found[method] = torch.cuda.memory_allocated() - before
    return found


def test_a_finished_trial_leaves_nothing_on_the_gpu(on_null_gpu, tmp_path):
    assert on_null_gpu(left_by_trials, str(tmp_path)) == dict.fromkeys(METHODS, 0)
