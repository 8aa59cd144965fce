"""A lane: one warm worker, which Ray Tune gives one piece of work after the other."""

from __future__ import annotations

import faulthandler
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from copy import copy
from pathlib import Path
from typing import Any

from ray import tune

from kdsweep.errors import KdsweepError
from kdsweep.lazy import torch
from kdsweep.tune.work import Told, Work

# Batch short epochs: Ray's per-report overhead exceeds the epoch.
TOGETHER_SECONDS = 1.0


class Lane(tune.Trainable):
    """Runs the work that it is given, step by step; the driver sees every step and decides when the work ends.

    A step returns lists of what the work told, by kind, and where something went wrong:

        failure: In one line, why this work cannot go on.
        storage: In one line, why the sweep cannot.
        error: The error of kdsweep's own that `failure` describes.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Take the first work. It begins with the first step, which can report what is wrong."""
        self._begin(config["work"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next work: the driver has ended the one at hand."""
        self._begin(new_config["work"])
        return True

    def step(self) -> dict[str, Any]:
        """Continue the work; failures are reported rather than raised, so that the worker stays warm."""
        told: dict[str, Any] = {}
        try:
            self._go_on(told)
        except OSError as error:
            told["storage"] = f"{error.strerror or error}: {error.filename or 'the sweep directory'}"
        except KdsweepError as error:
            told |= {"failure": str(error), "error": error}
        except Exception as error:
            if isinstance(error, torch.OutOfMemoryError):
                torch.cuda.empty_cache()
            told["failure"] = _described(error)
        finally:
            faulthandler.cancel_dump_traceback_later()
        return told

    def cleanup(self) -> None:
        """The worker is asked to stop: keep what was done."""
        with suppress(OSError):
            self._work.save()

    def _begin(self, work: Work) -> None:
        # Ray Tune sends its configuration back with every result, so what the work opens belongs to a copy.
        self._work = copy(work)
        self._steps: Iterator[Told] = self._work.steps()

    def _go_on(self, told: dict[str, Any]) -> None:
        started = time.monotonic()
        for one in self._steps:
            told.setdefault(one.kind, []).append(one.value)
            if one.pause or time.monotonic() - started > TOGETHER_SECONDS:
                break


def _described(error: Exception) -> str:
    """An error that nobody foresaw, in one line."""
    text = str(error)
    first = text.splitlines()[0] if text else ""
    if isinstance(error, torch.OutOfMemoryError):
        return f"out of GPU memory: {first}"
    if isinstance(error, MemoryError) or "can't allocate memory" in text:  # torch's way of saying it
        return f"out of memory: {first or 'MemoryError'}"
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {first} ({Path(where.filename).name}:{where.lineno})"
