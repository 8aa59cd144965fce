"""The section of the report on several teachers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kdsweep.results.confirmed import verdict_of
from kdsweep.results.report.charts.style import named
from kdsweep.results.report.found import Found
from kdsweep.results.report.section import Section
from kdsweep.results.sizes import size_text
from kdsweep.results.taught import versus_text
from kdsweep.tasks.metrics import shown


@dataclass
class Row:
    """The best student of a teacher at a size, as text.

    Attributes:
        size: The size.
        teacher: The teacher or ensemble.
        student: Its trial and method.
        test: The objective on the test split.
        gain: The gain over the tuned plain student with its verdict.
        versus: The difference from the best teacher of the size with its verdict.
        agreement: How often the student agrees with its teacher.
        teacher_val: The teacher's or ensemble's own objective on the validation split.
        teacher_test: The teacher's own objective on the test split.
        parameters: The teacher's parameters.
        latency: Milliseconds of the teacher for one sample.
    """

    size: str
    teacher: str
    student: str
    test: str
    gain: str
    versus: str
    agreement: str
    teacher_val: str
    teacher_test: str
    parameters: str
    latency: str


def sections(found: Found) -> list[Section]:
    """The section on what each teacher gave; none with one teacher or before confirmation."""
    frame = found.taught
    if frame.empty:
        return []
    confirmed = found.confirmed.set_index("trial")
    rows = [_row(found, row, confirmed.loc[row["trial"]].to_dict()) for row in frame.to_dict("records")]
    intro = (
        "The best confirmed student of each teacher at each size, the best first. Gains over the tuned plain student "
        "and differences from the best teacher of the size are paired by seed; their p are corrected by Holm's method. "
        "The costs of an ensemble are those of all its teachers; it is measured on the validation split alone."
    )
    return [Section("taught", "What each teacher gave", intro, template="taught.html.j2", rows=rows)]


def _row(found: Found, row: Mapping[str, Any], judged: Mapping[str, Any]) -> Row:
    name, test = found.goal.name, found.goal.test_column
    tuned = verdict_of(judged, "kd_gain_tuned")
    latency = row["teacher_latency_ms"]
    return Row(
        size=size_text(row),
        teacher=str(row["teacher"]),
        student=f"{row['trial']} ({named(str(row['method']))})",
        test=shown(test, row[test]),
        gain=tuned.text(name) if tuned else "",
        versus=versus_text(row, name) or "the best",
        agreement=_share(row["test_agreement"]),
        teacher_val=shown(found.goal.column, row[f"teacher_{found.goal.column}"]),
        teacher_test=shown(test, row[f"teacher_{test}"]),
        parameters=f"{row['teacher_parameters']:,.0f}",
        latency="" if math.isnan(latency) else f"{latency:.3g}",
    )


def _share(value: float) -> str:
    return "" if math.isnan(value) else shown("accuracy", value)
