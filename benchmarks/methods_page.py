"""Generates parts of docs/methods.md from the method classes and the results of benchmarks/methods.py."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from kdsweep.methods import reference

DOCS = Path(__file__).parents[1] / "docs"
PAGE, MEASURED = DOCS / "methods.md", DOCS / "data" / "methods.json"


def page(text: str, measured: dict[str, Any]) -> str:
    """Return the page with its generated parts replaced."""
    rows = reference.table()
    parts = {
        "overview": overview(rows),
        "measured": results(measured, [row["name"] for row in rows]),
        "methods": "\n\n".join(map(section, rows)),
    }
    for name, part in parts.items():
        marks = rf"(<!-- generated: {name} -->\n).*?(<!-- end -->)"
        text, count = re.subn(marks, lambda found, part=part: f"{found[1]}{part}\n{found[2]}", text, flags=re.DOTALL)
        assert count == 1, f"{PAGE}: found {count} parts named {name!r}; expected 1"
    return text


def overview(rows: list[dict[str, Any]]) -> str:
    """The table of all methods."""
    lines = [
        f"| [`{row['name']}`](#{row['name']}) | {row['summary']} | {reference.needed(row['needs'])} "
        f"| {'yes' if 'Adapters' in row['details'] else '–'} |"
        for row in rows
    ]
    return "\n".join(["| method | what it does | teacher outputs | adapters |", "|---|---|---|---|", *lines])


def section(row: dict[str, Any]) -> str:
    """The section of one method."""
    params = [
        f"| `{p['name']}` | {p['default']:g} | {_range(p['search'])} | {p['meaning']} |"
        for p in row["params"]
        if row["name"] != "none"
    ]
    table = ["", "| parameter | default | default range | meaning |", "|---|---|---|---|", *params] * bool(params)
    details = ["", row["details"]] * bool(row["details"])
    return "\n".join(
        [
            f"### {row['name']}",
            "",
            row["summary"],
            *details,
            "",
            f"- Term: {row['formula']}",
            f"- Source: {row['source']}",
            f"- Teacher outputs: {reference.needed(row['needs'])}",
            *table,
        ]
    )


def _range(search: Any) -> str:
    return f"`{reference.written(search)}`" if search is not None else "not searched"


def results(measured: dict[str, Any], names: list[str]) -> str:
    """The measured accuracies of the methods `names`, in words and as one table for each data set."""
    if not measured:
        return "Not measured yet. `python benchmarks/methods.py --data DIR` measures every method on two data sets."
    machine = measured["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    said = [
        f"Measured with `{measured['command']}`, {measured['minutes']:.0f} minutes on {machine['processor']} "
        f"({measured['workers']} processes of one thread each), {versions}, {measured['date']}.",
        measured["protocol"],
    ]
    known = {row["method"] for setting in measured["settings"] for row in setting["rows"]}
    new = [f"`{name}`" for name in names if name not in known]
    tables = [_table(setting) for setting in measured["settings"]]
    return "\n\n".join(said + tables + [f"Not measured yet: {', '.join(new)}."] * bool(new))


def _table(setting: dict[str, Any]) -> str:
    lines = [
        f"{setting['title']}: {setting['about']} Teacher {setting['teacher_accuracy']:.2%}; always guessing "
        f"the most frequent class scores {setting['trivial']:.2%}.",
        "",
        "| method | alpha | test accuracy | gain over `none` | CPU seconds per epoch |",
        "|---|---|---|---|---|",
    ]
    for row in sorted(setting["rows"], key=lambda row: (row["method"] != "none", -row.get("mean", 0))):
        if "skipped" in row:
            lines.append(f"| `{row['method']}` | | not run: {row['skipped']} | | |")
            continue
        gain = "" if row["method"] == "none" else f"{100 * row['gain']:+.2f} ± {100 * row['gain_std']:.2f}"
        alpha = "" if row["method"] == "none" else f"{row['alpha']:g}"
        lines.append(
            f"| `{row['method']}` | {alpha} | {row['mean']:.2%} ± {100 * row['std']:.2f} | {gain} "
            f"| {row['epoch_seconds']:.2f} |"
        )
    return "\n".join(lines)


def measurements() -> dict[str, Any]:
    """The results of benchmarks/methods.py; empty if it was not run yet."""
    return dict(json.loads(MEASURED.read_text())) if MEASURED.is_file() else {}


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(), measurements()))
