"""What `kdsweep methods` and the documentation say about each method, as data."""

from __future__ import annotations

from inspect import cleandoc
from typing import Any

from kdsweep.methods import get
from kdsweep.methods.base import METHODS


def table() -> list[dict[str, Any]]:
    """`describe` of every registered method, by name."""
    return [describe(name) for name in METHODS]


def describe(name: str) -> dict[str, Any]:
    """What a method is.

    Args:
        name: A registered name or `package.module:Class`.

    Returns:
        `name`, `summary`, `formula`, `source`, `needs` (of the teacher, sorted) and `params`: a list of
        `name`, `default`, `search` (as a sweep file writes it, None where the default is kept) and `meaning`.

    Raises:
        UnknownNameError: With the nearest valid name.
    """
    cls = get(name)
    params = [
        {
            "name": key,
            "default": param.default,
            "search": param.search.written() if param.search is not None else None,
            "meaning": param.meaning,
        }
        for key, param in cls.params().items()
    ]
    return {
        "name": name,
        "summary": cleandoc(cls.__doc__ or "").partition("\n")[0],
        "formula": cls.formula,
        "source": cls.source,
        "needs": sorted(cls.teacher_needs({})),
        "params": params,
    }
