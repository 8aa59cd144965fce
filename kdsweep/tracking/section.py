"""The section `tracking` of a sweep file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs, urlsplit

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from kdsweep.errors import InputError, installing
from kdsweep.section import Section
from kdsweep.storage.paths import SweepDir
from kdsweep.tracking.base import TRACKERS, Tracker

_SQLITE = "sqlite:///"
_SECRETS = {"password", "passwd", "pwd", "token", "api_key", "apikey", "secret"}


def _uri(written: object) -> object:
    if isinstance(written, bool | str):
        return written
    raise PydanticCustomError("uri", "a URI such as http://host:5000 or sqlite:///mlflow.db, true or false")


class WandbSection(Section):
    """Weights & Biases.

    Attributes:
        project: The project; null turns it off.
        entity: The user or team; null means the user's default.
    """

    project: str | None = None
    entity: str | None = None


class TrackingSection(Section):
    """The trackers that trials are logged to. Each field has the name of a tracker.

    Attributes:
        tensorboard: Whether to write event files into the sweep's directory.
        mlflow: URI of the tracking server or store; true means that of MLFLOW_TRACKING_URI, false turns it off.
        wandb: The project in Weights & Biases.
    """

    tensorboard: bool = False
    mlflow: Annotated[bool | str, BeforeValidator(_uri)] = False
    wandb: WandbSection = WandbSection()

    def chosen(self) -> dict[type[Tracker], Any]:
        """Return the trackers in use with their options."""
        options: dict[str, Any] = {
            "tensorboard": self.tensorboard,
            "mlflow": self.mlflow,
            "wandb": self.wandb if self.wandb.project else None,
        }
        return {TRACKERS[name]: option for name, option in options.items() if option}

    def described(self, sweep: SweepDir) -> list[str]:
        """Return where trials are logged, one text per tracker."""
        return [f"{tracker.name} ({tracker.place(option, sweep)})" for tracker, option in self.chosen().items()]

    def absolute(self) -> TrackingSection:
        """Return a copy whose local paths are absolute."""
        return self.model_copy(update={"mlflow": _absolute(self.mlflow)}) if isinstance(self.mlflow, str) else self

    def faults(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yield what is wrong, as (path of the key, message). No message repeats a value that may be a secret."""
        if isinstance(self.mlflow, str) and _has_secret(self.mlflow):
            accepted = "a URI without user or password: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            yield ("mlflow",), f"found a URI with credentials; accepted: {accepted}true with MLFLOW_TRACKING_URI"
        if self.mlflow is True and not os.environ.get("MLFLOW_TRACKING_URI"):
            yield ("mlflow",), "found true, but MLFLOW_TRACKING_URI is not set; accepted: a URI, or true with it set"
        if self.wandb.entity is not None and not self.wandb.project:
            yield ("wandb", "entity"), "found without a project; accepted: {project: ..., entity: ...}"
        for tracker in self.chosen():
            if find_spec(tracker.package) is None:
                yield (tracker.name,), f"{tracker.package} is not installed: {installing(tracker.name)}"

    def check(self) -> None:
        """Check that all trackers in use can be used on this machine.

        Raises:
            InputError: If one cannot.
        """
        for keys, message in self.faults():
            raise InputError(f"tracking.{'.'.join(keys)}: {message}; or turn it off in the sweep file or with --set")


def _absolute(uri: str) -> str:
    if uri.startswith(_SQLITE):
        return _SQLITE + str(Path(uri.removeprefix(_SQLITE)).expanduser().absolute())
    return uri if ":" in uri or uri == "databricks" else str(Path(uri).expanduser().absolute())


def _has_secret(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
        return "@" in parts.netloc or bool(_SECRETS & {key.lower() for key in parse_qs(parts.query)})
    except ValueError:
        return "@" in uri
