"""Memory that a process keeps from batch to batch."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from kdsweep.allocator import keep_freed_memory

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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_batches_after_the_first_take_no_new_pages():
    faults = {
        kind: int(subprocess.run([sys.executable, "-c", FAULTS, kind], capture_output=True, check=True).stdout)
        for kind in ("kept", "returned")
    }
    assert faults["returned"] > 10_000  # or there is nothing to gain
    assert faults["kept"] < faults["returned"] / 50


def test_without_glibc_nothing_happens(monkeypatch):
    from kdsweep import allocator

    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())
    allocator.keep_freed_memory()
