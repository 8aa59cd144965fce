"""Lists of transforms, as sweep files write them, and the text that names one in results and caches.

A list `[crop, {mixup: {alpha: 0.2}}]` has the text `crop+mixup(alpha=0.2)`. Parameters at their defaults are left out,
so that equal lists have equal texts; `none`, `flip` and `crop_flip` are the names of the lists of version 0.1.0.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from kdsweep.errors import InputError, did_you_mean
from kdsweep.tasks.image.transforms.base import TRANSFORMS, Mixer, Transform

NAMED = {"none": (), "flip": ("flip",), "crop_flip": ("crop", "flip")}
_ITEM = re.compile(r"(\w+)(?:\(([^()]*)\))?")
Path = tuple[str | int, ...]
Item = tuple[str, dict[str, Any], Path]  # name, parameters and the path of the name in what was written


def text_of(written: object) -> str:
    """Return the text of a list, a text or a name.

    Raises:
        InputError: If it is not valid; names the first fault.
    """
    for path, message in faults_of(written):
        where = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
        raise InputError(f"augment{where}: {message}")
    return named_text([(name, _changed(name, params)) for name, params, _ in items_of(written)])


def named_text(items: list[tuple[str, dict[str, Any]]]) -> str:
    """Return the text of transforms with their parameters."""
    if not any(params for _, params in items):
        for name, names in NAMED.items():
            if names == tuple(item for item, _ in items):
                return name
    return "+".join(name + (f"({', '.join(map(_pair, params.items()))})" if params else "") for name, params in items)


def _pair(param: tuple[str, Any]) -> str:
    """Return `key=value`; numbers have 12 digits, so that 0.2 + 0.4 and 0.6 are the same view."""
    key, value = param
    return f"{key}={json.dumps(float(f'{value:.12g}') if isinstance(value, float) else value)}"


def transforms_of(text: str) -> list[Transform]:
    """Create the transforms of a text."""
    return [TRANSFORMS.create(name, **params) for name, params, _ in items_of(text)]


def mixers_of(text: str) -> list[str]:
    """Return the names of the transforms in a text that mix labels."""
    return [name for name, _, _ in items_of(text) if issubclass(TRANSFORMS.find(name), Mixer)]


def is_parameter(name: str) -> bool:
    """Whether `name` is `transform.parameter`, such as `mixup.alpha`."""
    transform, _, key = name.partition(".")
    return transform in TRANSFORMS and key in TRANSFORMS[transform].params()


def with_values(text: str, values: Mapping[str, Any]) -> str:
    """Return the text with other values of parameters.

    Args:
        text: The text of a valid list.
        values: Values such as `{"mixup.alpha": 0.3}`; those of other transforms are ignored.
    """
    items = []
    for name, params, _ in items_of(text):
        own = {key.removeprefix(f"{name}."): value for key, value in values.items() if key.startswith(f"{name}.")}
        items.append((name, _changed(name, params | own)))
    return named_text(items)


def faults_of(written: object) -> Iterator[tuple[Path, str]]:
    """Yield every fault of a list, a text or a name, as (path in it, message)."""
    try:
        items = items_of(written)
    except _WrittenError as error:
        yield error.path, error.message
        return
    listed = written if isinstance(written, list | tuple) else ()
    if len(listed) > 1 and "none" in listed:
        yield (
            (listed.index("none"),),
            "found none beside transforms; accepted: none alone, or the transforms without it",
        )
    seen: list[str] = []
    stage = -1
    for name, params, path in items:
        if name not in TRANSFORMS:
            yield path, f"unknown transform {name!r}; {did_you_mean(name, dict.fromkeys((*TRANSFORMS, *NAMED)))}"
            continue
        cls = TRANSFORMS[name]
        declared = cls.params()
        for key, value in params.items():
            within = (*path, name, key)
            if key not in declared:
                known = did_you_mean(key, declared) if declared else "it has none"
                yield within, f"unknown parameter {key!r} of {name}; {known}"
            elif fault := declared[key].valid.fault(value):
                yield within, fault
        if name in seen:
            yield path, f"{name} is listed twice; accepted: each transform once"
        elif cls.stage < stage:
            yield path, f"{name} comes too late; accepted: before {_after(cls.stage, seen)}"
        seen.append(name)
        stage = max(stage, cls.stage)
    yield from _conflicts(items)


def items_of(written: object) -> list[Item]:
    """Split what was written into names and parameters, without checking these.

    Raises:
        InputError: If it has another form.
    """
    if isinstance(written, str):
        return _of_text(written, ())
    if not isinstance(written, list | tuple):
        raise _WrittenError((), f"found {written!r}; accepted: a list of transforms, or one of {', '.join(NAMED)}")
    found: list[Item] = []
    for place, one in enumerate(written):
        if isinstance(one, str):
            found += _of_text(one, (place,))
        elif isinstance(one, Mapping) and len(one) == 1:
            ((name, params),) = one.items()
            if not isinstance(params, Mapping):
                raise _WrittenError(
                    (place, name), f"found {params!r}; accepted: parameters, as in {{mixup: {{alpha: 0.2}}}}"
                )
            found.append((str(name), dict(params), (place,)))
        else:
            raise _WrittenError((place,), f"found {one!r}; accepted: a name, or {{NAME: {{PARAMETER: VALUE}}}}")
    return found


class _WrittenError(InputError):
    """What was written has no form of a list of transforms."""

    def __init__(self, path: Path, message: str):
        super().__init__(message)
        self.path = path
        self.message = message


def _of_text(text: str, path: Path) -> list[Item]:
    if text in NAMED:
        return [(name, {}, path) for name in NAMED[text]]
    items: list[Item] = []
    for part in text.split("+"):
        match = _ITEM.fullmatch(part.strip())
        if match is None:
            raise _WrittenError(
                path, f"found {text!r}; accepted: names joined by '+', as in crop+flip+mixup(alpha=0.2)"
            )
        params: dict[str, Any] = {}
        for pair in filter(None, map(str.strip, (match[2] or "").split(","))):
            key, _, value = pair.partition("=")
            try:
                params[key.strip()] = json.loads(value)
            except ValueError:
                raise _WrittenError(path, f"found {pair!r} in {text!r}; accepted: PARAMETER=NUMBER") from None
        items.append((match[1], params, path))
    return items


def _changed(name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that differ from their defaults, in the order declared."""
    declared = TRANSFORMS[name].params()
    return {key: params[key] for key, param in declared.items() if key in params and params[key] != param.default}


def _after(stage: int, seen: list[str]) -> str:
    return next(name for name in seen if name in TRANSFORMS and TRANSFORMS[name].stage > stage)


def _conflicts(items: list[Item]) -> Iterator[tuple[Path, str]]:
    """Yield values of a transform that contradict each other."""
    for name, params, path in items:
        if name in TRANSFORMS:
            defaults = {key: param.default for key, param in TRANSFORMS[name].params().items()}
            for key, message in TRANSFORMS[name].faults(defaults | params):
                yield (*path, name, key), message
