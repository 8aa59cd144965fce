"""How a process is set up that trains: what it does with freed memory and with the smallest of numbers."""

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
    """Set up a process of kdsweep's own, for as long as it lives.

    Args:
        threads: That PyTorch computes with.
    """
    keep_freed_memory()
    torch.set_num_threads(threads)
    # A unit that died has a gradient of zero, and its moments in Adam shrink until they are subnormal, where they stay:
    # x86 computes with those many times slower. Left in, they would move a weight by 1e-30 of the learning rate.
    torch.set_flush_denormal(True)


@contextmanager
def lent(threads: int) -> Iterator[None]:
    """Set up somebody else's process, which gets its threads and its subnormal numbers back.

    Args:
        threads: As of `set_up`.
    """
    before, flushed = torch.get_num_threads(), flushes_subnormals()
    set_up(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(flushed)


def flushes_subnormals() -> bool:
    """Whether this thread takes subnormal numbers as zero."""
    return float(torch.full((), 1e-40) * 0.5) == 0


def keep_freed_memory() -> None:
    """Keep for the next batch what the tensors of a batch gave back, rather than return it to the system.

    glibc returns it, and the kernel hands it out again page by page, each zeroed, which takes a small student longer
    than some of its layers do. Up to a GiB is kept. Without glibc nothing is changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or none that is loaded by itself
        return
    if not mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES):
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_IN_OLDER_GLIBC)
    mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
