"""The logs of a sweep in an object store, which has no append: numbered objects that are never changed.

Each object, a segment, has a line of JSON and then the bytes that were appended to the logs since the one before:

    {"owner": ..., "number": 12, "base": false, "parts": [["study.journal", 5120, 310], ["epochs.jsonl", 900, 75]]}

A part is a file, the length that it had before and the number of bytes. All logs are in the same segments, so that
they agree with each other whatever is lost. A segment is created only if there is none of its number: a driver that was
taken for dead and goes on finds the number of the next one taken, and stops. Now and then a segment holds the whole
logs (a base), and those before it are removed.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from kdsweep.errors import SweepDirError, SweepError
from kdsweep.storage.bucket import Bucket, Found
from kdsweep.storage.store_errors import StoreError

FOLDER = ".log"
MOST_SEGMENTS = 200  # after a base; from then on a new base is worth its bytes ...
GROWTH = 0.25  # ... once the segments after the last one have this share of its size
FEW_TRIES = 10
AT_ONCE = 8


@dataclass
class Logs:
    """The logs as the segments tell them.

    Attributes:
        content: Content by file name, relative to the sweep's directory.
        last: Number of the last segment; 0 if there is none.
        count: Number of segments that were read.
        state: Changes with the last segment.
    """

    content: dict[str, bytes] = field(default_factory=dict)
    last: int = 0
    count: int = 0
    state: str = ""


def read_logs(bucket: Bucket, sweep: str) -> Logs:
    """Read the logs of a sweep, also while its driver writes them.

    Raises:
        StoreError: If the store cannot be read.
        SweepDirError: If a segment is damaged or missing.
    """
    for _ in range(FEW_TRIES):
        keys = list(found := bucket.listed(f"{sweep}/{FOLDER}"))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            read = list(pool.map(lambda key: b"".join(bucket.parts(key, found[key].size)), keys))
        if all(read):  # otherwise the driver has made a new base meanwhile
            segments = list(zip(keys, read, strict=True))
            return replace(_joined(bucket, segments), count=len(keys), state=_state(found))
    raise StoreError("its logs change faster than they can be read", bucket.at(sweep))


def state_of(bucket: Bucket, sweep: str) -> str:
    """Return what `Logs.state` would be."""
    return _state(bucket.listed(f"{sweep}/{FOLDER}"))


def _state(found: Mapping[str, Found]) -> str:
    last = max(found, default="")
    return f"{last} {found[last].tag}" if last else ""


def _joined(bucket: Bucket, segments: list[tuple[str, bytes]]) -> Logs:
    logs = Logs()
    begun = False
    for key, raw in segments:
        try:
            head, _, body = raw.partition(b"\n")
            told = json.loads(head)
            number, parts = int(told["number"]), [(str(name), int(at), int(size)) for name, at, size in told["parts"]]
            if told["base"] or number == 1:
                logs.content, begun = {}, True
            elif not begun:
                continue  # older than the base, and not removed yet
            elif number != logs.last + 1:
                raise ValueError(f"segment {logs.last + 1} is missing")
            for name, at, size in parts:
                _append(logs.content, name, at, body[:size])
                body = body[size:]
        except (ValueError, KeyError, TypeError) as error:
            raise SweepDirError(f"{bucket.at(key)}: damaged: {error}; restore it as kdsweep wrote it") from error
        logs.last = number
    if segments and not begun:
        raise SweepDirError(f"{bucket.at(segments[0][0])}: earlier segments are missing; restore them")
    return logs


def _append(content: dict[str, bytes], name: str, at: int, added: bytes) -> None:
    before = content.get(name, b"")
    if at > len(before):
        raise ValueError(f"{name} begins at {at}, after {len(before)} bytes")
    content[name] = before[:at] + added


class SegmentWriter:
    """Writes the logs of one driver. Threads may use it.

    Args:
        bucket: The bucket.
        sweep: Name of the sweep.
        folder: The driver's local directory of it.
        owner: Identifies the driver.
    """

    def __init__(self, bucket: Bucket, sweep: str, folder: Path, owner: str):
        self._bucket, self._sweep, self._folder, self._owner = bucket, sweep, folder, owner
        self._writing = threading.Lock()  # held while a segment is written
        self._noting = threading.Lock()  # held for a moment
        self._ends: dict[str, int] = {}
        self._sent: dict[str, int] = {}
        self._cut: dict[str, int] = {}  # logs that were removed, or written anew, with the length that stays
        self._removed: list[str] = []
        self._last = 0
        self._since_base, self._base_bytes, self._added_bytes = 0, 0, 0
        self.failed: Exception | None = None

    def take_over(self) -> Logs:
        """Read the logs and make sure that no earlier driver can append to them any more."""
        while True:
            logs = read_logs(self._bucket, self._sweep)
            self._last = logs.last
            if self._create(False, [], b""):
                break
        self._sent = {name: len(content) for name, content in logs.content.items()}
        self._ends = dict(self._sent)
        self._base_bytes = sum(self._sent.values())
        self._since_base, self._added_bytes = logs.count, self._base_bytes
        return logs

    def grown(self, path: Path) -> None:
        """Note the present length of a log. What is noted now will be written together, or not at all.

        Raises:
            Exception: If writing has failed for good.
        """
        if self.failed:
            raise self.failed
        name = str(path.relative_to(self._folder))
        with self._noting:
            self._ends[name] = path.stat().st_size if path.is_file() else 0

    def cut(self, path: Path) -> None:
        """Note that a log was removed."""
        name = str(path.relative_to(self._folder))
        with self._noting:
            if name in self._ends:
                self._ends[name] = self._cut[name] = 0

    def remove_later(self, keys: Iterable[str]) -> None:
        """Remove objects once all that is noted now is written."""
        with self._noting:
            self._removed += keys

    def is_log(self, path: Path) -> bool:
        """Whether a file is one of the logs."""
        return path.is_relative_to(self._folder) and str(path.relative_to(self._folder)) in self._ends

    def flush(self) -> None:
        """Write what is noted.

        Raises:
            StoreError: If the store does not take it.
            SweepError: If another driver has taken over.
        """
        if self.failed:
            raise self.failed
        with self._writing:
            try:
                self._flush()
            except Exception as error:
                self.failed = error
                raise

    def compact(self) -> None:
        """Write a base, and remove the segments before it."""
        self.flush()
        with self._writing:
            self._write_base()

    def _flush(self) -> None:
        with self._noting:
            ends, cut, removed = dict(self._ends), self._cut, self._removed
            self._cut, self._removed = {}, []
        self._sent |= cut
        parts: list[list[str | int]] = []
        bodies: list[bytes] = []
        for name, end in ends.items():
            start = self._sent.get(name, 0)
            if end > start or name in cut:
                bodies.append(self._read(name, start, end))
                parts.append([name, start, len(bodies[-1])])
        if parts:
            self._write(False, parts, b"".join(bodies))
            self._sent = ends
            self._since_base += 1
            self._added_bytes += sum(map(len, bodies))
        for key in removed:
            self._bucket.delete([key] if not key.endswith("/") else self._bucket.listed(key))
        if self._since_base > MOST_SEGMENTS and self._added_bytes > GROWTH * self._base_bytes:
            self._write_base()

    def _write_base(self) -> None:
        whole = {name: self._read(name, 0, end) for name, end in self._sent.items() if end}
        self._write(True, [[name, 0, len(content)] for name, content in whole.items()], b"".join(whole.values()))
        self._base_bytes, self._added_bytes, self._since_base = sum(map(len, whole.values())), 0, 0
        earlier = [key for key in self._bucket.listed(f"{self._sweep}/{FOLDER}") if key < self._key(self._last)]
        self._bucket.delete(earlier)

    def _read(self, name: str, start: int, end: int) -> bytes:
        if end <= start:  # it was removed
            return b""
        with (self._folder / name).open("rb") as file:
            file.seek(start)
            return file.read(end - start)

    def _write(self, base: bool, parts: list[list[str | int]], body: bytes) -> None:
        if not self._create(base, parts, body):
            raise SweepError(f"{self._bucket.at(self._sweep)}: another driver has taken over this sweep")

    def _create(self, base: bool, parts: list[list[str | int]], body: bytes) -> bool:
        number = self._last + 1
        told: Mapping[str, object] = {"owner": self._owner, "number": number, "base": base, "parts": parts}
        tag = self._bucket.create(self._key(number), json.dumps(told).encode() + b"\n" + body)
        self._last += tag is not None
        return tag is not None

    def _key(self, number: int) -> str:
        return f"{self._sweep}/{FOLDER}/{number:08d}"
