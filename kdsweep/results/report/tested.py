"""The sections on the test split: accuracy by class, disagreements of teacher and student, calibration."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import pandas as pd

from kdsweep.results.classification import most_confused
from kdsweep.results.predictions import (
    NAMES,
    STUDENT,
    TEACHER,
    class_names,
    disagreements,
    models_of,
    roles_in,
    why_missing,
)
from kdsweep.results.report.charts import predictions as charts
from kdsweep.results.report.charts.style import nothing
from kdsweep.results.report.found import Found
from kdsweep.results.report.section import Section
from kdsweep.tasks.metrics.likelihood import BINS

MOST_CONFUSIONS = 10
_TEXT = 400  # most characters of a text
_NAME = 60  # most characters of a class name in a caption


@dataclass(frozen=True)
class Confusion:
    """One kind of error: samples of a class with another answer.

    Attributes:
        label: Name of the class.
        answer: Name of the answer.
        counts: Number of samples by model, as text.
    """

    label: str
    answer: str
    counts: list[str]


@dataclass(frozen=True)
class Picture:
    """A test image or text that teacher and student classify differently.

    Attributes:
        source: The image as a data URI; or the text.
        kind: `pixels` for a small image, which is enlarged without smoothing; `photo` for another, or `words`.
        sample: Its position in the test split.
        label: Name of its class.
        answers: Name of the model, its answer, its confidence, and whether it is right; of teacher and student.
    """

    source: str
    kind: str
    sample: int
    label: str
    answers: list[tuple[str, str, str, bool]]

    @property
    def text(self) -> str:
        """The text alternative."""
        said = "; ".join(f"{model} {answer}, {confidence}" for model, answer, confidence, _ in self.answers)
        what = "text" if self.kind == "words" else "image"
        return f"test {what} {self.sample}, true class {self.label}: {said}"


def sections(found: Found, path: str, running: bool) -> list[Section]:
    """The sections on the test split; one with a reason if there are no predictions.

    Args:
        found: The results.
        path: The sweep's directory, as written in a command.
        running: Whether the sweep is running.
    """
    frame = found.predictions
    if frame.empty:
        missing = {"classes": nothing(why_missing(found, path, running))}
        return [Section("classes", "Accuracy by class", "", missing)]
    names = class_names(found.sweep, frame)
    confusions = {f"confusion-{role}": chart for role, chart in charts.confusions(found).items()}
    matrices = Section(
        "confusions", "Confusion matrices",
        "Rows are true classes, columns answers. Right answers are blue, errors orange-red; the darker, the larger the "
        "share of the class. Shades of errors are comparable between the matrices.",
        confusions, layout="trio", template="confusions.html.j2", rows=[_models(frame), *_confusions(frame, names)],
    )  # fmt: skip
    return [
        Section("classes", "Accuracy by class", _intro(found, frame), {"classes": charts.per_class(found)}),
        matrices,
        Section(
            "disagreements", "Where teacher and student disagree", _told(frame), template="strip.html.j2",
            rows=_pictures(frame, names),
        ),
        Section(
            "reliability", "Reliability",
            f"Accuracy against confidence on the test split, in {BINS} bins of equal width. On the dashed line a model "
            "is as accurate as it is confident, above it underconfident, below it overconfident. Larger markers have "
            "more samples.", {"reliability": charts.reliability(found)},
        ),
    ]  # fmt: skip


def _intro(found: Found, frame: pd.DataFrame) -> str:
    models = {model.role: model.trial for model in models_of(found)}
    roles = roles_in(frame)
    shown = [f"the {NAMES[role]} {models.get(role, '')}".rstrip() for role in roles]
    missing = [NAMES[role] for role in models if role not in roles]
    told = (
        f"Answers on the {len(frame):,} samples of the test split by {_listed(shown)}. Students have the weights that "
        "are exported, from the seed of the search. Nothing was chosen by these answers."
    )
    return told + (f" The weights of the {_listed(missing)} were not kept." if missing else "")


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _models(frame: pd.DataFrame) -> list[str]:
    return [NAMES[role] for role in roles_in(frame)]


def _confusions(frame: pd.DataFrame, names: list[str]) -> list[Confusion]:
    """The most frequent errors of the student, with the numbers of the other models."""
    counts = {role: charts.counts_of(frame, role, len(names)) for role in roles_in(frame)}
    return [
        Confusion(names[label], names[answer], [f"{counts[role][label, answer]:,}" for role in counts])
        for label, answer, _ in most_confused(counts[STUDENT], MOST_CONFUSIONS)
    ]


def _told(frame: pd.DataFrame) -> str:
    """How often teacher and student disagree, and who is right."""
    if TEACHER not in roles_in(frame):
        return "There are no predictions of the teacher."
    other = disagreements(frame)
    if other.empty:
        return f"Teacher and student agree on all {len(frame):,} test samples."
    student, teacher = (int(charts.right(other, role).sum()) for role in (STUDENT, TEACHER))
    told = (
        f"They disagree on {len(other):,} of {len(frame):,} test samples: the teacher is right on {teacher:,}, the "
        f"student on {student:,}, neither on {len(other) - teacher - student:,}."
    )
    pictured = int(other["image"].notna().sum())
    if not pictured:
        return f"{told} The samples cannot be shown as images."
    return (
        f"{told} Shown are the {pictured} with the largest difference of confidence: the true class, then both answers "
        "with their confidence; ✓ marks the right one."
    )


def _pictures(frame: pd.DataFrame, names: list[str]) -> list[Picture]:
    pictures = []
    shown = disagreements(frame)
    for row in shown[shown["image"].notna()].to_dict("records"):
        source, kind = _shown(bytes(row["image"]))
        answers = [
            (role, _short(names[row[f"{role}_class"]]), f"{row[f'{role}_confidence']:.0%}",
             row[f"{role}_class"] == row["label"])
            for role in (TEACHER, STUDENT)
        ]  # fmt: skip
        pictures.append(Picture(
            source, kind, int(row["sample"]),
            _short(names[row["label"]]), answers,
        ))  # fmt: skip
    return pictures


def _shown(content: bytes) -> tuple[str, str]:
    """What a page shows of a sample, and its kind."""
    for start, name, kind in ((b"\x89PNG", "png", "pixels"), (b"\xff\xd8", "jpeg", "photo")):
        if content.startswith(start):
            return f"data:image/{name};base64,{base64.b64encode(content).decode()}", kind
    text = content.decode(errors="replace")
    return (text if len(text) <= _TEXT else f"{text[: _TEXT - 1]}…"), "words"


def _short(name: str) -> str:
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"
