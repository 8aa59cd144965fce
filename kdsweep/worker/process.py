"""Process-wide settings for training: threads, malloc, denormals."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

from kdsweep.lazy import torch

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 2**30
_LARGEST_IN_OLDER_GLIBC = 2**25


def set_up(threads: int) -> None:
    """Set up a process that belongs to kdsweep, for its lifetime.

    Args:
        threads: Number of PyTorch threads.
    """
    keep_freed_memory()
    torch.set_num_threads(threads)
    # A dead unit has zero gradient, so its Adam moments shrink until they are subnormal and stay there. x86 computes
    # with subnormals many times slower. Unflushed, they would move a weight by only 1e-30 of the learning rate.
    torch.set_flush_denormal(True)


@contextmanager
def lent(threads: int) -> Iterator[None]:
    """Set up the user's process for training, and restore its threads and denormal mode afterwards.

    Args:
        threads: Number of PyTorch threads.
    """
    before, flushed = torch.get_num_threads(), flushes_subnormals()
    set_up(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(flushed)


def flushes_subnormals() -> bool:
    """Return whether this thread flushes subnormal numbers to zero."""
    return float(torch.full((), 1e-40) * 0.5) == 0


def keep_freed_memory() -> None:
    """Make malloc keep the freed memory of a batch for the next one, up to 1 GiB.

    By default, glibc returns it to the kernel, which hands it out again page by page, each zeroed. For a small student
    that takes longer than some of its layers. Without glibc nothing is changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc, or not dynamically linked
        return
    if not mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES):
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_IN_OLDER_GLIBC)
    mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
