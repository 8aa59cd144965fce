"""What the errors of object stores mean: in one line for the user, and whether a later attempt may work."""

from __future__ import annotations

import errno
import re

_STATUS = re.compile(r"status code: (\d{3}) ?([A-Za-z ]*)")
_AGAIN = (408, 409, 425, 429)  # client errors that pass; 409: two conditional writes at the same time
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "specified bucket does not exist")
_METADATA = ("169.254.169.254", "metadata.google.internal", "169.254.170.2")  # asked where nothing else is set
_CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, install boto3 for the profiles of ~/.aws",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS",
    "abfs": "set AZURE_STORAGE_ACCOUNT_KEY",
}


class StoreError(OSError):
    """An object store that refuses, or does not answer.

    Args:
        reason: In one line.
        uri: Of the object or folder.
    """

    def __init__(self, reason: str, uri: str):
        super().__init__(errno.EIO, reason, uri)

    def __reduce__(self) -> tuple[type[StoreError], tuple[str, str]]:
        return type(self), (str(self.strerror), str(self.filename))


def no_bucket(error: Exception) -> bool:
    """Whether the whole bucket, or container, does not exist."""
    return any(words in str(error) for words in _NO_BUCKET)


def may_pass(error: Exception, answered: bool) -> bool:
    """Whether a later attempt may work. A store that answered before was given credentials."""
    from obstore.exceptions import GenericError

    text = str(error)
    if not isinstance(error, (GenericError, OSError)) or no_bucket(error):
        return False
    if any(host in text for host in _METADATA):
        return answered
    status = _status(text)
    return not 400 <= status < 500 or status in _AGAIN


def store_reason(error: Exception) -> str:
    """Return why a store did not do what was asked."""
    text = str(error)
    if any(host in text for host in _METADATA):
        return f"no credentials were found; {_CREDENTIALS[_asked(text)]}, or give the machine a role"
    if no_bucket(error):
        return "no such bucket"
    if found := re.search(r'Path "(.*?)" contained|parsing Path "(.*?)"', text):
        return f"an object is called {found[1] or found[2]!r}; accepted: names that stay in their folder"
    if found := _STATUS.search(text):
        code = re.search(r"<Code>(\w+)</Code>", text)
        what = code[1] if code else found[2].strip()
        denied = "access denied" if found[1] in ("401", "403") else "the store answers"
        return f"{denied}: {found[1]} {what}".rstrip()
    if "error sending request" in text or "onnect" in text:
        return "the store does not answer"
    if "imed out" in text or "timeout" in text:
        return "the store does not answer in time"
    return first_line(error)


def first_line(error: Exception) -> str:
    """Return the first line of an error, without the kind of store."""
    lines = str(error).strip().splitlines()
    line = re.sub(r"^Generic \w+ error: ", "", lines[0].rstrip(" :")) if lines else type(error).__name__
    if line == "Account must be specified":
        return "no account is named; accepted: abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/..."
    return line


def _asked(text: str) -> str:
    """Return the kind of store whose machine's role was asked for in vain."""
    return "gs" if "GCS" in text else "abfs" if "MicrosoftAzure" in text else "s3"


def _status(text: str) -> int:
    found = _STATUS.search(text)
    return int(found[1]) if found else 0
