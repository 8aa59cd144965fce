"""Process-wide settings for training: freed memory is kept and subnormals are flushed."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from kdsweep.worker import process

FAULTS = """
import resource, sys, torch
from kdsweep.worker.process import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()

def batch():
    return [torch.zeros(2**20) for _ in range(20)]

batch(), batch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    batch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_batches_after_the_first_need_no_new_pages():
    faults = {
        kind: int(subprocess.run([sys.executable, "-c", FAULTS, kind], capture_output=True, check=True).stdout)
        for kind in ("kept", "returned")
    }
    assert faults["returned"] > 10_000  # otherwise the setting gains nothing
    assert faults["kept"] < faults["returned"] / 50


def test_without_glibc_malloc_settings_are_skipped(monkeypatch):
    monkeypatch.setattr(process.ctypes, "CDLL", lambda name: object())
    process.keep_freed_memory()


needs_flushing = pytest.mark.skipif(not torch.set_flush_denormal(False), reason="the processor cannot flush subnormals")


def moment_of_a_dead_weight() -> int:
    """Return Adam's first moment, as float32 bits, after one step with gradient 1 and 1,199 steps with gradient 0."""
    weight = torch.ones(1, requires_grad=True)
    optimizer = torch.optim.Adam([weight], fused=True)
    for step in range(1200):
        weight.grad = torch.full((1,), float(step == 0))
        optimizer.step()
    return int(optimizer.state[weight]["exp_avg"].view(torch.int32))


@needs_flushing
def test_moments_of_a_dead_weight_become_zero():
    assert 0 < moment_of_a_dead_weight() < 2**23  # subnormal, and stays so
    with process.lent(1):
        assert moment_of_a_dead_weight() == 0


@needs_flushing
@pytest.mark.parametrize("flushed", [True, False])
def test_a_lent_process_gets_its_settings_back(flushed):
    def fail():
        with process.lent(threads + 1):
            assert torch.get_num_threads() == threads + 1
            assert process.flushes_subnormals()
            raise RuntimeError("midway")

    threads = torch.get_num_threads()
    torch.set_flush_denormal(flushed)
    try:
        with pytest.raises(RuntimeError, match="midway"):
            fail()
        assert torch.get_num_threads() == threads
        assert process.flushes_subnormals() == flushed
    finally:
        torch.set_flush_denormal(False)
