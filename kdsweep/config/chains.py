"""Students of earlier sweeps as teachers: `teacher: {student: runs/big/best}`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdsweep.config.spec import SweepSpec, TeacherSpec, read_spec
from kdsweep.config.yaml import Keys
from kdsweep.errors import InputError
from kdsweep.storage import weights
from kdsweep.storage.fetched import local_copy
from kdsweep.storage.paths import SweepDir
from kdsweep.storage.places import Place

BEST = "best"
_ACCEPTED = "accepted: a folder of kdsweep export, or a sweep's directory followed by a trial or best: runs/big/best"


@dataclass(frozen=True)
class Graduate:
    """A student that can teach.

    Attributes:
        model: Its model.
        width: Its width.
        options: Further arguments of the model.
        weights: Its weights.
        class_names: The classes in the order of its logits.
        normalize: `dataset.normalize` of its own sweep; empty if that is not known.
        mean: The mean of each channel with which it normalises images; empty if it takes no images.
        std: The standard deviation, likewise.
    """

    model: str
    width: float
    options: dict[str, Any]
    weights: Path
    class_names: tuple[str, ...]
    normalize: str
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """The keys of `teacher` that it determines."""
        return {"model": self.model, "width": self.width, "options": self.options, "checkpoint": str(self.weights)}


def resolved(spec: SweepSpec) -> tuple[SweepSpec, list[tuple[Keys, str]]]:
    """Return the spec with the model and the checkpoint of every teacher that is a student, and the faults of those.

    A teacher whose student cannot be found has a fault, and an empty model.
    """
    known: dict[str, TeacherSpec] = {}
    faults: list[tuple[Keys, str]] = []
    for name, keys in spec.teacher_keys.items():
        teacher = known[name] = spec.of_teacher(name).teacher
        if teacher.student is None:
            continue
        place = Place.of(teacher.student).text
        try:
            taken = graduate(place).settings
        except InputError as error:
            faults.append(((*keys, "student"), " ".join(str(error).split())))
            taken = {"model": ""}
        else:
            faults += [((*keys, key), message) for key, message in _beside(teacher, taken)]
        known[name] = teacher.model_copy(update={"student": place, **taken})
    if not spec.teachers:
        return spec.replaced(teacher=known[""]), faults
    first, own = next(iter(spec.teachers)), spec.teacher
    own = known[first] if own == spec.teachers[first] else own  # else it was given beside them, which is a fault
    return spec.replaced(teacher=own, teachers=known), faults


def _beside(teacher: TeacherSpec, taken: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what was given beside the student and differs from it; a sweep's own file repeats what it took."""
    for key in taken.keys() & teacher.model_fields_set:
        found = getattr(teacher, key)
        if found not in ("", None, taken[key]):
            yield key, f"found {found}, beside student, which has its own ({taken[key]}); leave out one of them"


def graduate(place: str) -> Graduate:
    """Find a student by its exported folder or in its sweep.

    Raises:
        InputError: If it is not there, its weights were not kept, or it has a head of its own.
    """
    path = Path(place)
    sweep = next((root for root in (path, path.parent, path.parent.parent) if (root / "spec.yaml").is_file()), None)
    found = _exported(place) if sweep is None else _of_sweep(SweepDir(sweep), path.name if path != sweep else BEST)
    if weights.metadata(found.weights).get("head"):
        raise InputError(
            f"{place}: was taught with simkd or alike, whose students have a head of their own; {_ACCEPTED}"
        )
    return found


def _exported(place: str) -> Graduate:
    if not Place.of(place).is_remote and not (Path(place) / "config.json").is_file():
        raise InputError(f"no student at {place}; {_ACCEPTED}")
    folder = local_copy(place, "student")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config["head"]:
            raise InputError(f"{place}: its student has a head of its own; accepted: students of other methods")
        names, model, options = tuple(map(str, config["class_names"])), str(config["model"]), dict(config["options"])
        normalize = str((config.get("dataset") or {}).get("normalize", ""))
        width, file = float(config["width"]), folder / "model.safetensors"
        return Graduate(model, width, options, file, names, normalize, *_statistics(config))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{place}: config.json cannot be read: {type(error).__name__}: {error}") from error


def _of_sweep(sweep: SweepDir, trial: str) -> Graduate:
    import pandas as pd

    spec = read_spec(sweep)
    try:
        trials = pd.read_parquet(sweep.trials_frame)
        confirmed = pd.read_parquet(sweep.confirmed_frame) if sweep.confirmed_frame.is_file() else pd.DataFrame()
        data = json.loads(sweep.data.read_text(encoding="utf-8"))
        names, statistics = tuple(map(str, data["class_names"])), _statistics(data)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{sweep.root}: has no results yet; let the sweep finish, or resume it") from error
    kept = trials[[sweep.trial(str(key)).best.is_file() for key in trials["trial"]]]
    key = _best(kept, confirmed, spec) if trial == BEST else _named(trials, trial, sweep)
    if key not in set(kept["trial"]):
        raise InputError(f"{sweep.root}: the weights of trial {key or trial} were not kept; accepted: best, or a trial "
                         f"such as {', '.join(kept['trial'].head(3))}")  # fmt: skip
    config = json.loads(kept.set_index("trial").loc[key, "config"])
    student = spec.student_of(config)
    best, normalize = sweep.trial(key).best, spec.dataset.normalize
    return Graduate(student.model, float(config["width"]), student.options, best, names, normalize, *statistics)


def _statistics(described: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    mean, std = (tuple(map(float, described.get(name) or ())) for name in ("mean", "std"))
    return mean, std


def _best(kept: Any, confirmed: Any, spec: SweepSpec) -> str:
    """Return the best trial with weights: by its mean over fresh seeds if some are confirmed, else by the search."""
    goal = spec.goal
    tested = confirmed[confirmed["trial"].isin(kept["trial"])] if len(confirmed) else confirmed
    ranked = tested if len(tested) else kept[kept["state"] == "COMPLETE"]
    scores = {str(row["trial"]): goal.score(float(row[goal.column])) for row in ranked.to_dict("records")}
    return max((key for key in scores if math.isfinite(scores[key])), key=lambda key: scores[key], default="")


def _named(trials: Any, trial: str, sweep: SweepDir) -> str:
    keys = [str(key) for key in trials["trial"]]
    found = [key for key in keys if trial == key or (trial.isdecimal() and int(trial) == int(key.partition("-")[0]))]
    if len(found) != 1:
        examples = ", ".join(keys[:3])
        raise InputError(f"{sweep.root}: no trial {trial!r}; accepted: best, or a trial such as {examples}")
    return found[0]
