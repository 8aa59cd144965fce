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
from ray.exceptions import RayActorError

from kdsweep.errors import KdsweepError
from kdsweep.tune import packing
from kdsweep.tune.lease import describe_worker
from kdsweep.tune.work import Report, Work
from kdsweep.worker import gpu

# Batch short epochs: Ray's per-report overhead exceeds the epoch.
TOGETHER_SECONDS = 1.0


class Lane(tune.Trainable):
    """Runs one piece of work step by step. The driver sees every step and decides when the work ends.

    A step returns the values that the work reported, as a list per kind, and the `seconds` that it took. If something
    failed, it also returns:

        failure: One line saying why this work cannot continue.
        storage: One line saying why the whole sweep cannot continue.
        error: The KdsweepError behind `failure`, if it is one.
        out_of_memory: Present if it failed because the GPU's memory was exhausted.
        broken: The CUDA error after which this process can use its GPU no more, if there is one. The next step moves
            the work to another process.

    Every step tells the `process`, `node` and `device` of its worker; the first one after a start describes the
    `worker` in full.
    """

    _broken = False
    _objects = b""

    def setup(self, config: dict[str, Any], objects: bytes = b"") -> None:
        """Take the first work. It starts in the first step, which can report errors.

        Args:
            config: The first `work`.
            objects: The Python objects of the sweep, from `packing.packed`.
        """
        self._objects = objects
        self._begin(config["work"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next work. The driver has ended the current one, or will continue it later."""
        self._need_gpu()
        self.cleanup()
        self._begin(new_config["work"])
        return True

    def step(self) -> dict[str, Any]:
        """Continue the work. Failures are reported, not raised, so that the worker stays warm."""
        self._need_gpu()
        report: dict[str, Any] = {}
        started = time.monotonic()
        try:
            self._run_steps(report)
        except OSError as error:
            report["storage"] = f"{error.strerror or error}: {error.filename or 'the sweep directory'}"
        except KdsweepError as error:
            report |= _failure(error) | {"failure": str(error), "error": error}
        except SystemExit as error:
            if _is_from_ray(error):
                raise  # the worker is asked to stop
            report |= _failure(error)
        except Exception as error:
            report |= _failure(error)
        finally:
            faulthandler.cancel_dump_traceback_later()
        if "failure" in report:
            report |= self._recover()
        return report | self._described_worker() | {"seconds": time.monotonic() - started}

    def cleanup(self) -> None:
        """Save the progress before the worker stops."""
        with suppress(OSError):
            self._work.save()

    def _described_worker(self) -> dict[str, Any]:
        if hasattr(self, "_where"):
            return self._where
        worker = describe_worker()
        self._where: dict[str, Any] = {"process": worker["worker"], "node": worker["node"], "device": worker["device"]}
        return self._where | {"worker": [worker]}  # Ray Tune flattens dicts, but not in lists

    def _begin(self, work: Work) -> None:
        # Ray Tune sends the configuration back with every result, so opened files must be held by a copy.
        self._work = copy(work)
        self._steps: Iterator[Report] = self._work.steps()

    def _need_gpu(self) -> None:
        """Leave the work to another process if this one can use its GPU no more.

        Raises:
            RayActorError: To Ray Tune, this is a preempted worker: it is replaced, and the work goes on in the new one
                without counting as failed.
        """
        if self._broken:
            raise RayActorError(error_msg="the process lost its GPU", preempted=True)

    def _recover(self) -> dict[str, Any]:
        """Return the memory of work that failed in mid-epoch, without saving it. Report a GPU that is lost."""
        self._work, self._steps = Work(), iter(())
        if broken := gpu.fault():
            self._broken = True
            return {"broken": broken}
        gpu.release()
        return {}

    def _run_steps(self, report: dict[str, Any]) -> None:
        started = time.monotonic()
        if self._objects:
            packing.unpack(self._objects)
            self._objects = b""
        for one in self._steps:
            report.setdefault(one.kind, []).append(one.value)
            if one.pause or time.monotonic() - started > TOGETHER_SECONDS:
                break


def _is_from_ray(error: SystemExit) -> bool:
    """Whether Ray raised it, for example in its handler of SIGTERM, and not the user's code."""
    package = Path(ray.__file__).parent
    return any(Path(frame.filename).is_relative_to(package) for frame in traceback.extract_tb(error.__traceback__))


def _failure(error: BaseException) -> dict[str, Any]:
    """Describe a failure. The frames of the error are dropped, because they hold the failed training's tensors."""
    report: dict[str, Any] = {"failure": _described(error)}
    if gpu.ran_out_of_memory(error):
        report["out_of_memory"] = True
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return report


def _described(error: BaseException) -> str:
    """Describe an unexpected error in one line."""
    text = str(error)
    first = text.splitlines()[0] if text else ""
    if gpu.ran_out_of_memory(error):
        return f"out of GPU memory: {first}"
    if isinstance(error, MemoryError) or "can't allocate memory" in text:  # raised by torch's CPU allocator
        return f"out of memory: {first or 'MemoryError'}"
    where = traceback.extract_tb(error.__traceback__)[-1]
    if isinstance(error, SystemExit):
        return f"the code called sys.exit({first}) ({Path(where.filename).name}:{where.lineno})"
    return f"{type(error).__name__}: {first} ({Path(where.filename).name}:{where.lineno})"
