"""Whole objects in an object store, with conditional writes, and with retries while the store does not answer."""

from __future__ import annotations

import os
import random
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from kdsweep.errors import InputError
from kdsweep.storage.store_errors import StoreError, first_line, may_pass, no_bucket, store_reason

if TYPE_CHECKING:
    from obstore.store import ObjectStore

T = TypeVar("T")
RETRY = "KDSWEEP_RETRY_SECONDS"
RETRY_SECONDS = 300.0  # how long a store that answered before may not answer
FIRST_SECONDS = 15.0  # the same before its first answer, when the address may be wrong
LONGEST_WAIT = 10.0  # between two attempts
REQUEST_SECONDS, CONNECT_SECONDS = 120, 10
PART_BYTES = 8 << 20  # of one request for a large object
AT_ONCE = 16  # requests of one process that fetches many objects
_PLACED = ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
_CONFLICT = "ConditionalRequestConflict"


@dataclass(frozen=True)
class Found:
    """An object in a listing.

    Attributes:
        size: In bytes.
        tag: Changes with the content.
        modified: When it was written, by the clock of the store.
    """

    size: int
    tag: str
    modified: datetime


class Bucket:
    """The objects below a URI. Keys are relative to it.

    Args:
        uri: Such as s3://BUCKET/PREFIX.
    """

    def __init__(self, uri: str):
        self.uri = uri
        self._patience = _retry_seconds()
        self._answered = False
        self._versions: dict[str, str] = {}  # by tag, where the store needs them for a condition
        self._store: ObjectStore = _opened(uri)

    def get(self, key: str) -> tuple[bytes, str] | None:
        """Return the content and the tag of an object; None if there is none.

        Raises:
            StoreError: As all methods.
        """
        import obstore

        def read() -> tuple[bytes, str]:
            found = obstore.get(self._store, key)
            return bytes(found.bytes()), self._tag(found.meta)

        return self._tried(key, read)

    def parts(self, key: str, size: int) -> Iterator[bytes]:
        """Yield the content of an object, in parts if it is large; nothing if there is none."""
        for start in range(0, max(1, size), PART_BYTES):
            end = min(size, start + PART_BYTES)
            options: Any = {"range": (start, end)} if size > PART_BYTES else {}
            part = self._tried(key, partial(self._get, key, options))
            if part is None:
                return
            yield part

    def download(self, key: str, size: int, path: Path) -> bool:
        """Write an object to a local file. Return whether all of it was there."""
        with path.open("wb") as file:
            written = sum(file.write(part) for part in self.parts(key, size))
        return written == size

    def put(self, key: str, content: bytes | Path) -> str:
        """Write an object as a whole. Return its tag."""
        import obstore

        return self._needed(key, lambda: str(obstore.put(self._store, key, content)["e_tag"]))

    def create(self, key: str, content: bytes) -> str | None:
        """Write an object unless there is one. Return its tag, or None if there is one.

        Args:
            key: The key.
            content: Different from what any other process writes there, so that one that was written although the
                answer got lost is recognised.
        """
        return self._put_if(key, content, "create")

    def replace(self, key: str, content: bytes, tag: str) -> str | None:
        """Write an object if it has this tag. Return the new tag, or None if another process has changed it."""
        version = {"version": self._versions[tag]} if tag in self._versions else {}
        return self._put_if(key, content, {"e_tag": tag, **version})

    def head(self, key: str) -> Found | None:
        """Return what is known of an object; None if there is none."""
        import obstore

        found = self._tried(key, lambda: obstore.head(self._store, key))
        return None if found is None else _found(found)

    def listed(self, prefix: str) -> dict[str, Found]:
        """Return the objects below a prefix, by key, in order.

        The empty objects that consoles and copying tools make for folders are left out.
        """
        import obstore

        found = self._needed(prefix, lambda: obstore.list(self._store, prefix.rstrip("/") or None).collect())
        found = sorted(found, key=lambda one: one["path"])
        keys = [one["path"] for one in found]
        return {one["path"]: _found(one) for one in found if one["size"] or not _is_folder(one["path"], keys)}

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects, also if they do not exist."""
        import obstore

        if wanted := list(keys):
            self._tried(wanted[0], lambda: obstore.delete(self._store, wanted))

    def at(self, key: str) -> str:
        """Return the URI of an object."""
        return below(self.uri, key)

    def _get(self, key: str, options: Any) -> bytes:
        import obstore

        return bytes(obstore.get(self._store, key, options=options).bytes())

    def _put_if(self, key: str, content: bytes, mode: Any) -> str | None:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        try:
            return self._needed(key, lambda: self._tag(obstore.put(self._store, key, content, mode=mode)))
        except (AlreadyExistsError, PreconditionError):
            there = self.get(key)
            return there[1] if there is not None and there[0] == content else None

    def _tag(self, told: Any) -> str:
        tag = str(told["e_tag"])
        if told["version"]:  # GCS compares these
            self._versions = {**dict(list(self._versions.items())[-9:]), tag: str(told["version"])}
        return tag

    def _needed(self, key: str, call: Callable[[], T]) -> T:
        found = self._tried(key, call)
        if found is None:
            raise StoreError("no such object", self.at(key))
        return found

    def _tried(self, key: str, call: Callable[[], T]) -> T | None:
        """Call until the store answers. Return None if it answers that there is no such object."""
        from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

        started, wait = time.monotonic(), 0.1
        while True:
            try:
                found = call()
            except (AlreadyExistsError, PreconditionError) as error:
                if _CONFLICT not in str(error):  # of two writes at the same time, which a further attempt decides
                    raise
                reason = store_reason(error)
            except FileNotFoundError as error:
                if no_bucket(error):
                    raise StoreError("no such bucket", self.uri) from error
                self._answered = True
                return None
            except (BaseError, OSError) as error:
                reason = store_reason(error)
                if not may_pass(error, self._answered):
                    raise StoreError(reason, self.at(key)) from error
            else:
                self._answered = True
                return found
            limit = self._patience if self._answered else min(FIRST_SECONDS, self._patience)
            left = started + limit - time.monotonic()
            if left <= 0:
                raise StoreError(f"{reason}, tried for {limit:g} s", self.at(key))
            time.sleep(min(left, wait * random.uniform(0.5, 1)))
            wait = min(LONGEST_WAIT, 2 * wait)


def _found(told: Any) -> Found:
    tag = str(told["e_tag"])  # which Azure quotes in an answer to a read, and not in a listing
    return Found(int(told["size"]), tag if '"' in tag else f'"{tag}"', told["last_modified"])


def _is_folder(key: str, keys: list[str]) -> bool:
    """Whether a key is that of the listed folder itself, or any of the ordered keys is below it."""
    if not key:
        return True
    following = bisect_left(keys, f"{key}/")
    return following < len(keys) and keys[following].startswith(f"{key}/")


@lru_cache(maxsize=16)
def bucket(uri: str) -> Bucket:
    """Return the bucket of a URI, opened once in each process."""
    return Bucket(uri)


def below(uri: str, name: str) -> str:
    """Return the URI of an object or folder below a URI."""
    path, mark, query = uri.partition("?")
    return f"{path}/{name}{mark}{query}"


def split(uri: str) -> tuple[str, str]:
    """Return the URI of the folder that an object is in, and the object's name."""
    path, mark, query = uri.partition("?")
    folder, _, name = path.rpartition("/")
    return f"{folder}{mark}{query}", name


def _opened(uri: str) -> ObjectStore:
    from obstore.store import from_url

    parts = urlsplit(uri)
    options: dict[str, Any] = {}
    if parts.scheme == "s3":
        options = {"config": _s3_config(parts.netloc, parts.query), **_profile()}
    try:
        found: ObjectStore = from_url(
            f"{parts.scheme}://{parts.netloc}{parts.path}",
            client_options={
                "allow_http": True,  # if the endpoint is one
                "timeout": timedelta(seconds=REQUEST_SECONDS),
                "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
            },
            retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=1)},
            **options,
        )
    except Exception as error:  # obstore raises several kinds
        raise StoreError(first_line(error), uri) from error
    return found


def _s3_config(name: str, query: str) -> dict[str, str]:
    """Return what a URI says itself, in the words of pyarrow, and the bucket's region if nothing else says it."""
    said = {key: values[-1] for key, values in parse_qs(query).items()}
    found = {"region": said["region"]} if "region" in said else {}
    if endpoint := said.get("endpoint_override"):
        found["endpoint"] = endpoint if "://" in endpoint else f"{said.get('scheme', 'https')}://{endpoint}"
    if not found and not any(variable in os.environ for variable in _PLACED):
        from pyarrow.fs import resolve_s3_region

        with suppress(OSError):
            found["region"] = resolve_s3_region(name)
    return found


def _profile() -> dict[str, Any]:
    """Return credentials from the AWS configuration files, if the environment has none and boto3 is installed."""
    set_otherwise = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                     "AWS_CONTAINER_CREDENTIALS_FULL_URI")  # fmt: skip
    files = (Path.home() / ".aws" / name for name in ("credentials", "config"))
    if any(name in os.environ for name in set_otherwise) or not any(file.is_file() for file in files):
        return {}
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider

        return {"credential_provider": Boto3CredentialProvider()}
    except (ImportError, ValueError):
        return {}


def _retry_seconds() -> float:
    text = os.environ.get(RETRY) or str(RETRY_SECONDS)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86_400:
        raise InputError(f"{RETRY}: found {text!r}; accepted: seconds from 0 to 86400")
    return seconds
