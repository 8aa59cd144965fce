"""Predictions on the test split: accuracy by class, confusion matrices, calibration."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from kdsweep.errors import InputError
from kdsweep.results.classification import calibration, confusion, most_confused, shares
from kdsweep.results.predictions import (
    NAMES,
    ROLES,
    STUDENT,
    TEACHER,
    TUNED_PLAIN,
    class_names,
    roles_in,
    why_missing,
)
from kdsweep.results.report.charts.style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    VERMILION,
    Chart,
    new_figure,
    nothing,
    numbers,
    text,
    tinted,
)
from kdsweep.results.report.found import Found
from kdsweep.tasks.metrics import shown
from kdsweep.tasks.metrics.likelihood import BINS

LABELLED = 20  # most classes that are named in a chart
MATRIX = 128  # most classes of a confusion matrix that is drawn
OPAQUE = 0.75  # opacity of the darkest cell, so that text on it can be read
_STYLES = {STUDENT: (BLUE, "circle"), TUNED_PLAIN: (ORANGE, "square-open"), TEACHER: (INK, "star")}
_NAME = 16  # most characters of a class name at an axis
_ROW = 26  # pixels per class


def per_class(found: Found) -> Chart:
    """Accuracy on the test split by class: the student beside its tuned plain student and the teacher."""
    frame = found.predictions
    if frame.empty:
        return nothing(_missing(found))
    names = class_names(found.sweep, frame)
    accuracies = {role: _by_class(frame, role, len(names)) for role in roles_in(frame)}
    own = accuracies[STUDENT]
    order = [int(place) for place in np.argsort(own, kind="stable") if not np.isnan(own[place])]
    labelled = len(names) <= LABELLED
    figure = new_figure(height=120 + _ROW * len(order) if labelled else 420)
    places = list(range(len(order)))
    for role in reversed(list(accuracies)):
        colour, marker = _STYLES[role]
        values = numbers(accuracies[role][order])
        figure.add_trace(go.Scatter(
            x=values if labelled else places, y=places if labelled else values, mode="markers", name=NAMES[role],
            marker={"color": colour, "symbol": marker, "size": 10 if labelled else 6,
                    "line": {"color": colour, "width": 2}},
            text=[text(names[place]) for place in order],
            hovertemplate=f"%{{text}}<br>{NAMES[role]} %{{{'x' if labelled else 'y'}:.2%}}<extra></extra>",
        ))  # fmt: skip
    figure.update_layout(legend={"traceorder": "reversed"})
    title = {"text": "accuracy on the test split"}
    if labelled:
        figure.update_xaxes(title=title, tickformat=".0%")
        labels = [text(_short(names[place])) for place in order]
        figure.update_yaxes(tickvals=places, ticktext=labels, range=[len(order) - 0.4, -0.6])
    else:
        figure.update_xaxes(
            title={"text": "classes, by the accuracy of the student"}, showticklabels=False, ticks="", showgrid=False
        )
        figure.update_yaxes(title=title, tickformat=".0%")
    return Chart(figure, _told_classes(accuracies, order, names))


def confusions(found: Found) -> dict[str, Chart]:
    """The confusion matrix of each model, by role. Shades are comparable between them."""
    frame = found.predictions
    if frame.empty:
        return {STUDENT: nothing(_missing(found))}
    names = class_names(found.sweep, frame)
    counts = {role: counts_of(frame, role, len(names)) for role in roles_in(frame)}
    darkest = max(_off_diagonal(shares(matrix)).max() for matrix in counts.values())
    return {role: _confusion(role, counts[role], names, float(darkest)) for role in counts}


def confusion_of(found: Found, role: str) -> Chart:
    """The confusion matrix of one model.

    Args:
        found: The results.
        role: `student`, `plain` or `teacher`.

    Raises:
        InputError: If `role` is none of these.
    """
    if role not in ROLES:
        raise InputError(f"model: found {role!r}; accepted: {', '.join(ROLES)}")
    charts = confusions(found)
    missing = _missing(found) if found.predictions.empty else f"There are no predictions of the {NAMES[role]}."
    return charts[role] if role in charts else nothing(missing)


def reliability(found: Found) -> Chart:
    """Reliability diagram: accuracy against confidence on the test split, in bins of equal width."""
    frame = found.predictions
    if frame.empty:
        return nothing(_missing(found))
    figure, told = new_figure(height=460), []
    figure.add_trace(go.Scatter(
        x=[0, 1], y=[0, 1], mode="lines", name="calibrated", line={"color": GREY, "width": 1, "dash": "dash"},
        hoverinfo="skip",
    ))  # fmt: skip
    for role in roles_in(frame):
        colour, marker = _STYLES[role]
        measured = calibration(frame[f"{role}_confidence"].to_numpy(), right(frame, role))
        there = measured.counts > 0
        count = measured.counts[there]
        figure.add_trace(go.Scatter(
            x=numbers(measured.confidence[there]), y=numbers(measured.accuracy[there]), mode="lines+markers",
            name=f"{NAMES[role]} (ECE {shown('ece', measured.ece)})", line={"color": colour, "width": 2},
            marker={"color": colour, "symbol": marker, "size": numbers(6 + 12 * np.sqrt(count / count.max()))},
            text=[f"{number:,}" for number in count],
            hovertemplate=f"{NAMES[role]}, %{{text}} samples<br>confidence %{{x:.1%}}, accuracy %{{y:.1%}}"
            "<extra></extra>",
        ))  # fmt: skip
        told.append(f"{NAMES[role]} {shown('ece', measured.ece)}{_tendency(frame, role)}")
    figure.update_xaxes(title={"text": "confidence"}, tickformat=".0%", range=[0, 1.02])
    figure.update_yaxes(title={"text": "accuracy"}, tickformat=".0%", range=[0, 1.03])
    return Chart(figure, f"Expected calibration error, {BINS} bins of equal width: {'; '.join(told)}.")


def right(frame: pd.DataFrame, role: str) -> NDArray[np.bool_]:
    """Whether each prediction of a model is right: [N]."""
    found: NDArray[np.bool_] = frame[f"{role}_class"].to_numpy() == frame["label"].to_numpy()
    return found


def counts_of(frame: pd.DataFrame, role: str, classes: int) -> NDArray[np.int64]:
    """The confusion matrix of a model: [classes, classes]."""
    return confusion(frame["label"].to_numpy(), frame[f"{role}_class"].to_numpy(), classes)


def _missing(found: Found) -> str:
    return why_missing(found, str(found.sweep), running=False)


def _by_class(frame: pd.DataFrame, role: str, classes: int) -> NDArray[np.float64]:
    """Accuracy of a model on each class: [classes]; NaN for classes without samples."""
    return np.diagonal(shares(counts_of(frame, role, classes)))


def _confusion(role: str, counts: NDArray[np.int64], names: list[str], darkest: float) -> Chart:
    told = _told_confusions(role, counts, names)
    classes = len(names)
    if classes > MATRIX:
        return nothing(f"{told} A matrix of more than {MATRIX} classes is not drawn.")
    share = shares(counts)
    labelled = classes <= LABELLED
    figure = new_figure(height=160 + _ROW * classes if labelled else 440)
    # Without a gap, plotly sets a style attribute, which the policy refuses.
    gap = 1 if labelled else 0.01
    on_diagonal = np.eye(classes, dtype=bool)
    for colour, cells, top in ((BLUE, on_diagonal, 1.0), (VERMILION, ~on_diagonal, darkest or 1.0)):
        heat = np.where(cells & (counts > 0), share, np.nan)
        shade: dict[str, object] = {}
        if labelled:
            shown_counts = [[f"{count:,}" if drawn else "" for count, drawn in zip(*row, strict=True)]
                            for row in zip(counts, cells & (counts > 0), strict=True)]  # fmt: skip
            shade = {"text": shown_counts, "texttemplate": "%{text}", "textfont": {"color": INK, "size": 11}}
        figure.add_trace(go.Heatmap(
            z=heat.astype(np.float32), zmin=0, zmax=top, xgap=gap, ygap=gap,
            colorscale=[[0, tinted(colour, 0.12)], [1, tinted(colour, OPAQUE)]], showscale=False, hoverongaps=False,
            hovertemplate="%{y} classified as %{x}: %{z:.2%}<extra></extra>", **shade,
        ))  # fmt: skip
    axis = {"showgrid": False, "constrain": "domain"}
    # Names at the axes and in hover labels; an alias, because two classes may have the same name.
    aliases = {str(place): text(_short(name)) for place, name in enumerate(names)}
    axis |= {"tick0": 0, "dtick": 1, "labelalias": aliases, "showticklabels": labelled, "ticks": ""}
    figure.update_xaxes(title={"text": "classified as"}, tickangle=-90, range=[-0.5, classes - 0.5], **axis)
    figure.update_yaxes(title={"text": "true class"}, range=[classes - 0.5, -0.5], **axis)
    figure.update_layout(title={"text": NAMES[role], "font": {"size": 14}, "x": 0, "y": 0.99, "yanchor": "top"})
    figure.update_layout(margin={"t": 40})
    return Chart(figure, told)


def _off_diagonal(share: NDArray[np.float64]) -> NDArray[np.float64]:
    errors = np.nan_to_num(share)
    np.fill_diagonal(errors, 0)
    return errors


def _told_classes(accuracies: dict[str, NDArray[np.float64]], order: list[int], names: list[str]) -> str:
    def at(place: int) -> str:
        values = ", ".join(f"{NAMES[role]} {values[place]:.1%}" for role, values in accuracies.items())
        return f"{names[place]} ({values})"

    told = f"{len(order)} classes. The student is weakest on {'; '.join(map(at, order[:3]))}."
    if TEACHER in accuracies:
        losses = accuracies[TEACHER] - accuracies[STUDENT]
        most = max(order, key=lambda place: losses[place])
        if losses[most] > 0:
            told += f" It is furthest behind the teacher on {at(most)}."
    return told


def _told_confusions(role: str, counts: NDArray[np.int64], names: list[str]) -> str:
    hits, total = int(np.trace(counts)), int(counts.sum())
    errors = [f"{names[label]} as {names[answer]} ({count:,})" for label, answer, count in most_confused(counts, 3)]
    name = NAMES[role]
    most = f" Most frequent errors: {', '.join(errors)}." if errors else ""
    return f"{name[0].upper()}{name[1:]}: {hits:,} of {total:,} right ({hits / total:.2%}).{most}"


def _tendency(frame: pd.DataFrame, role: str) -> str:
    gap = 100 * (float(frame[f"{role}_confidence"].mean()) - float(right(frame, role).mean()))
    return f" (mean confidence {abs(gap):.1f} points {'above' if gap > 0 else 'below'} the accuracy)"


def _short(name: str) -> str:
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"
