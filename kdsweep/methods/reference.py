"""What `kdsweep methods` and the documentation say about each method, as data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
        `name`, `summary`, `details` (the rest of its docstring, with its adapters), `formula`, `source`, `needs` (of
        the teacher, sorted), `params` (a list of `name`, `default`, `search`, as a sweep file writes it and None where
        the default is kept, and `meaning`) and `example` (the section `space` of a sweep file that searches it).

    Raises:
        UnknownNameError: With the nearest valid name.
    """
    cls = get(name)
    summary, _, details = cleandoc(cls.__doc__ or "").partition("\n")
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
        "summary": summary,
        "details": details.strip(),
        "formula": cls.formula,
        "source": cls.source,
        "needs": sorted(cls.teacher_needs({})),
        "params": params,
        "example": _example(name, {str(p["name"]): p["search"] for p in params if p["search"] is not None}),
    }


def needed(needs: Iterable[str]) -> str:
    """What a method needs of the teacher, in words; see `Method.needs`."""
    words = {"features": "every stage map", "attention": "where each stage map is active", "stage:-1": "last stage map"}
    return ", ".join(words.get(need, need.replace("stage:", "stage map ")) for need in needs) or "nothing"


def written(search: Any) -> str:
    """A distribution on one line, as a sweep file holds it: `{loguniform: [1, 16]}`."""
    if isinstance(search, Mapping):
        return "{" + ", ".join(f"{key}: {written(value)}" for key, value in search.items()) + "}"
    if isinstance(search, list | tuple):
        return "[" + ", ".join(map(written, search)) + "]"
    if isinstance(search, bool):
        return str(search).lower()
    return f"{search:g}" if isinstance(search, float) else str(search)


def _example(name: str, searched: Mapping[str, Any]) -> str:
    """A search of a method beside the plain student, its default ranges spelled out."""
    if name == "none":
        return "space:\n  method: [none]"
    lines = ["space:", f"  method: [{name}, none]", "  alpha: {uniform: [0.05, 0.95]}"]
    lines += [f"  {name}:"] * bool(searched)
    lines += [f"    {key}: {written(search)}" for key, search in searched.items()]
    return "\n".join(lines)
