"""Paths as the report shows them: no directory of the machine that made it, because pages are shared."""

from __future__ import annotations

import re
import shlex
from pathlib import Path, PurePosixPath

from kdsweep.storage.places import Place

_ABSOLUTE = re.compile(r"""(?<=[\s,\[{'"])(?P<scheme>(?:[a-z][a-z+]*://)?)(?P<path>/+[^/\s,\]}'"][^\n,\]}'"]*)""")


def shortest(place: Path | Place) -> str:
    """The path or URI as written in commands, quoted for a shell.

    It is relative to the current directory if it is in it; of another absolute path only the last part is left, so that
    the command is run where that lies.
    """
    if isinstance(place, Place) and place.is_remote:
        return shlex.quote(place.text)
    path = Path(str(place) if isinstance(place, Path) else place.text)
    if not path.is_absolute():
        return shlex.quote(str(path))
    inside = path.is_relative_to(Path.cwd())
    return shlex.quote(str(path.relative_to(Path.cwd())) if inside else path.name)


def of_file(path: Path) -> str:
    """The path of a file in a sweep's directory, as `shortest` writes that directory."""
    return shortest(path) if path.is_relative_to(Path.cwd()) else shlex.quote(f"{path.parent.name}/{path.name}")


def shortened(text: str) -> str:
    """A sweep file with `.../NAME` for every absolute path."""

    def short(found: re.Match[str]) -> str:
        path = found["path"].rstrip()
        return f"{found['scheme']}.../{PurePosixPath(path).name}{found['path'][len(path) :]}"

    return _ABSOLUTE.sub(short, text)
