"""Following the log of a job; tests/tune/test_submit.py does so on a real cluster."""

from __future__ import annotations

import asyncio
import os
import signal
from types import SimpleNamespace

import pytest

from kdsweep.tune.jobs import Job, Jobs


def test_ctrl_c_ends_following_a_log_that_tells_nothing():
    """It was taken for a broken connection: the generator's step was still under way when it was closed."""

    async def tail(key: str):
        yield "one\ntwo\n"
        asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGINT)
        await asyncio.sleep(3600)

    jobs = object.__new__(Jobs)
    jobs._client = SimpleNamespace(tail_job_logs=tail)
    lines = jobs.lines(Job("key", "sweep", "/runs/sweep", "RUNNING", "", "", ""))
    assert [next(lines), next(lines)] == ["one", "two"]
    with pytest.raises(KeyboardInterrupt):
        next(lines)
