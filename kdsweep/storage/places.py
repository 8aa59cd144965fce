"""Places that a user gives: local paths and URIs of object stores. Every such path is a `Place`."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from kdsweep.errors import InputError
from kdsweep.storage.bucket import below, bucket, split
from kdsweep.storage.files import replace_files, replacing

REMOTE = ("s3", "gs", "abfs", "abfss")
ACCEPTED = "a local path, s3://BUCKET/..., gs://BUCKET/... or abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/..."
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
# What is left of a URI that was taken for a path, such as `pathlib.Path("s3://bucket/x")`.
_BROKEN = re.compile(rf"({'|'.join((*REMOTE, 'http', 'https', 'file', 'hdfs'))}):(?!//)")
# Ray keeps a job's package there, and deletes it with the job or when it needs space.
_OF_RAY = ("runtime_resources", "runtime_env")


@dataclass(frozen=True)
class Place:
    """A local path or a URI of an object store. `Place.of` makes one.

    Attributes:
        text: The absolute local path, or the URI.
        given: As the user wrote it, for messages.
    """

    text: str
    given: str

    @classmethod
    def of(cls, given: str | Path | Place) -> Place:
        """Return the place that a user means.

        Raises:
            InputError: If it is a URI of an unknown kind, a broken one, or one with a password.
        """
        if isinstance(given, Place):
            return given
        given = str(given)
        if fault := place_fault(given):
            raise InputError(f"found {given!r}; accepted: {fault}")
        found = _URI.match(given)
        if found is None:
            return cls(str(Path(given).expanduser().absolute()), given)
        if found[1].lower() == "file":
            return cls(str(Path(unquote(urlsplit(given).path))), given)
        return cls(given.rstrip("/"), given)

    @property
    def is_remote(self) -> bool:
        """Whether it is a URI of an object store."""
        return _URI.match(self.text) is not None

    @property
    def is_bucket(self) -> bool:
        """Whether it is a whole bucket, and nothing in it."""
        return self.is_remote and not urlsplit(self.text).path

    @property
    def name(self) -> str:
        """The last part."""
        return self.text.partition("?")[0].rsplit("/", 1)[-1]

    @property
    def suffix(self) -> str:
        """The ending, such as `.csv`, in lower case."""
        return os.path.splitext(self.name)[1].lower()

    def __str__(self) -> str:
        return self.text if self.is_remote or in_ray_job() else self.given

    def __truediv__(self, name: str) -> Place:
        """Return the place of this name below."""
        join = below if self.is_remote else "{}/{}".format
        return Place(join(self.text, name), join(self.given, name))

    def local(self, what: str) -> Path:
        """Return the local path.

        Args:
            what: What is read or written there, and what is accepted instead; for the error.

        Raises:
            InputError: If it is a URI.
        """
        if self.is_remote:
            raise InputError(f"{self}: {what}")
        return Path(self.text)

    def write_bytes(self, content: bytes) -> None:
        """Write one file; a file that exists is replaced as a whole.

        Raises:
            OSError: If it cannot be written.
        """
        if self.is_remote:
            if self.is_bucket:
                raise OSError("it is a bucket; accepted: the URI of an object in it")
            folder, name = split(self.text)
            bucket(folder).put(name, content)
            return
        local = Path(self.text)
        if local.exists() and not local.is_file():  # such as /dev/stdout
            local.write_bytes(content)
            return
        with replacing(local.resolve()) as partial:
            partial.write_bytes(content)

    def write_files(self, content: Mapping[str, bytes], stale: Iterable[str] = (), last: str = "") -> list[str]:
        """Write several files into this folder, locally all of them or none.

        An object store has no such step: there, the files are written one by one.

        Args:
            content: Content by name.
            stale: Names of files that are removed if they exist and are not written.
            last: Name of the file without which readers do not accept the folder; it is written last.

        Returns:
            The names of the removed files.

        Raises:
            OSError: If the folder cannot be written.
        """
        unwanted = sorted(set(stale) - set(content))
        if not self.is_remote:
            folder = Path(self.text)
            removed = [name for name in unwanted if (folder / name).exists()]
            replace_files(folder, content, stale)
            return removed
        objects = bucket(self.text)
        for name in sorted(content, key=lambda name: name == last):
            objects.put(name, content[name])
        removed = [name for name in unwanted if objects.head(name) is not None]
        objects.delete(removed)
        return removed


def place_fault(given: str) -> str:
    """Return what is accepted instead of a path or URI that cannot be a place; empty if it can be one."""
    if broken := _BROKEN.match(given):
        return f"{broken[1]}://..., with two slashes; ./{given} for a local file of that name"
    if not (found := _URI.match(given)):
        return ""
    if found[1].lower() == "file":
        host = urlsplit(given).netloc
        return "" if host in ("", "localhost") else f"file:///..., a file of this machine, not of {host!r}"
    if found[1] not in REMOTE:
        return ACCEPTED
    parts = urlsplit(given)
    if parts.password or (parts.username and found[1] not in ("abfs", "abfss")):
        return "a URI without credentials, which would be stored with the sweep; set them in the environment"
    if parts.fragment or given.endswith("#"):
        return "a URI without '#'"
    return "" if parts.netloc else ACCEPTED


def reason_of(error: OSError) -> str:
    """Return the reason of a failed read or write in one line."""
    if error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def in_ray_job() -> bool:
    """Whether this process is the entrypoint of a job that was submitted to a Ray cluster."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def of_ray(path: str | Path) -> str:
    """Return why nothing may be kept at a path, if it is one of Ray's own folders; otherwise an empty string."""
    parts = Path(path).parts
    if not any(name in parts for name in _OF_RAY) or not any(part.startswith("session_") for part in parts):
        return ""
    return "one of Ray's own folders, which disappears with the job or its node"


def shortest(place: Path | Place) -> str:
    """Return a path for a command to copy: relative to the current directory if it is in it, quoted for a shell.

    Inside a Ray job it is absolute: whoever submitted the job is in another directory. A URI is left as it is.
    """
    if isinstance(place, Place) and place.is_remote:
        return shlex.quote(place.text)
    path = place if isinstance(place, Path) else Path(place.text)
    if not in_ray_job():
        with suppress(ValueError):
            path = path.relative_to(Path.cwd())
    return shlex.quote(str(path))
