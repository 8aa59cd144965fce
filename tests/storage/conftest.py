"""Fixtures of the tests of storage."""

from object_store import bucket, s3_server, server  # noqa: F401
