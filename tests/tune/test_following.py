"""Following the log of a job; tests/tune/test_submit.py does so on a real cluster."""

from __future__ import annotations

import asyncio
import os
import signal
from types import SimpleNamespace

import pytest

from kdsweep.tune import jobs as module
from kdsweep.tune.jobs import Job, Jobs

RUNNING = Job("key", "sweep", "/runs/sweep", "RUNNING", "", "", "")


def jobs_with(tail) -> Jobs:
    jobs = object.__new__(Jobs)
    jobs._client = SimpleNamespace(tail_job_logs=tail)
    return jobs


def test_a_log_that_breaks_off_goes_on_with_the_next_line(monkeypatch):
    monkeypatch.setattr(module, "LOOK_SECONDS", 0)
    connections = []

    async def tail(key: str):
        connections.append(key)
        yield "one\ntw"
        if len(connections) == 1:
            raise RuntimeError("WebSocket connection closed unexpectedly with close code 1006")
        yield "o\nthree\n"

    lines = jobs_with(tail).lines(RUNNING)
    assert [next(lines), next(lines), next(lines)] == ["one", "two", "three"]
    assert len(connections) == 2


def test_ctrl_c_ends_following_a_log_that_tells_nothing():
    """It was taken for a broken connection: the generator's step was still under way when it was closed."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background inherit that it is ignored

    async def tail(key: str):
        yield "one\ntwo\n"
        asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGINT)
        await asyncio.sleep(3600)

    lines = jobs_with(tail).lines(RUNNING)
    assert [next(lines), next(lines)] == ["one", "two"]
    with pytest.raises(KeyboardInterrupt):
        next(lines)
