"""Changes to the settings of an existing sweep: those that leave its trials comparable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kdsweep import methods
from kdsweep.config.load import with_absolute_paths
from kdsweep.config.relations import MOST_TRIALS, space_faults, tracking_faults
from kdsweep.config.several import several_faults
from kdsweep.config.shapes import schema_faults
from kdsweep.config.spec import SweepSpec, differences, read_spec
from kdsweep.config.yaml import Document, Keys
from kdsweep.errors import SpecError, SweepDirError
from kdsweep.params import named
from kdsweep.registry import import_from, is_user_object
from kdsweep.search.parsing import SpaceError, parsed
from kdsweep.search.section import sampler_of
from kdsweep.storage.paths import SweepDir

# Trials that began before a change of these settings are comparable with those that begin after it. The data
# set may move, because its content is compared.
CHANGEABLE = (
    "search.trials", "search.max_hours", "search.max_epochs", "search.plain_share", "search.keep_weights", "space",
    "confirm.top", "confirm.seeds", "confirm.trainings", "confirm.margin", "resources", "dataset.root",
    "dataset.unlabelled.root", "dataset.download", "dataset.skip_unreadable", "teacher.cache_gb",
    "train.capture", "train.cohort", "tracking",
)  # fmt: skip


def changed_spec(sweep: SweepDir, overrides: Mapping[str, Any]) -> SweepSpec:
    """Return the spec of an existing sweep with some values changed.

    Args:
        sweep: The sweep's directory.
        overrides: Values by dotted path, such as `{"search.trials": 8}`; None removes a key, so that its default holds.

    Raises:
        SpecError: With one line per invalid value, or per setting that cannot change.
    """
    document, before = Document(sweep.spec), read_spec(sweep)
    for dotted, value in overrides.items():
        document.override(dotted, value)
    if isinstance(document.values.get("space"), dict):
        document.values["space"] = _drop_unused_sections(document.values["space"])
    try:
        spec = with_absolute_paths(SweepSpec.model_validate(document.values))
        changes = differences(before.model_dump(), spec.model_dump())
    except ValidationError as error:
        raise SpecError(document.faults(schema_faults(error, document.values))) from error
    changes = [change for change in changes if not (change.startswith("search.points:") and not spec.search.points)]
    faults = [
        f"--set {change}: {_refusal(change, before)}"
        for change in changes
        if not any(change.startswith((f"{key}:", f"{key}.")) for key in CHANGEABLE)
    ]
    if spec.tracking != before.tracking:
        faults += [f"--set {'.'.join(map(str, keys))}: {message}" for _, keys, message in tracking_faults(spec)]
    if not before.search.trials <= spec.search.trials <= MOST_TRIALS:
        accepted = f"from {before.search.trials}, the present total, to {MOST_TRIALS}"
        faults.append(f"--set search.trials: found {spec.search.trials}; accepted: {accepted}")
    faults += [f"--set confirm.{key}: {message}" for key, message in spec.confirm.faults()]
    if not faults and spec.space != before.space:
        import_from(str(Path.cwd()))
        if next(sampler_of(spec.search).listed(before.search_space), None) is not None:
            sampler = named(spec.search.sampler)[0]
            message = f"cannot change with sampler {sampler}, which lists its configurations at the start"
            raise SpecError([f"--set space: {message}; run a new sweep with another --name"])
        faults = document.faults(_space_faults(spec, before, overrides))
    faults = faults or document.faults(several_faults(spec))
    if faults:
        raise SpecError(faults)
    return spec


def changeable(before: SweepSpec, after: SweepSpec, names: Mapping[str, str]) -> dict[str, Any]:
    """Return the new values of the settings that may change and differ, by dotted path.

    Args:
        before: The spec of a sweep from Python objects.
        after: That of the same call, or of another one.
        names: What to call keys in the error, see `SpecError.renamed`.

    Raises:
        SweepDirError: If the specs differ in another setting.
    """
    there, here = before.comparable(), after.comparable()
    changed = {key: _at(here, key) for key in CHANGEABLE if _at(there, key) != _at(here, key)}
    replaced = _replaced_objects(before, after)
    said = (f"{role}{end}" for role in replaced for end in (":", ".model:", ".checkpoint:", "s."))
    known = (*said, *(f"{key}{end}" for key in CHANGEABLE for end in ":."))
    others = [one for one in differences(there, here) if not one.startswith(known)]
    if replaced or others:
        found = [*replaced.values(), *SpecError(others).renamed(names).faults]
        shown = "; ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
        advice = "choose another name, or repeat the call of that sweep to continue it"
        raise SweepDirError(f"{after.sweep_dir.root} contains a different sweep ({shown}); {advice}")
    return changed


def _replaced_objects(before: SweepSpec, after: SweepSpec) -> dict[str, str]:
    """Return what is said of a teacher or student that is another object than the sweep's, by argument."""
    there, here = before.given_objects, after.given_objects
    differing = [role.partition(".")[0].rstrip("s") for role in {**there, **here} if there.get(role) != here.get(role)]
    said = {
        "teacher": "teacher: another one than the sweep's, with other weights, layers or code",
        "student": "student: another one than the sweep's, with other layers or code",
    }
    return {role: text for role, text in said.items() if role in differing}


def _at(values: Mapping[str, Any], dotted: str) -> Any:
    for key in dotted.split("."):
        values = values[key] if values is not None else None  # an optional section
    return values


def _refusal(change: str, before: SweepSpec) -> str:
    """Return why a setting cannot change, and what to do instead."""
    if change.startswith("train.epochs:"):
        parts = before.search_space.part_names("schedule")
        spanning = [name for name in parts if name not in ("constant", "step")]
        why = f"schedule {spanning[0]} spans the budget in every trial" if spanning else "finished trials keep no state"
        advice = "run a new sweep with another --name and search.warm_start"
        return f"cannot change in an existing sweep, because {why}; {advice}"
    if change.startswith("search.points:"):
        return "cannot change in an existing sweep; accepted: [], which drops the points that were not tried yet"
    accepted = f"accepted: {', '.join(CHANGEABLE)}; or run a new sweep with another --name"
    return f"cannot change in an existing sweep, because its trials would not be comparable; {accepted}"


def _drop_unused_sections(space: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the sections of the user's own methods that are not searched any more."""
    try:
        method = parsed({"method": space.get("method")}).method
    except SpaceError:
        return dict(space)  # reported later
    used = {term for name in method.every() for term in methods.terms(str(name))}
    return {key: value for key, value in space.items() if not is_user_object(key) or key in used}


def _space_faults(spec: SweepSpec, before: SweepSpec, overrides: Mapping[str, Any]) -> Iterator[tuple[Keys, str]]:
    """Yield the faults of a changed space."""
    for key, section in (("student", "student"), ("epochs", "train.epochs")):
        if (key in spec.space) != (key in before.space):
            happened = (
                f"added to an existing sweep, which has {section}" if key in spec.space else "taken out of a sweep"
            )
            yield ("space", key), f"cannot be {happened}; run a new sweep with another --name"
            return
    found = list(space_faults(spec))
    yield from found
    if found:
        return
    space, drawn = spec.search_space, spec.search_space.keys()
    for dotted in overrides:
        key = dotted.removeprefix("space.")
        if key in space.shared and key not in drawn:
            own = [name for name in sorted(drawn) if name.endswith(f".{key}")]
            accepted = f"accepted: {', '.join(f'space.{name}' for name in own)}" if own else "leave it out"
            yield ("space", key), f"no method of the space draws it; {accepted}"
