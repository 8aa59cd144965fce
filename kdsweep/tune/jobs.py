"""Sweeps as jobs of a Ray cluster, through its dashboard: submitting, listing, following and stopping them."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kdsweep.errors import InputError, KdsweepError, SweepError, installing
from kdsweep.storage.driver_log import LEVEL_VARIABLE
from kdsweep.tune.shipping import Shipment

SWEEP, DIRECTORY = "kdsweep_sweep", "kdsweep_directory"  # keys of a job's metadata
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
# Ray's loggers that tell every upload, and every connection that breaks off.
QUIET = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", "ray._private.runtime_env.packaging")
LOOK_SECONDS = 2.0
RECONNECTS = 30  # how often the log may break off, without a new line in between


@dataclass(frozen=True)
class Job:
    """A job that runs or ran a sweep.

    Attributes:
        key: Ray's name for it.
        sweep: Name of the sweep.
        directory: Directory of the sweep on the cluster.
        status: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        started: When it started; empty before.
        ended: When it ended; empty before.
        message: What Ray says about it.
    """

    key: str
    sweep: str
    directory: str
    status: str
    started: str
    ended: str
    message: str

    @property
    def has_ended(self) -> bool:
        """Whether it has ended."""
        return self.status in ENDED


@dataclass(frozen=True)
class DriverPlace:
    """What the job's driver reserves. Without any, Ray runs it on the head.

    Attributes:
        cpus: CPU cores.
        resources: Custom resources by name; they choose the node.
    """

    cpus: float
    resources: Mapping[str, float]


class Jobs:
    """The sweeps of one cluster.

    Args:
        address: Address of the dashboard, such as http://head:8265.

    Raises:
        InputError: If nothing answers there, the token is refused, or Ray's job client is not installed.
    """

    def __init__(self, address: str):
        self._address = address
        _need_dashboard_address(address)
        _use_token()
        with _explained(address):
            try:
                from ray.job_submission import JobSubmissionClient

                for name in QUIET:
                    logging.getLogger(name).setLevel(logging.WARNING)
                self._client = JobSubmissionClient(address)
            except (ImportError, RuntimeError) as error:
                if "ray[default]" not in str(error) and not isinstance(error, ImportError):
                    raise
                raise InputError(f"jobs need Ray's job client: {installing('cluster')}") from error

    def submit(self, shipped: Shipment, command: str, place: DriverPlace, columns: int) -> Job:
        """Submit a sweep.

        Args:
            shipped: The sweep.
            command: The command of the job.
            place: What its driver reserves.
            columns: Width of the tables that it prints.

        Raises:
            InputError: If a job runs that sweep already, or the cluster does not accept this one.
        """
        for job in self.listed():
            if job.directory == shipped.directory and not job.has_ended:
                raise InputError(
                    f"{shipped.name}: job {job.key} is running it already; follow it with: kdsweep logs {shipped.name} "
                    f"--address {self._address}"
                )
        variables = {"COLUMNS": str(columns)}
        variables |= {name: os.environ[name] for name in (LEVEL_VARIABLE,) if name in os.environ}
        with tempfile.TemporaryDirectory(prefix="kdsweep-submit-") as folder, _explained(self._address):
            shipped.pack(Path(folder))
            reserved: dict[str, Any] = {"entrypoint_num_cpus": place.cpus} if place.cpus else {}
            reserved |= {"entrypoint_resources": dict(place.resources)} if place.resources else {}
            key = self._client.submit_job(
                entrypoint=command,
                runtime_env={"working_dir": folder, "env_vars": variables},
                metadata={SWEEP: shipped.name, DIRECTORY: shipped.directory},
                submission_id=f"kdsweep-{shipped.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.urandom(2).hex()}",
                **reserved,
            )
        return self.job(key)

    def listed(self) -> list[Job]:
        """Return the sweeps' jobs, the newest first."""
        with _explained(self._address):
            found = self._client.list_jobs()
        jobs = [_job(one) for one in found if one.submission_id and SWEEP in (one.metadata or {})]
        return sorted(jobs, key=lambda job: (job.started, job.key), reverse=True)

    def job(self, key: str) -> Job:
        """Return the present state of a job."""
        with _explained(self._address):
            return _job(self._client.get_job_info(key))

    def of_sweep(self, name: str) -> Job:
        """Return the newest job of a sweep.

        Args:
            name: Name of the sweep, or Ray's name for the job.

        Raises:
            InputError: If there is none.
        """
        jobs = self.listed()
        for job in jobs:
            if name in (job.sweep, job.key):
                return job
        names = ", ".join(dict.fromkeys(job.sweep for job in jobs)) or "none"
        raise InputError(f"{name}: no job of that sweep at {self._address}; accepted: {names}")

    def stop(self, job: Job) -> None:
        """Ask a job to stop, and wait until it has. The sweep can be resumed."""
        with _explained(self._address):
            self._client.stop_job(job.key)
        while not self.job(job.key).has_ended:
            time.sleep(LOOK_SECONDS / 4)

    def log(self, job: Job) -> str:
        """Return the log of a job so far."""
        with _explained(self._address):
            return str(self._client.get_job_logs(job.key))

    def lines(self, job: Job) -> Iterator[str]:
        """Yield the lines of a job's log until it ends. A connection that breaks off is made again.

        Raises:
            SweepError: If the cluster does not answer any more.
        """
        seen, breaks = 0, 0
        while True:
            try:
                for line in self._tail(job.key, seen):
                    seen, breaks = seen + 1, 0
                    yield line
                if self.job(job.key).has_ended:
                    return
            except (KdsweepError, OSError, RuntimeError) as error:
                breaks += 1
                if breaks > RECONNECTS:
                    reason = str(error).splitlines()[0]
                    raise SweepError(f"{job.sweep}: the cluster does not answer any more: {reason}") from error
            time.sleep(LOOK_SECONDS)

    def _tail(self, key: str, seen: int) -> Iterator[str]:
        """Yield the complete lines of a log after the first `seen`; the last one may lack its end."""
        loop = asyncio.new_event_loop()
        chunks = self._client.tail_job_logs(key)
        rest, number = "", 0
        try:
            while True:
                try:
                    rest += loop.run_until_complete(anext(chunks))
                except StopAsyncIteration:
                    break
                *whole, rest = rest.split("\n")
                for line in whole:
                    number += 1
                    if number > seen:
                        yield line
            if rest and number >= seen:
                yield rest
        finally:
            _end(loop, chunks)


def _end(loop: asyncio.AbstractEventLoop, chunks: Any) -> None:
    """Close a generator and its loop; after Ctrl-C, a step of the generator is still under way."""
    steps = asyncio.all_tasks(loop)
    for step in steps:
        step.cancel()
    if steps:
        loop.run_until_complete(asyncio.gather(*steps, return_exceptions=True))
    loop.run_until_complete(chunks.aclose())
    loop.close()


def _job(found: Any) -> Job:
    metadata = found.metadata or {}
    status = getattr(found.status, "value", str(found.status))
    message = " ".join((found.message or "").split())
    return Job(
        str(found.submission_id),
        metadata.get(SWEEP, ""),
        metadata.get(DIRECTORY, ""),
        status,
        _time(found.start_time),
        _time(found.end_time),
        message,
    )


def _time(milliseconds: int | None) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M:%S}" if milliseconds else ""


def _need_dashboard_address(address: str) -> None:
    if not address.startswith(("http://", "https://")):
        raise InputError(
            f"--address {address}: accepted: the address of the cluster's dashboard, such as http://HEAD:8265 "
            "(kdsweep run --address takes HOST:PORT)"
        )


def _use_token() -> None:
    """Use a token that is there, as Ray's own commands on a cluster node do."""
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    if named or (Path.home() / ".ray" / "auth_token").is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


@contextmanager
def _explained(address: str) -> Iterator[None]:
    """Turn what Ray's client raises into one line."""
    try:
        yield
    except KdsweepError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        if type(error).__name__ == "AuthenticationError":
            advice = "put the cluster's token into ~/.ray/auth_token or RAY_AUTH_TOKEN, and set RAY_AUTH_MODE=token"
            raise InputError(f"--address {address}: the cluster refuses the token: {lines[0]}; {advice}") from error
        if isinstance(error, (ConnectionError, OSError)):
            accepted = "the address of the cluster's dashboard, such as http://HEAD:8265"
            raise InputError(f"--address {address}: nothing answers there: {lines[0]}; accepted: {accepted}") from error
        raise SweepError(f"--address {address}: the cluster refuses: {lines[0]}") from error
