"""What the search spent on distilled and on plain students, in words."""

from __future__ import annotations

import pandas as pd

from kdsweep.search.baseline import PLAIN


def efforts(spent: pd.DataFrame, confirmed: pd.DataFrame) -> list[str]:
    """Say how much the search spent on each confirmed method and on plain students of the same width.

    Args:
        spent: The frame of `Results.effort`.
        confirmed: The frame of confirmed trials.
    """
    rows = {(row["width"], row["method"]): row for row in spent.to_dict("records")}
    ordered = confirmed.sort_values(["width", "method"])
    students = dict.fromkeys((row.width, row.method) for row in ordered.itertuples() if row.method != PLAIN)
    nothing = {"trials": 0, "complete": 0, "epochs": 0}

    def told(name: str, width: float, method: str) -> str:
        row = rows.get((width, method), nothing)
        return f"{name} {row['trials']} trials, {row['complete']} of them to the end, {row['epochs']} epochs"

    return [
        f"Search at width {width:g}: {told(method, width, method)}; {told('plain', width, PLAIN)}."
        for width, method in students
    ]
