"""Fixtures of the tests of sweeps on Ray."""

from object_store import bucket, s3_server, server  # noqa: F401
