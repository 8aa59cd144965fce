"""Tells whoever keeps a folder in another place, such as an object store, what happens to the files in it.

Nothing is kept elsewhere unless `follow` was called: then all functions only do their local part.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Protocol


class Follower(Protocol):
    """Keeps the files of a folder in another place."""

    def written(self, path: Path) -> None:
        """Take over a file that was written as a whole."""

    def grown(self, path: Path) -> None:
        """Note that lines were appended to a log."""

    def closed(self, path: Path) -> None:
        """Take over all lines of a log before returning."""

    def removed(self, path: Path, is_folder: bool) -> None:
        """Remove a file, or everything in a folder."""

    def fetch(self, path: Path) -> None:
        """Bring a file up to date, or remove it if the other place has none."""

    def fetch_folder(self, path: Path) -> None:
        """Bring the files of a folder that the other place has up to date."""

    def publish(self, path: Path) -> None:
        """Take over those files of a folder that the other place does not have."""


_FOLLOWERS: dict[Path, Follower] = {}


def follow(folder: Path, follower: Follower) -> None:
    """Tell a follower about all files below a folder from now on, in this process."""
    _FOLLOWERS[folder] = follower


def written(path: Path) -> None:
    """Tell that a file was written as a whole."""
    if follower := _follower(path):
        follower.written(path)


def grown(path: Path) -> None:
    """Tell that lines were appended to a log."""
    if follower := _follower(path):
        follower.grown(path)


def closed(path: Path) -> None:
    """Tell that a log is complete for now."""
    if follower := _follower(path):
        follower.closed(path)


def discard(*paths: Path) -> None:
    """Remove files, wherever they are kept."""
    for path in paths:
        path.unlink(missing_ok=True)
        if follower := _follower(path):
            follower.removed(path, is_folder=False)


def discard_folder(path: Path) -> None:
    """Remove a folder, wherever it is kept."""
    shutil.rmtree(path, ignore_errors=True)
    if follower := _follower(path):
        follower.removed(path, is_folder=True)


def fetch(*paths: Path) -> None:
    """Bring files up to date with what another node may have written. Without a follower they are."""
    for path in paths:
        if follower := _follower(path):
            follower.fetch(path)


def fetch_folder(path: Path) -> None:
    """Bring the files of a folder up to date, as `fetch`."""
    if follower := _follower(path):
        follower.fetch_folder(path)


def publish(path: Path) -> None:
    """Let other nodes have the files of a folder that were written without telling."""
    if follower := _follower(path):
        follower.publish(path)


def _follower(path: Path) -> Follower | None:
    return next((follower for folder, follower in _FOLLOWERS.items() if path.is_relative_to(folder)), None)
