"""The lease of a sweep in an object store: an object that names its one driver.

The driver writes it again every few seconds, on the condition that it is as it wrote it. Whoever finds the lease of
another driver looks at it again: one that changes belongs to a driver that runs, one that does not change for
`EXPIRES_SECONDS` to a dead one. No clocks of two machines are compared.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kdsweep.errors import SweepDirError, SweepError
from kdsweep.storage.bucket import Bucket
from kdsweep.storage.environment import utc_now

NAME = ".lease"
RENEW_SECONDS = 5.0
EXPIRES_SECONDS = 30.0
LOOK_SECONDS = 1.0
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Lease:
    """The lease of one driver.

    Args:
        bucket: The storage.
        sweep: Name of the sweep.
        owner: Identifies the driver; different in every session.
    """

    def __init__(self, bucket: Bucket, sweep: str, owner: str):
        self._bucket, self._sweep, self._owner = bucket, sweep, owner
        self._key = f"{sweep}/{NAME}"
        self._tag = ""
        self._renewed = 0
        self._since = utc_now()

    def acquire(self, tell: Callable[[str], object]) -> None:
        """Take the lease. Wait for that of a driver that may be dead.

        Args:
            tell: Receives a line if that takes time.

        Raises:
            SweepDirError: If another driver runs the sweep, or the store ignores conditions.
            StoreError: If the store refuses or does not answer.
        """
        waited_since, seen, told = time.monotonic(), "", ""
        while True:
            found = self._bucket.get(self._key)
            tag = self._bucket.create(self._key, self._content()) if found is None else None
            if found is not None:
                told, there = _described(found[0]), found[1]
                if seen and there != seen:
                    raise SweepDirError(
                        f"{self._where}: another process is running this sweep ({told}); wait for it or stop it"
                    )
                if _is_dead(found[0]) or time.monotonic() - waited_since > EXPIRES_SECONDS:
                    tag = self._bucket.replace(self._key, self._content(), there)
                elif not seen:
                    tell(f"waiting up to {EXPIRES_SECONDS:g} s to see whether its driver still runs ({told})")
                seen = there
            if tag is not None:
                self._tag = tag
                self._need_conditions()
                return
            if found is not None:
                time.sleep(LOOK_SECONDS)

    def renew(self) -> None:
        """Write the lease again.

        Raises:
            SweepError: If another driver has taken it.
            StoreError: If the store refuses or does not answer.
        """
        self._renewed += 1
        tag = self._bucket.replace(self._key, self._content(), self._tag)
        if tag is None:
            raise SweepError(f"{self._where}: another driver has taken over this sweep")
        self._tag = tag

    def release(self) -> None:
        """Remove the lease, if it is still this driver's."""
        found = self._bucket.get(self._key)
        if found is not None and found[1] == self._tag:
            self._bucket.delete([self._key])

    @property
    def _where(self) -> str:
        return self._bucket.at(self._sweep)

    def _content(self) -> bytes:
        told = {"owner": self._owner, "host": socket.gethostname(), "pid": os.getpid(), "boot": _boot()}
        return json.dumps(told | {"since": self._since, "renewed": self._renewed}).encode()

    def _need_conditions(self) -> None:
        """Check that the store keeps conditions; an older server may ignore them.

        Raises:
            SweepDirError: If it does not.
        """
        if self._bucket.create(self._key, b"{}") is not None:
            self._bucket.delete([self._key])
            raise SweepDirError(
                f"{self._where}: this store ignores conditional writes (If-None-Match), without which two drivers "
                "could overwrite each other; accepted: a store that has them, such as AWS S3, GCS or Azure"
            )


def is_held(bucket: Bucket, sweep: str) -> bool:
    """Whether a driver seems to run: its lease was renewed lately, by this machine's clock."""
    lease = bucket.head(f"{sweep}/{NAME}")
    return lease is not None and (datetime.now(UTC) - lease.modified).total_seconds() < 2 * EXPIRES_SECONDS


def _read(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


def _described(content: bytes) -> str:
    found = _read(content)
    return f"process {found.get('pid', '?')} on {found.get('host', '?')}, since {found.get('since', '?')}"


def _is_dead(content: bytes) -> bool:
    """Whether it is known without waiting that the driver has ended: it ran on this machine."""
    found = _read(content)
    if not _boot() or found.get("boot") != _boot() or found.get("host") != socket.gethostname():
        return False
    return isinstance(pid := found.get("pid"), int) and not Path(f"/proc/{pid}").exists()


def _boot() -> str:
    """Return what identifies this start of this machine; empty if that is not known."""
    with suppress(OSError):
        return f"{_BOOT.read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    return ""
