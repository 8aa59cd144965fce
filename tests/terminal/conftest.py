"""Fixtures of the tests of the terminal."""

from made_up import finished_sweep as made_up  # noqa: F401
