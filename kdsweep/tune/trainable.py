"""A lane: one warm worker to which Ray Tune passes pieces of work in turn."""

from __future__ import annotations

import faulthandler
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from copy import copy
from pathlib import Path
from typing import Any

import ray
from ray import tune

from kdsweep.errors import KdsweepError
from kdsweep.lazy import torch
from kdsweep.tune.lease import describe_worker
from kdsweep.tune.work import Report, Work

# Batch short epochs: Ray's per-report overhead exceeds the epoch.
TOGETHER_SECONDS = 1.0


class Lane(tune.Trainable):
    """Runs one piece of work step by step. The driver sees every step and decides when the work ends.

    A step returns the values that the work reported, as a list per kind, and the `seconds` that it took. If something
    failed, it also returns:

        failure: One line saying why this work cannot continue.
        storage: One line saying why the whole sweep cannot continue.
        error: The KdsweepError behind `failure`, if it is one.

    Every step tells the `node` and `device` of its worker; the first one after a start describes the `worker` in full.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Take the first work. It starts in the first step, which can report errors."""
        self._begin(config["work"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next work. The driver has ended the current one, or will continue it later."""
        self.cleanup()
        self._begin(new_config["work"])
        return True

    def step(self) -> dict[str, Any]:
        """Continue the work. Failures are reported, not raised, so that the worker stays warm."""
        report: dict[str, Any] = {}
        started = time.monotonic()
        try:
            self._run_steps(report)
        except OSError as error:
            report["storage"] = f"{error.strerror or error}: {error.filename or 'the sweep directory'}"
        except KdsweepError as error:
            report |= {"failure": str(error), "error": error}
        except SystemExit as error:
            if _is_from_ray(error):
                raise  # the worker is asked to stop
            report["failure"] = _described(error)
        except Exception as error:
            if isinstance(error, torch.OutOfMemoryError):
                torch.cuda.empty_cache()
            report["failure"] = _described(error)
        finally:
            faulthandler.cancel_dump_traceback_later()
        return report | self._described_worker() | {"seconds": time.monotonic() - started}

    def cleanup(self) -> None:
        """Save the progress before the worker stops."""
        with suppress(OSError):
            self._work.save()

    def _described_worker(self) -> dict[str, Any]:
        if hasattr(self, "_where"):
            return self._where
        worker = describe_worker()
        self._where: dict[str, Any] = {name: worker[name] for name in ("node", "device")}
        return self._where | {"worker": [worker]}  # Ray Tune flattens dicts, but not in lists

    def _begin(self, work: Work) -> None:
        # Ray Tune sends the configuration back with every result, so opened files must be held by a copy.
        self._work = copy(work)
        self._steps: Iterator[Report] = self._work.steps()

    def _run_steps(self, report: dict[str, Any]) -> None:
        started = time.monotonic()
        for one in self._steps:
            report.setdefault(one.kind, []).append(one.value)
            if one.pause or time.monotonic() - started > TOGETHER_SECONDS:
                break


def _is_from_ray(error: SystemExit) -> bool:
    """Whether Ray raised it, for example in its handler of SIGTERM, and not the user's code."""
    package = Path(ray.__file__).parent
    return any(Path(frame.filename).is_relative_to(package) for frame in traceback.extract_tb(error.__traceback__))


def _described(error: BaseException) -> str:
    """Describe an unexpected error in one line."""
    text = str(error)
    first = text.splitlines()[0] if text else ""
    if isinstance(error, torch.OutOfMemoryError):
        return f"out of GPU memory: {first}"
    if isinstance(error, MemoryError) or "can't allocate memory" in text:  # raised by torch's CPU allocator
        return f"out of memory: {first or 'MemoryError'}"
    where = traceback.extract_tb(error.__traceback__)[-1]
    if isinstance(error, SystemExit):
        return f"the code called sys.exit({first}) ({Path(where.filename).name}:{where.lineno})"
    return f"{type(error).__name__}: {first} ({Path(where.filename).name}:{where.lineno})"
