"""Method descriptions for `kdsweep methods` and the documentation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from inspect import cleandoc
from typing import Any

from kdsweep.methods import get
from kdsweep.methods.base import METHODS


def table() -> list[dict[str, Any]]:
    """Describe every registered method, sorted by name."""
    return [describe(name) for name in METHODS]


def describe(name: str) -> dict[str, Any]:
    """Describe a method.

    Args:
        name: A registered name or `package.module:Class`.

    Returns:
        `name`, `summary` and `details` (the first line and the rest of its docstring), `formula`, `source`, `needs`
        (teacher outputs, sorted), `params` and `example` (the `space` section of a sweep file that searches the
        method). Each of `params` has `name`, `default`, `search` (in sweep-file syntax; None if not searched) and
        `meaning`.

    Raises:
        UnknownNameError: If there is no such method; the message suggests the closest name.
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
    """Spell out the teacher outputs that a method needs; see `Method.needs`."""
    words = {"features": "every stage map", "attention": "attention map of every stage", "stage:-1": "last stage map"}
    return ", ".join(words.get(need, need.replace("stage:", "stage map ")) for need in needs) or "none"


def written(search: Any) -> str:
    """Format a distribution in sweep-file syntax: `{loguniform: [1, 16]}`."""
    if isinstance(search, Mapping):
        return "{" + ", ".join(f"{key}: {written(value)}" for key, value in search.items()) + "}"
    if isinstance(search, list | tuple):
        return "[" + ", ".join(map(written, search)) + "]"
    if isinstance(search, bool):
        return str(search).lower()
    return f"{search:g}" if isinstance(search, float) else str(search)


def _example(name: str, searched: Mapping[str, Any]) -> str:
    """A `space` section that searches the method and the plain student over the default ranges."""
    if name == "none":
        return "space:\n  method: [none]"
    lines = ["space:", f"  method: [{name}, none]", "  alpha: {uniform: [0.05, 0.95]}"]
    lines += [f"  {name}:"] * bool(searched)
    lines += [f"    {key}: {written(search)}" for key, search in searched.items()]
    return "\n".join(lines)
