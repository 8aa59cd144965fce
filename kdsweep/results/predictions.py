"""`predictions.parquet`: which models' predictions on the test split it holds, and whether it is current.

The file derives from weights and data: a missing, damaged or outdated one is made again. Needs no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from kdsweep.config.spec import SweepSpec
from kdsweep.errors import SweepDirError
from kdsweep.search.baseline import PLAIN
from kdsweep.storage.files import replacing
from kdsweep.storage.paths import SweepDir

STUDENT, TUNED_PLAIN, TEACHER = "student", "plain", "teacher"
ROLES = (STUDENT, TUNED_PLAIN, TEACHER)
NAMES = {STUDENT: "student", TUNED_PLAIN: "tuned plain student", TEACHER: "teacher"}
_MADE_FROM = b"kdsweep.predictions"  # metadata key: what the predictions were made from
_FORMAT = 1


class Sweep(Protocol):
    """The part of `Results` that tells which models to show."""

    sweep: SweepDir

    @property
    def spec(self) -> SweepSpec:
        """The sweep's spec."""

    @property
    def trials(self) -> pd.DataFrame:
        """One row per trial."""

    @property
    def confirmed(self) -> pd.DataFrame:
        """One row per confirmed trial."""

    def best(self, top: int = 1) -> pd.DataFrame:
        """The best trials, best first."""

    def plain(self, width: float | None = None, *, like: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """The best complete plain trial."""


@dataclass(frozen=True)
class Model:
    """A model whose predictions are shown.

    Attributes:
        role: One of `ROLES`.
        trial: Key of the trial; of the teacher its name, which is empty if there is one teacher.
        weights: File of its weights; it may not have been kept.
    """

    role: str
    trial: str
    weights: Path


def models_of(results: Sweep) -> list[Model]:
    """The best confirmed student, the tuned plain student of its width and the teacher.

    Only confirmed students count, because nothing else is measured on the test split. Empty without a confirmed
    student; without the tuned plain student if there is none or if it is the best student itself.
    """
    confirmed = results.confirmed
    if confirmed.empty:
        return []
    best = results.best(len(results.trials))
    best = best[best["trial"].isin(confirmed["trial"])].head(1)
    if best.empty:
        return []
    sweep, key = results.sweep, str(best["trial"].iloc[0])
    models = [Model(STUDENT, key, sweep.trial(key).best)]
    if best["method"].iloc[0] != PLAIN:
        plain = results.plain(like=best.to_dict("records")[0])
        keys = plain["trial"].astype(str).tolist()
        models += [Model(TUNED_PLAIN, other, sweep.trial(other).best) for other in keys]
    taught_by = str(best["teacher"].iloc[0]) if "teacher" in best and best["method"].iloc[0] != PLAIN else ""
    if "+" in taught_by:  # the answers of an ensemble are not stored
        return models
    of_teacher = sweep.of_teacher(taught_by) if taught_by else sweep.of_teacher(results.spec.teacher_names[0])
    return [*models, Model(TEACHER, taught_by, of_teacher.teacher_weights)]


def save(frame: pd.DataFrame, models: list[Model], sweep: SweepDir) -> None:
    """Write the predictions of some models atomically.

    Args:
        frame: See `Results.predictions`.
        models: The models; their weights are on disk.
        sweep: The sweep's directory.

    Raises:
        OSError: If the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    made_from = {
        "format": _FORMAT,
        "data": _data(sweep),
        "models": {model.role: [model.trial, _hash(model.weights)] for model in models},
    }
    table = pa.Table.from_pandas(frame, preserve_index=False)
    metadata = {**table.schema.metadata, _MADE_FROM: json.dumps(made_from).encode()}
    with replacing(sweep.predictions) as partial:
        pq.write_table(table.replace_schema_metadata(metadata), partial, compression="zstd")


def current(results: Sweep) -> pd.DataFrame:
    """The predictions on disk; empty if they are missing, damaged or outdated."""
    try:
        return checked(results)
    except (SweepDirError, FileNotFoundError):
        return pd.DataFrame()


def checked(results: Sweep) -> pd.DataFrame:
    """The predictions on disk.

    Raises:
        FileNotFoundError: If they are missing.
        SweepDirError: If they are damaged or outdated.
    """
    import pyarrow.parquet as pq

    path = results.sweep.predictions
    if not path.is_file():
        raise FileNotFoundError(path)
    try:
        table = pq.read_table(path)
        made_from = json.loads((table.schema.metadata or {})[_MADE_FROM])
        frame = table.to_pandas()
        recorded = {str(role): (str(trial), str(digest)) for role, (trial, digest) in made_from["models"].items()}
        whole = set(columns(list(recorded))) == set(frame.columns) and made_from["format"] == _FORMAT
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SweepDirError(f"{path}: damaged: not readable as predictions") from error
    if not whole:
        raise SweepDirError(f"{path}: damaged: columns are missing or of another version")
    if made_from["data"] != _data(results.sweep) or not _same(models_of(results), recorded):
        raise SweepDirError(f"{path}: outdated: made from other weights or data")
    return frame


def columns(roles: list[str]) -> list[str]:
    """The columns of the frame for these models."""
    return ["sample", "label", *(f"{role}_{part}" for role in roles for part in ("class", "confidence")), "image"]


def roles_in(frame: pd.DataFrame) -> list[str]:
    """The models whose predictions a frame holds, in the order of `ROLES`."""
    return [role for role in ROLES if f"{role}_class" in frame.columns]


def disagreements(frame: pd.DataFrame) -> pd.DataFrame:
    """The samples that teacher and student classify differently, the largest difference of confidence first."""
    if not {f"{STUDENT}_class", f"{TEACHER}_class"} <= set(frame.columns):
        return frame.head(0)
    other = frame[frame[f"{STUDENT}_class"] != frame[f"{TEACHER}_class"]]
    difference = (other[f"{STUDENT}_confidence"] - other[f"{TEACHER}_confidence"]).abs()
    return other.loc[difference.sort_values(ascending=False, kind="stable").index]


def why_missing(results: Sweep, path: str, running: bool) -> str:
    """One sentence on why there are no predictions.

    Args:
        results: The results.
        path: The sweep's directory, as written in a command.
        running: Whether the sweep is running.
    """
    models = models_of(results)
    if not models:
        return "No student has been confirmed, so the test split has not been used and there are no predictions."
    if not models[0].weights.is_file():
        return f"The weights of the best confirmed student, {models[0].trial}, are missing, so it has no predictions."
    if running:
        return "The predictions on the test split are made when the sweep ends."
    return (
        "The predictions on the test split are missing or outdated; where the data set can be read, they are made by: "
        f"kdsweep report {path}"
    )


def class_names(sweep: SweepDir, frame: pd.DataFrame) -> list[str]:
    """The names of the classes in label order; numbers if they are unknown."""
    try:
        found = json.loads(sweep.data.read_text(encoding="utf-8"))
        names = [str(name) for name in found["class_names"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        names = []
    highest = max((int(frame[name].max()) for name in _class_columns(frame)), default=-1)
    return [*names, *map(str, range(len(names), highest + 1))]


def _class_columns(frame: pd.DataFrame) -> list[str]:
    return ["label", *(f"{role}_class" for role in roles_in(frame))] if len(frame) else []


def _same(models: list[Model], recorded: dict[str, tuple[str, str]]) -> bool:
    """Whether predictions are of these models. Weights that were not kept cannot be compared; their trial can."""
    wanted = {model.role: model for model in models}
    if STUDENT not in recorded or not recorded.keys() <= wanted.keys():
        return False
    for role, model in wanted.items():
        trial, digest = recorded.get(role, ("", ""))
        kept = model.weights.is_file()
        if (role in recorded and trial != model.trial) or (kept and digest != _hash(model.weights)):
            return False
    return True


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _data(sweep: SweepDir) -> list[Any]:
    """What identifies the data set of a sweep."""
    try:
        found = json.loads(sweep.data.read_text(encoding="utf-8"))
        return [found.get("digest", ""), (found.get("contents") or {}).get("test", "")]
    except (OSError, ValueError, AttributeError, RecursionError):  # kdsweep doctor reports damage
        return ["", ""]
