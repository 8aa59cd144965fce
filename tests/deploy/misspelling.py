"""Misspells the keys of a document one by one."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any


def misspelt(document: Any, free: frozenset[str]) -> Iterator[tuple[str, Any]]:
    """Yield (path, copy) for every key at every depth, with that key misspelt in the copy.

    Args:
        document: Dicts, lists and scalars.
        free: Keys whose values are maps with keys of the user's own, which are left as they are.
    """
    for path in _paths(document, free, ()):
        changed = copy.deepcopy(document)
        parent = changed
        for step in path[:-1]:
            parent = parent[step]
        parent[f"{path[-1]}x"] = parent.pop(path[-1])
        yield ".".join(map(str, path)), changed


def _paths(node: Any, free: frozenset[str], path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    if isinstance(node, list):
        for index, value in enumerate(node):
            yield from _paths(value, free, (*path, index))
    elif isinstance(node, dict):
        for key, value in node.items():
            yield (*path, key)
            if key not in free:
                yield from _paths(value, free, (*path, key))
