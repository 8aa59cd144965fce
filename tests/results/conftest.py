"""Fixtures of the tests of results."""

from made_up import finished_sweep as made_up  # noqa: F401
from object_store import bucket, s3_server, server  # noqa: F401
