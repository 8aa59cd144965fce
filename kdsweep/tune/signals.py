"""Handles SIGTERM, which schedulers and spot machines send, like Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def terminable() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C inside the context."""

    def interrupt(number: int, frame: Any) -> None:
        # Shells start background jobs with SIGINT ignored, so raise directly. Ray Tune installs its own SIGINT handler
        # while lanes run; then the signal reaches it.
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread: the caller handles signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
