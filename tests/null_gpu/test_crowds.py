"""Several processes train on one GPU at the same time, to measure how many are worth it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from trainings import SMALL, opened

from kdsweep.worker import crowds
from kdsweep.worker.capacity import Probe

pytestmark = pytest.mark.null_gpu

# Imported by the processes, too. Losses are garbage, so the check for finite numbers is replaced.
METHODS = """\
import os
from pathlib import Path

import torch
import trainings
from kdsweep.methods import Method

trainings.ignore_values()
torch.set_num_threads(1)


class Simple(Method):
    formula = "0"
    source = "this test"
    needs = frozenset({"logits"})

    def term(self, student, teacher, labels):
        return student.logits.sum()


class OnlyOnce(Simple):
    '''Fails in every process but the first.'''

    def term(self, student, teacher, labels):
        first = Path(__file__).with_suffix(".first")
        if not first.exists():
            first.write_text(str(os.getpid()))
        if first.read_text() != str(os.getpid()):
            raise RuntimeError("there is another one")
        return student.logits.sum()
"""


def measured(root: str, method: str, saved: bool) -> list[Any]:
    bench = opened(root, {**SMALL, "space": {"method": method, "width": 0.25}})
    if saved:
        bench.sweep.spec.parent.mkdir(parents=True, exist_ok=True)
        bench.spec.save(bench.sweep.spec)
    config = {"method": method, "alpha": 0.5, "width": 0.25, "precision": "float32", "lr": 1e-3}
    found = Probe("float32", {}, trial_bytes=10**9, gpu_bytes=80 << 30, gpu="Null H100")
    os.cpu_count = lambda: 4  # type: ignore[assignment]
    rates = crowds.measured_crowds(bench.spec, bench, config, found)
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [rates, children]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "crowded.py").write_text(METHODS)
    return tmp_path


def test_processes_train_at_the_same_time_until_the_cores_or_the_memory_end(on_null_gpu, folder):
    rates, children = on_null_gpu(measured, str(folder), "crowded:Simple", True, PATHS=str(folder))
    assert list(rates) == ["1", "2", "4"][: len(rates)]
    assert len(rates) >= 2
    assert all(rate > 0 for rate in rates.values())
    assert not children


def test_a_number_at_which_a_process_fails_is_not_used(on_null_gpu, folder):
    rates, children = on_null_gpu(measured, str(folder), "crowded:OnlyOnce", True, PATHS=str(folder))
    assert list(rates) == ["1"]
    assert not children


def test_what_no_other_process_can_train_is_not_measured(on_null_gpu, folder):
    assert on_null_gpu(measured, str(folder), "crowded:Simple", False, PATHS=str(folder)) == [{}, []]
