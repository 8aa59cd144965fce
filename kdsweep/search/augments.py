"""Lists of transforms in the search space: which one a trial draws, and the numbers inside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any, NamedTuple

from kdsweep import distributions
from kdsweep.distributions import Choice, Constant, Distribution
from kdsweep.tasks.image.transforms import TRANSFORMS
from kdsweep.tasks.image.transforms.written import NAMED, faults_of, items_of, text_of, with_values

Fault = tuple[tuple[str | int, ...], str]
MOST_SETS = 10_000


@dataclass(frozen=True)
class Augments(Choice):
    """One of several lists of transforms.

    Attributes:
        values: The texts of the lists.
        searched: The distributions of the parameters that a list leaves open, by text and `transform.parameter`.
    """

    searched: Mapping[str, Mapping[str, Distribution]] = field(default_factory=dict, hash=False)

    @property
    def parameters(self) -> dict[str, Distribution]:
        """The distributions of all lists."""
        return {name: found for own in self.searched.values() for name, found in own.items()}

    def written(self) -> Any:
        return {self.name: [self._written(text) for text in self.values]}

    def _written(self, text: Any) -> Any:
        searched = self.searched.get(text, {})
        if text in NAMED and not searched:
            return text
        found = []
        for name, params, _ in items_of(text):
            own = {key.partition(".")[2]: d.written() for key, d in searched.items() if key.startswith(f"{name}.")}
            found.append({name: params | own} if params or own else name)
        return found


class ViewSets(NamedTuple):
    """The sets of views that the trials of a space can ask for.

    Attributes:
        texts: The lists of transforms that at least two trials may share.
        open: Parameters drawn from a real-valued range: each trial that draws one has views of its own.
    """

    texts: tuple[str, ...]
    open: tuple[str, ...]


def view_sets(drawn: Distribution | None, alone: str) -> ViewSets:
    """Return the view sets of a space.

    Args:
        drawn: The distribution of `space.augment`; None if it is not searched.
        alone: The text of `dataset.augment`, which applies then.
    """
    if drawn is None:
        return ViewSets((alone,), ())
    searched = drawn.searched if isinstance(drawn, Augments) else {}
    texts: dict[str, None] = {}
    wide: dict[str, None] = {}
    for text in map(str, drawn.every()):
        own = searched.get(text, {})
        endless = [name for name, found in own.items() if not found.finite and found.size > 1]
        if endless or math.prod(found.size for found in own.values()) > MOST_SETS:
            wide |= dict.fromkeys(endless or own)
            continue
        for values in product(*(found.every() if found.finite else found.ends()[:1] for found in own.values())):
            texts[with_values(text, dict(zip(own, values, strict=True)))] = None
    return ViewSets(tuple(texts), tuple(wide))


def parse_augments(written: object, faults: list[Fault]) -> Distribution:
    """Parse `space.augment`: one list, or a choice of lists, each of which may leave numbers open.

    Args:
        written: A name or text, `{choice: [...]}` or the list of a choice.
        faults: Receives every fault, with its path below `augment`.
    """
    path: tuple[str | int, ...] = ()
    if isinstance(written, Mapping) and list(written) == ["choice"]:
        written, path = written["choice"], ("choice",)
    options = [written] if isinstance(written, str) else written
    if not isinstance(options, list | tuple) or not options:
        faults.append(
            (path, f"found {written!r}; accepted: a choice of lists, as in {{choice: [none, [crop, flip, mixup]]}}")
        )
        return Constant("none")
    texts: list[str] = []
    searched: dict[str, dict[str, Distribution]] = {}
    for place, option in enumerate(options):
        where = path if isinstance(written, str) else (*path, place)
        plain, own = _separated(option, where, faults)
        found = [((*where, *inner), message) for inner, message in faults_of(plain)]
        faults += found
        if found:
            continue
        text = text_of(plain)
        if text in texts:
            faults.append((where, f"{text} is listed twice; accepted: each list once"))
        for name, values in own.items():
            others = [one[name] for one in searched.values() if name in one]
            if others and others[0] != values:
                message = f"{name} has two distributions; accepted: the same in every list that leaves it open"
                faults.append((where, message))
        texts.append(text)
        searched[text] = own
    if faults or not texts:
        return Constant("none")
    if len(texts) == 1 and not searched[texts[0]]:
        return Constant(texts[0])
    return Augments(tuple(texts), {text: own for text, own in searched.items() if own})


def _separated(
    option: object, where: tuple[str | int, ...], faults: list[Fault]
) -> tuple[object, dict[str, Distribution]]:
    """Split a list into what is fixed and the distributions of what it leaves open."""
    if not isinstance(option, list | tuple):
        return option, {}
    plain: list[object] = []
    own: dict[str, Distribution] = {}
    for place, item in enumerate(option):
        params = next(iter(item.values())) if isinstance(item, Mapping) and len(item) == 1 else None
        name = next(iter(item)) if isinstance(item, Mapping) and item else ""
        if not isinstance(params, Mapping) or name not in TRANSFORMS:
            plain.append(item)  # its faults are found later
            continue
        open_ones = {key: value for key, value in params.items() if isinstance(value, Mapping | list | tuple)}
        plain.append({name: {key: value for key, value in params.items() if key not in open_ones}})
        for key, value in open_ones.items():
            at = (*where, place, name, key)
            own |= {f"{name}.{key}": found for found in _open(name, key, value, at, faults)}
    return plain, own


def _open(
    name: str, key: str, written: object, path: tuple[str | int, ...], faults: list[Fault]
) -> Iterator[Distribution]:
    """Yield the distribution of a parameter if it has no fault."""
    declared = TRANSFORMS[name].params()
    if key not in declared:
        faults.extend((path, message) for _, message in faults_of([{name: {key: 0}}]))
        return
    try:
        found = distributions.parse(written)
    except ValueError as error:
        faults.append((path, str(error)))
        return
    valid = declared[key].valid
    whole = isinstance(valid, distributions.Range) and valid.integer
    if whole and isinstance(found, distributions.Range) and not found.integer:
        faults.append((path, f"found {found.written()}; accepted: a choice, randint or lograndint"))
        return
    outside = [fault for value in found.ends() if (fault := valid.fault(value))]
    if outside:
        faults.append((path, outside[0]))
    else:
        yield found
