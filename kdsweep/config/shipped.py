"""The sweep files that come with kdsweep, which commands take by name."""

from __future__ import annotations

import os
from pathlib import Path

from kdsweep.errors import SpecError, did_you_mean


def names() -> list[str]:
    """Names of the sweep files."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def summary(name: str) -> str:
    """The first sentence of a sweep file's comment."""
    comment = ""
    for line in (_folder() / f"{name}.yaml").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        comment += line.removeprefix("#")
    return comment.split(". ")[0].split(": ")[0].strip().rstrip(".")


def sweep_file(given: str | Path) -> Path:
    """Return the path of a sweep file: the user's own, or the one of kdsweep that a bare name refers to.

    Raises:
        SpecError: If there is neither.
    """
    path = Path(given)
    bare = len(path.parts) == 1 and not path.suffix
    if not bare or os.path.isfile(path):  # unlike Path.is_file, also of names that are too long
        return path
    if path.name in names():
        return _folder() / f"{path.name}.yaml"
    if os.path.exists(path):
        return path  # a directory, a device: reading it says what is wrong
    near = did_you_mean(path.name, names())
    raise SpecError(
        [f"{path}: no such file, and no sweep file of kdsweep has this name; {near}, or the path of a file"]
    )


def _folder() -> Path:
    """Return the directory of the files: in the package once it is installed, beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "search_spaces"
    return inside if inside.is_dir() else package.parent / "search_spaces"
