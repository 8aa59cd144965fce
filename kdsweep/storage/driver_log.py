"""The log file of a sweep: one JSON object per line, with the key of the trial that it is about."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from typing import Any

from kdsweep.errors import KdsweepError
from kdsweep.storage.following import written
from kdsweep.storage.paths import SweepDir

LOG = logging.getLogger("kdsweep")
LEVELS = ("debug", "info", "warning", "error")
LEVEL_VARIABLE = "KDSWEEP_LOG_LEVEL"
MOST_BYTES = 10_000_000  # then it becomes driver.log.1, and a new one begins


def set_level(level: str) -> None:
    """Set what is logged: records of this level and of higher ones.

    Args:
        level: One of LEVELS.
    """
    LOG.setLevel(level.upper())


def log(level: int, message: str, **fields: Any) -> None:
    """Log an event.

    Args:
        level: A level of `logging`.
        message: What happened.
        fields: JSON values, such as the key of a `trial`.
    """
    LOG.log(level, message, extra={"fields": fields})


@contextmanager
def driver_log(sweep: SweepDir) -> Iterator[None]:
    """Append what kdsweep logs to the log file of a sweep, at level `info` unless `set_level` was called."""
    before = LOG.level
    handler = _File(sweep.driver_log, maxBytes=MOST_BYTES, backupCount=1, encoding="utf-8", delay=True)
    handler.setFormatter(_Lines())
    LOG.addHandler(handler)
    if before == logging.NOTSET:
        LOG.setLevel(logging.INFO)
    try:
        yield
    except KdsweepError as error:
        log(logging.ERROR, str(error), sweep=sweep.root.name)
        raise
    finally:
        LOG.setLevel(before)
        LOG.removeHandler(handler)
        handler.close()
        if sweep.driver_log.is_file():
            with suppress(OSError):  # the sweep reports a lost storage
                written(sweep.driver_log)


class _File(RotatingFileHandler):
    """Drops what cannot be written: a full disk or a lost storage is reported by the sweep itself."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - a method of logging
        """Do nothing."""


class _Lines(logging.Formatter):
    """Formats records as JSON objects."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields = getattr(record, "fields", {})
        line = {"time": at, "level": record.levelname.lower(), "message": record.getMessage(), **fields}
        return json.dumps(line, default=str)
