"""The C library's allocator in a process that trains."""

from __future__ import annotations

import ctypes

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 2**30
_LARGEST_IN_OLDER_GLIBC = 2**25


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
