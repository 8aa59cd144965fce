"""What a new sweep takes from earlier ones (`search.warm_start`), recorded in its directory when its search begins."""

from __future__ import annotations

import json
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from kdsweep.config.spec import SweepSpec
from kdsweep.distributions import Config
from kdsweep.results.frames import Results
from kdsweep.search.baseline import is_plain, size_of
from kdsweep.search.faults import point_faults
from kdsweep.search.memory import BEST
from kdsweep.search.space import SearchSpace
from kdsweep.storage.files import read_json, write_json
from kdsweep.storage.paths import SweepDir
from kdsweep.words import count_of

LATEST = 250  # trials of each sweep that the sampler learns from, besides the best
# Settings that do not change what a training run computes.
_DATASET_PLACE: dict[str, Any] = {
    "root": True, "download": True, "stream": True, "skip_unreadable": True, "unlabelled": {"root"},
}  # fmt: skip
_TRAIN_FREE = {"epochs", "precision", "cohort", "capture"}


@dataclass(frozen=True)
class Taken:
    """What is taken from one earlier sweep.

    Attributes:
        path: Its directory.
        points: The best configuration of each width, and the best plain one, that the new space holds.
        trials: Its finished trials that the new space holds; empty if they are not comparable.
        differences: What makes its trials not comparable; empty if they are.
    """

    path: str
    points: list[Config]
    trials: list[dict[str, Any]]
    differences: list[str]

    def text(self) -> str:
        """Return it in one line, such as `12 points and 140 trials from runs/a`."""
        points = count_of(len(self.points), "point")
        if self.differences:
            return f"{points}, but no trials because of a different {' and '.join(self.differences)}, from {self.path}"
        return f"{points} and {count_of(len(self.trials), 'trial')} from {self.path}"


def taken(spec: SweepSpec, space: SearchSpace) -> list[Taken]:
    """Return what a sweep takes from each of its earlier sweeps.

    Args:
        spec: The new sweep. If it has a teacher, that teacher is compared, too.
        space: Its space, narrowed by the constraints.

    Raises:
        InputError: If an earlier sweep cannot be read.
    """
    return [_taken(spec, space, path) for path in spec.search.warm_start]


def record(spec: SweepSpec, space: SearchSpace) -> list[str]:
    """Record what is taken in the sweep's directory, once. A resumed sweep does not need the earlier ones.

    Returns:
        One line per earlier sweep; empty if nothing is recorded now.
    """
    sweep = spec.sweep_dir
    if not spec.search.warm_start or sweep.warm_start.is_file():
        return []
    found = taken(spec, space)
    known: list[Config] = []
    sources = []
    for one in found:
        points = [point for point in one.points if point not in known]
        known += points
        sources.append({"path": one.path, "points": points, "trials": one.trials, "differences": one.differences})
    write_json(sweep.warm_start, {"sources": sources})
    return [f"warm start: {one.text()}" for one in found]


def _taken(spec: SweepSpec, space: SearchSpace, path: str) -> Taken:
    earlier = Results(SweepDir.existing(path))
    differences = _differences(spec, earlier)
    rows = earlier.best(len(earlier.trials)).to_dict("records") if len(earlier.trials) else []
    configs: list[Config] = [json.loads(row["config"]) for row in rows]
    points: dict[tuple[Hashable, bool], Config] = {}
    trials = []
    for row, config in zip(rows, configs, strict=True):
        complete = row["state"] == "COMPLETE"
        if not point_faults(space, config) and (complete or not is_plain(config)):
            points.setdefault((size_of(space, config), is_plain(config)), config)
        if not differences and row["state"] in ("COMPLETE", "PRUNED") and space.holds(config):
            score = earlier.goal.score(float(row[earlier.goal.column]))
            found = {"config": config, "complete": complete, "epochs": int(row["epochs"]), "score": score}
            trials.append((int(row["number"]), found))
    latest = sorted(trials, key=lambda trial: -trial[0])[:LATEST]
    kept = dict([*trials[:BEST], *latest])
    return Taken(path, list(points.values()), [kept[number] for number in sorted(kept)], differences)


def _differences(spec: SweepSpec, earlier: Results) -> list[str]:
    """Return what makes the trials of an earlier sweep not comparable with those of a new one."""
    now, then = spec, earlier.spec
    data = [(one.dataset.model_dump(exclude=_DATASET_PLACE), one.seed) for one in (now, then)]
    teachers = [[one.of_teacher(name).teacher.model_dump(exclude={"cache_gb"}) for name in one.teacher_names]
                for one in (now, then)]  # fmt: skip
    known = [tuple(_teacher(one.sweep_dir.of_teacher(name)) for name in one.teacher_names) for one in (now,)]
    known.append(tuple(_teacher(earlier.sweep.of_teacher(name)) for name in then.teacher_names))
    digests = {digest for digest in known if all(digest)}
    free = _TRAIN_FREE | (now.search_space.shared.keys() & then.search_space.shared.keys())
    trains = [one.train.model_dump(exclude=free) for one in (now, then)]
    same = {
        "data set": data[0] == data[1],
        "teacher": teachers[0] == teachers[1] and (len(digests) == 1 or not all(known[0])),
        "student": now.student == then.student,
        "train section": trains[0] == trains[1],
    }
    return [name for name, equal in same.items() if not equal]


def _teacher(sweep: SweepDir) -> str:
    """Return the digest of a sweep's teacher and its data; empty before it is known."""
    return str(read_json(sweep.teacher_card)["digest"]) if sweep.teacher_card.is_file() else ""
