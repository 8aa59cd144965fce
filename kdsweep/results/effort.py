"""What the search spent on distilled and on plain students, in words."""

from __future__ import annotations

from typing import Any

import pandas as pd

from kdsweep.results.sizes import columns_of, size_key, size_text
from kdsweep.search.baseline import PLAIN
from kdsweep.words import count_of


def efforts(spent: pd.DataFrame, confirmed: pd.DataFrame) -> list[str]:
    """Say how much the search spent on each confirmed method and on plain students of the same width.

    Args:
        spent: The frame of `Results.effort`.
        confirmed: The frame of confirmed trials.
    """
    rows = {(*size_key(row), row["method"]): row for row in spent.to_dict("records")}
    ordered = confirmed.sort_values([*columns_of(confirmed), "method"])
    students = {(size_key(row), row["method"]): row for row in ordered.to_dict("records") if row["method"] != PLAIN}
    nothing = {"trials": 0, "complete": 0, "epochs": 0}

    def told(name: str, size: tuple[Any, ...], method: str) -> str:
        row = rows.get((*size, method), nothing)
        trials, epochs = count_of(row["trials"], "trial"), count_of(row["epochs"], "epoch")
        return f"{name} {trials}, {row['complete']} of them to the end, {epochs}"

    return [
        f"Search at {size_text(row)}: {told(method, size, method)}; {told('plain', size, PLAIN)}."
        for (size, method), row in students.items()
    ]
