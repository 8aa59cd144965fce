"""Settings that cannot be combined with several objectives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kdsweep.config.spec import ConfirmSection, SweepSpec
from kdsweep.config.yaml import Keys
from kdsweep.errors import InputError
from kdsweep.params import Parts, named
from kdsweep.search.parsing import SpaceError
from kdsweep.search.samplers import SAMPLERS
from kdsweep.search.stopping import STOPPING_RULES

WITH_SEVERAL = "accepted with several objectives"


def several_faults(spec: SweepSpec) -> Iterator[tuple[Keys, str]]:
    """Yield settings that handle only one objective, as (path, message), if the sweep has several."""
    if len(spec.objectives) < 2:
        return
    yield from _part_faults(spec)
    if spec.search.balance != "none":
        found = f"found {spec.search.balance!r}, which compares values of one objective"
        yield ("search", "balance"), f"{found}; {WITH_SEVERAL}: none"
    if spec.search.warm_start:
        found = f"found {len(spec.search.warm_start)} directories, whose trials are ranked by one objective"
        yield ("search", "warm_start"), f"{found}; {WITH_SEVERAL}: []"
    if _is_pooled(spec):
        found = "found true, which compares values of one objective"
        yield ("scheduler", "name", "pooled"), f"{found}; {WITH_SEVERAL}: false; or group_by: []"
    if _groups_by_range(spec):
        found = "found 'width', drawn from a range, whose trend is fitted to one objective"
        yield ("scheduler", "group_by"), f"{found}; {WITH_SEVERAL}: [], or a finite width"
    yield from ((("confirm", key), message) for key, message in confirm_faults(spec, spec.confirm))


def confirm_faults(spec: SweepSpec, confirm: ConfirmSection) -> Iterator[tuple[str, str]]:
    """Yield settings of a confirmation that handle only one objective, as (key, message)."""
    if len(spec.objectives) > 1 and confirm.seeds == "auto":
        yield "seeds", f"found 'auto', which selects students by one objective; {WITH_SEVERAL}: a number"


def _part_faults(spec: SweepSpec) -> Iterator[tuple[Keys, str]]:
    chosen: list[tuple[Keys, Parts[Any], str | dict[str, Any]]] = [
        (("search", "sampler"), SAMPLERS, spec.search.sampler),
        (("scheduler", "name"), STOPPING_RULES, spec.scheduler.name),
    ]
    for keys, parts, written in chosen:
        try:
            handles = parts.find(named(written)[0]).several_objectives
        except InputError:
            continue  # reported as a fault of the part
        if not handles:
            able = ", ".join(name for name in parts if parts[name].several_objectives)
            message = f"found {named(written)[0]!r}, which handles one objective; {WITH_SEVERAL}: {able}"
            yield keys, f"{message}, or a class with several_objectives = True"


def _is_pooled(spec: SweepSpec) -> bool:
    name, own = named(spec.scheduler.name)
    return name in STOPPING_RULES and own.get("pooled") is True


def _groups_by_range(spec: SweepSpec) -> bool:
    if "width" not in spec.scheduler.group_by or named(spec.scheduler.name)[0] == "none":
        return False
    try:
        return not spec.search_space.finite_widths
    except SpaceError:
        return False  # reported as a fault of the space
