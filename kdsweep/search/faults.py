"""What is wrong with a search space, or with a configuration that should be in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kdsweep.distributions import Distribution
from kdsweep.errors import did_you_mean
from kdsweep.search.space import DECIDED_BY, PARTS, SearchSpace, takes
from kdsweep.search.students import Fault


def part_faults(space: SearchSpace) -> Iterator[Fault]:
    """Yield the faults of part settings, alone or combined. Paths begin with `space` or `train`."""
    for name in space.shared.keys() & DECIDED_BY.keys():
        if unused := space.unused(name):
            takers = [part for part in PARTS[DECIDED_BY[name][0]] if takes(part, name)]
            yield ("space", name), f"found {name} {unused}; accepted: with {', '.join(takers)}"
    if space.train is None:
        return
    for kind, parts in PARTS.items():
        decided = {name for name, (by, *_) in DECIDED_BY.items() if by == kind}
        settings = {name: d.ends() for name, d in space.in_order().items() if name in {*decided, "epochs"}}
        for part in space.part_names(kind):
            for config in space.extended({kind: part}, settings):
                train = space.train.with_searched(config)
                for name, message in train.part_faults(parts, getattr(train, kind), train.epochs):
                    message = message.replace("train.epochs", "space.epochs") if "epochs" in config else message
                    yield ("space" if name in space.shared else "train", name), message


def point_faults(space: SearchSpace, point: Mapping[str, Any]) -> list[Fault]:
    """Return the faults of a user-given configuration, which may be partial."""
    chosen = [str(point["method"])] if "method" in point else list(space.methods())
    if chosen[0] not in space.methods():
        return [(("method",), f"{chosen[0]!r} is not searched; accepted: {', '.join(space.methods())}")]
    known: dict[str, Distribution] = {"method": space.method}
    for method in chosen:
        known |= space.parameters(method)
    faults: list[Fault] = []
    for key, value in point.items():
        if key not in known:
            faults.append(((key,), f"{key!r} is not drawn for {chosen[0]}; {did_you_mean(key, known)}"))
        elif not space.applies(key, point):
            faults.append(((key,), f"{key!r} has no effect with the point's other values; leave it out"))
        elif not any(d.contains(value) for d in space.branches(key, known[key], point).values()):
            accepted = " or ".join(str(d.written()) for d in space.branches(key, known[key], point).values())
            faults.append(((key,), f"found {value!r}, outside the space; accepted: {accepted}"))
    return faults
