"""Arguments and options that several commands share, and the console for their messages."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from kdsweep.config import shipped
from kdsweep.errors import InputError
from kdsweep.storage.driver_log import LEVEL_VARIABLE
from kdsweep.storage.places import Place, of_ray

errors = Console(stderr=True, emoji=False)  # `:x:` may be part of a path or address


def out_place(given: str) -> Place:
    """Parse --out.

    Raises:
        InputError: If it is not a place, or one that does not last.
    """
    place = Place.of(given)
    if reason := of_ray(place.text):
        raise InputError(f"--out {place}: {reason}; accepted: an absolute path on shared storage, or s3://...")
    return place


def spec_path(given: str) -> Path:
    """Parse SPEC.

    Raises:
        InputError: If it is a URI.
    """
    place = Place.of(given)
    place.local("sweep files are read from this machine; copy it first")
    return Path(given) if "://" not in given else Path(place.text)


SpecArgument = Annotated[
    Path,
    typer.Argument(
        metavar="SPEC",
        parser=spec_path,
        help=f"A sweep file, or one that comes with kdsweep: {', '.join(shipped.names())}.",
    ),
]
DirArgument = Annotated[
    Place,
    typer.Argument(
        metavar="DIR",
        parser=Place.of,
        help="A sweep directory, such as runs/quickstart or s3://bucket/runs/quickstart.",
    ),
]
StudentArgument = Annotated[
    Place,
    typer.Argument(
        metavar="STUDENT",
        parser=Place.of,
        help="A folder written by kdsweep export, a path or a URI, or an ONNX file in it.",
    ),
]
SetOption = Annotated[
    list[str],
    typer.Option(
        "--set", metavar="K=V", help="Override a value of the sweep file, such as search.trials=8; K=null removes K."
    ),
]
NameOption = Annotated[str, typer.Option("--name", help="Name of the sweep and its directory.")]
StorageOption = Annotated[
    str, typer.Option("--storage", help="Directory of the sweeps, which every node must reach, or s3://....")
]
AddressOption = Annotated[
    str,
    typer.Option(
        "--address",
        metavar="A",
        help="Ray cluster: auto, HOST:PORT or local. Default: RAY_ADDRESS, else start a local one.",
    ),
]


class LogLevel(StrEnum):
    """The levels of `--log-level`."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


LogLevelOption = Annotated[
    LogLevel,
    typer.Option(
        "--log-level",
        envvar=LEVEL_VARIABLE,
        show_envvar=True,
        help="What goes to driver.log in the sweep's directory; debug includes every epoch.",
    ),
]


def add_cwd_to_path() -> None:
    """Make modules in the current directory importable as `package.module:attribute`, as in `run`."""
    from kdsweep.registry import import_from

    import_from(str(Path.cwd()))
