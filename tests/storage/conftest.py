"""Fixtures of the tests of storage."""

from azure_store import azurite, container  # noqa: F401
from object_store import bucket, s3_server, server  # noqa: F401
