"""Mappings from YAML or from Python that remember where every key is."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from kdsweep.errors import InputError, SpecError
from kdsweep.words import kind_of

Keys = tuple[str | int, ...]
MAX_BYTES = 1_000_000
OVERRIDES = "a dict of values by dotted path, such as {'search.trials': 8}"
TOO_LARGE = "found a whole number above 1e308; accepted: numbers that fit a float"


class Document:
    """A mapping as plain Python values: read from YAML 1.2, or given as a dict.

    Args:
        given: The file, or the mapping, which is copied.

    Raises:
        SpecError: If the file is missing or unreadable, is not a mapping, repeats a key, or contains a tag or an alias;
            or if the mapping contains anything but plain values.
    """

    def __init__(self, given: Path | Mapping[str, Any]):
        self.source = "" if isinstance(given, Mapping) else str(given)
        self._lines: dict[Keys, int] = {}  # in a mapping from Python: the position of the key
        self._overridden: set[Keys] = set()
        self.values: dict[str, Any] = self._copied(given, ()) if isinstance(given, Mapping) else self._read(given)

    def override(self, dotted: str, value: Any) -> None:
        """Set the value at a dotted path, creating missing mappings on the way; None removes a key that is there.

        Raises:
            SpecError: If it is no such path, or goes through a value that is not a mapping.
        """
        if not isinstance(dotted, str):
            raise SpecError([f"overrides: found the key {dotted!r}; accepted: a dotted path such as search.trials"])
        keys, shown = dotted.split("."), self._option(dotted)
        if not all(keys):
            raise SpecError([f"{shown}: accepted: a dotted path such as search.trials"])
        inner = self.values
        for key in keys[:-1]:
            if inner.get(key) is None:
                inner[key] = {}
            inner = inner[key]
            if not isinstance(inner, dict):
                raise SpecError([f"{shown}: {key} is {inner!r}; accepted: a path whose keys all hold mappings"])
        if value is None and keys[-1] in inner:
            del inner[keys[-1]]
        else:
            inner[keys[-1]] = self._copied(value, tuple(keys))
        self._overridden.add(tuple(keys))

    def fault(self, keys: Keys, message: str) -> str:
        """Return `FILE:LINE: PATH: message` as one line; `PATH: message` for a mapping from Python."""
        path = ".".join(str(key) for key in keys)
        shown = f"{path}: {message}" if path else message
        if not self.source or self._is_overridden(keys):
            return self._option(shown)
        return f"{self.source}:{self._line(keys)}: {shown}"

    def faults(self, found: Iterable[tuple[Keys, str]]) -> list[str]:
        """Return each fault once as one line, in the order of the file; those of `--set` options come last."""
        ordered = sorted(found, key=lambda fault: (self._is_overridden(fault[0]), self._line(fault[0])))
        return list(dict.fromkeys(self.fault(keys, message) for keys, message in ordered))

    def _option(self, shown: str) -> str:
        return f"--set {shown}" if self.source else shown

    def _is_overridden(self, keys: Keys) -> bool:
        """Whether an override set the value, something within it, or all that there is of its section."""
        own = keys[:1] not in self._lines
        return any(
            keys[: len(path)] == path or path[: len(keys)] == keys or (own and path[:1] == keys[:1])
            for path in self._overridden
            if keys
        )

    def _line(self, keys: Keys) -> int:
        """Return the line of the longest part of a path that the file contains."""
        return next((self._lines[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in self._lines), 1)

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            with path.open("rb") as file:  # a device has no size
                content = file.read(MAX_BYTES + 1)
            if len(content) > MAX_BYTES:
                raise SpecError([f"{path}:1: larger than {MAX_BYTES} bytes; accepted: a sweep file"])
            text = content.decode("utf-8")
        except FileNotFoundError:
            raise SpecError([f"{path}: no such file; accepted: a sweep file in YAML"]) from None
        except IsADirectoryError:
            raise SpecError([f"{path}: is a directory; accepted: a sweep file in YAML"]) from None
        except OSError as error:
            raise SpecError([f"{path}: cannot be read: {error.strerror}"]) from error
        except UnicodeDecodeError as error:
            raise SpecError([f"{path}:1: not UTF-8 text: {error.reason}; accepted: a sweep file in YAML"]) from error
        loaded = _parse(text, self.source)
        if not isinstance(loaded, CommentedMap):
            found = "nothing" if loaded is None else type(loaded).__name__
            raise SpecError([f"{path}:1: found {found}; accepted: a mapping: dataset, teacher, student, space, ..."])
        plain: dict[str, Any] = self._plain(loaded, ())
        return plain

    def _copied(self, given: Any, keys: Keys) -> Any:
        """Return a copy of a value from Python, without tuples, paths and NumPy's types, none of which YAML can hold.

        Raises:
            SpecError: With every other value that YAML cannot hold.
        """
        found: list[tuple[Keys, str]] = []
        try:
            plain = self._of_python(given, keys, found)
        except RecursionError:
            found.append((keys, "found a value that contains itself; accepted: plain values"))
        if found:
            raise SpecError([self.fault(at, message) for at, message in found])
        return plain

    def _of_python(self, value: Any, keys: Keys, found: list[tuple[Keys, str]]) -> Any:
        if not self.source:
            self._lines[keys] = len(self._lines)
        if isinstance(value, Mapping):
            found += [
                ((*keys, str(key)), f"found key {key!r}; accepted: text") for key in value if not isinstance(key, str)
            ]
            return {str(key): self._of_python(inner, (*keys, str(key)), found) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self._of_python(inner, (*keys, index), found) for index, inner in enumerate(value)]
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if isinstance(value, np.ndarray | np.generic):
            return self._of_python(value.tolist(), keys, found)
        if fault := _scalar_fault(value, "None, bool, numbers, text, lists and dicts"):
            found.append((keys, fault))
        return _scalar(value)

    def _plain(self, value: Any, keys: Keys) -> Any:
        if isinstance(value, CommentedMap):
            plain = {}
            for key, inner in value.items():
                here = (*keys, str(key))
                self._lines[here] = value.lc.key(key)[0] + 1
                if not isinstance(key, str):
                    raise SpecError([self.fault(here, f"found key {key!r}; accepted: text")])
                plain[key] = self._plain(inner, here)
            return plain
        if isinstance(value, CommentedSeq):
            for index in range(len(value)):
                self._lines[(*keys, index)] = value.lc.item(index)[0] + 1
            return [self._plain(inner, (*keys, index)) for index, inner in enumerate(value)]
        if fault := _scalar_fault(value, "plain YAML values"):
            raise SpecError([self.fault(keys, fault)])
        return _scalar(value)


def need_overrides(given: object) -> None:
    """Check that overrides from Python are a mapping, or None.

    Raises:
        SpecError: If they are something else.
    """
    if given is not None and not isinstance(given, Mapping):
        raise SpecError([f"overrides: found {kind_of(given)}; accepted: {OVERRIDES}"])


def parse_value(text: str, option: str) -> Any:
    """Parse the value of a `--set` option as YAML.

    Raises:
        SpecError: If it is not valid YAML.
    """
    try:
        return _bare(_parse(text, f"--set {option}"), option)
    except SpecError as error:  # the value is on one line, so its number says nothing
        here = f"--set {option}"
        raise SpecError([fault.replace(f"{here}:1: ", f"{here}: ", 1) for fault in error.faults]) from None


def parsed_overrides(options: Iterable[str]) -> dict[str, Any]:
    """Parse `--set` options of the form KEY=VALUE.

    Raises:
        InputError: If one has another form, or its value is not valid YAML.
    """
    values: dict[str, Any] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise InputError(f"--set {option}: no '='; accepted: KEY=VALUE, such as search.trials=8")
        values[key.strip()] = parse_value(value, key)
    return values


def dump(values: Mapping[str, Any], path: Path, header: str) -> None:
    """Write a mapping as YAML below a comment line."""
    yaml = YAML()
    yaml.default_flow_style = None
    yaml.width = 110
    with path.open("w", encoding="utf-8") as file:
        file.write(f"# {header}\n")
        yaml.dump(dict(values), file)


def _parse(text: str, source: str) -> Any:
    yaml = YAML(typ="rt")
    try:
        for event in yaml.parse(text):
            refused = "an alias" if type(event).__name__ == "AliasEvent" else ""
            tag = getattr(event, "tag", None)
            if tag is not None and str(tag) not in ("", "None"):
                refused = f"the tag {tag}"
            if refused:
                line = event.start_mark.line + 1
                raise SpecError([f"{source}:{line}: found {refused}; accepted: plain YAML values"])
        return YAML(typ="rt").load(text)
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problem = str(error.problem).split("with value")[0].removeprefix("found ").strip()
        raise SpecError([f"{source}:{line}: {problem}; accepted: each key once"]) from error
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise SpecError([f"{source}:{line}: not readable as YAML: {error.problem or error.context}"]) from error
    except (YAMLError, ValueError, RecursionError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SpecError([f"{source}:1: not readable as YAML: {first}"]) from error


def _scalar_fault(value: Any, accepted: str) -> str:
    """Return why a value is not a scalar that YAML can hold; empty if it is one."""
    if _is_too_large(value):
        return TOO_LARGE
    if value is None or isinstance(value, bool | int | float | str):
        return ""
    return f"found {type(value).__name__} {value}; accepted: {accepted}"


def _scalar(value: Any) -> Any:
    """Return a number or text without its subclass."""
    if isinstance(value, bool) or value is None:
        return value
    return next((kind(value) for kind in (int, float, str) if isinstance(value, kind)), str(value))


def _is_too_large(value: Any) -> bool:
    return isinstance(value, int) and abs(value) > sys.float_info.max


def _bare(value: Any, option: str) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _bare(inner, option) for key, inner in value.items()}
    if isinstance(value, list):
        return [_bare(inner, option) for inner in value]
    if _is_too_large(value):
        raise SpecError([f"--set {option}: {TOO_LARGE}"])
    return _scalar(value)
