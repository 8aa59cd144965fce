"""The session of the one driver of a sweep."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from filelock import FileLock, Timeout

from kdsweep.errors import SweepDirError, SweepError
from kdsweep.storage import following
from kdsweep.storage.cache import note_use
from kdsweep.storage.driver_lease import RENEW_SECONDS, Lease
from kdsweep.storage.mirror import Mirror, is_any, is_told
from kdsweep.storage.paths import SweepDir
from kdsweep.storage.places import reason_of
from kdsweep.storage.segments import SegmentWriter
from kdsweep.storage.store_errors import StoreError

FLUSH_SECONDS = 1.0


@contextmanager
def driving(sweep: SweepDir, tell: Callable[[str], object], everything: bool = False) -> Iterator[None]:
    """Be the only driver of a sweep: two would overwrite each other's files.

    A sweep in an object store is fetched first. While the context lasts, its logs are written there every second.

    Args:
        sweep: The sweep's directory.
        tell: Receives a line if it takes time to find out whether there is another driver.
        everything: Whether to fetch states and weights, too.

    Raises:
        SweepDirError: If another process drives the sweep, or its directory or object store cannot be used.
    """
    lock = FileLock(sweep.lock, timeout=0)
    try:
        sweep.root.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise SweepDirError(f"{sweep}: another process is running this sweep; wait for it or stop it") from None
    except OSError as error:
        raise SweepDirError(f"{sweep}: cannot write to directory: {error.strerror}") from error
    try:
        if sweep.mirror is None:
            yield
        else:
            with _mirrored(sweep, sweep.mirror, tell, everything):
                yield
    finally:
        lock.release()


@contextmanager
def _mirrored(sweep: SweepDir, mirror: Mirror, tell: Callable[[str], object], everything: bool) -> Iterator[None]:
    owner = uuid.uuid4().hex
    try:
        lease = Lease(mirror.bucket, sweep.name, owner)
        logs = SegmentWriter(mirror.bucket, sweep.name, sweep.root, owner)
        lease.acquire(tell)
    except StoreError as error:
        raise SweepDirError(f"{sweep}: cannot be used: {reason_of(error)}") from error
    try:
        with _written_every_second(lease, logs, sweep):
            try:
                found = logs.take_over()
                mirror.sync(sweep.root, is_any if everything else is_told, drop=is_any)
                mirror.write_logs(sweep.root, found)
            except StoreError as error:
                raise SweepDirError(f"{sweep}: cannot be used: {reason_of(error)}") from error
            mirror.logs = logs
            yield
            _end(sweep, logs)
    finally:
        mirror.logs = None
        with suppress(StoreError):
            lease.release()


def _end(sweep: SweepDir, logs: SegmentWriter) -> None:
    try:
        following.publish(sweep.tensorboard)
        logs.compact()
    except StoreError as error:
        raise SweepError(
            f"storage error: {reason_of(error)}: {error.filename}; progress is saved; continue with: kdsweep resume "
            f"{sweep}"
        ) from error


@contextmanager
def _written_every_second(lease: Lease, logs: SegmentWriter, sweep: SweepDir) -> Iterator[None]:
    """Write segments and renew the lease in threads. After an error, write what is left as far as that is possible."""
    ended = threading.Event()

    def repeated(seconds: float, call: Callable[[], None]) -> None:
        while not ended.wait(seconds):
            try:
                call()
            except Exception as error:  # the driver raises it when it next appends a line
                logs.failed = logs.failed or error
                return

    def renew() -> None:
        lease.renew()
        note_use(sweep.root)

    threads = [
        threading.Thread(target=repeated, args=arguments, daemon=True)
        for arguments in ((FLUSH_SECONDS, logs.flush), (RENEW_SECONDS, renew))
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    except BaseException:
        if logs.failed is None:
            with suppress(Exception):  # the user must see the original error
                logs.flush()
        raise
    finally:
        ended.set()
        for thread in threads:
            thread.join(RENEW_SECONDS)
