"""Reads and sets the null CUDA runtime, in a process that has preloaded it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping

ILLEGAL_ADDRESS = 700


def _library() -> ctypes.CDLL:
    return ctypes.CDLL(os.environ["LD_PRELOAD"])


def reset() -> None:
    """Forget all counts."""
    _library().nullcuda_reset()


def counts() -> dict[str, int]:
    """What was called since `reset`: `KERNEL name`, `COPY H2D pinned`, `SYNC stream`, `ALLOCATION device`, ..."""
    size = 1 << 20
    buffer = ctypes.create_string_buffer(size)
    assert _library().nullcuda_counts(buffer, size) < size
    found = {}
    for line in buffer.value.decode().splitlines():
        number, _, what = line.partition("\t")
        found[what] = int(number)
    return found


def total(counted: Mapping[str, int], *kinds: str) -> int:
    """Sum of the counts whose name begins with one of the kinds."""
    return sum(number for what, number in counted.items() if what.startswith(kinds))


def syncs(counted: Mapping[str, int]) -> int:
    """How often the host waited for the device."""
    # PyTorch follows every copy that is not asynchronous by a wait for its stream.
    return total(counted, "SYNC")


def used_bytes() -> int:
    """Device memory in use."""
    function = _library().nullcuda_used
    function.restype = ctypes.c_size_t
    return int(function())


def poison(error: int = ILLEGAL_ADDRESS) -> None:
    """Let every later launch and wait fail, as after an illegal memory access."""
    _library().nullcuda_poison(error)
