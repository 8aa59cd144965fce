"""Plot the results of a sweep.

    python benchmarks/plots.py pareto runs/quickstart docs/images/quickstart.png
    python benchmarks/plots.py response runs/tutorial_wider docs/images/response.png

`pareto` plots accuracy against student size, with the teacher and the plain students; `response` plots accuracy against
temperature and alpha. Both show the validation accuracy of trials that reached the last epoch.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.ticker import PercentFormatter, ScalarFormatter

import kdsweep

mpl.use("agg")
PLAIN, DISTILLED = "#888888", "#1f6feb"


def main() -> None:
    """Draw one plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("pareto", "response"))
    parser.add_argument("sweep", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    results = kdsweep.load_results(options.sweep)
    complete = results.trials[results.trials["state"] == "COMPLETE"]
    if complete.empty:
        raise SystemExit(f"{options.sweep}: no trial ran to its last epoch")
    figure = pareto(results, complete) if options.kind == "pareto" else response(results, complete)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=160, bbox_inches="tight", metadata={"Software": None})
    print(options.out)


def pareto(results: kdsweep.Results, complete: pd.DataFrame) -> plt.Figure:
    """Accuracy against size."""
    figure, axes = plt.subplots(figsize=(7, 4))
    plain = complete["method"] == "none"
    for label, colour, rows in (("plain", PLAIN, complete[plain]), ("distilled", DISTILLED, complete[~plain])):
        axes.scatter(rows["parameters"], rows["val_accuracy"], s=28, color=colour, alpha=0.7, label=label)
        best = rows.groupby("parameters")["val_accuracy"].max()
        axes.plot(best.index, best.to_numpy(), color=colour, linewidth=1)
    teacher = results.teacher
    axes.scatter([teacher["parameters"]], [teacher["val_accuracy"]], marker="*", s=140, color="black", label="teacher")
    axes.set_xscale("log")
    axes.set_xlabel("parameters")
    return finished(figure, [axes], f"{results.spec.name}: accuracy against size")


def response(results: kdsweep.Results, complete: pd.DataFrame) -> plt.Figure:
    """Accuracy against temperature and against alpha, by method, with the best plain student."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    plain = complete.loc[complete["method"] == "none", "val_accuracy"]
    for axes, setting in zip(panels, ("temperature", "alpha"), strict=True):
        for method, rows in complete[complete[setting].notna()].groupby("method"):
            axes.scatter(rows[setting], rows["val_accuracy"], s=28, alpha=0.8, label=method)
        if len(plain):
            axes.axhline(plain.max(), color=PLAIN, linewidth=1, linestyle="--", label="best plain")
        axes.set_xlabel(setting)
    panels[0].set_xscale("log", base=2)
    panels[0].xaxis.set_major_formatter(ScalarFormatter())
    return finished(figure, list(panels), f"{results.spec.name}: response to temperature and alpha")


def finished(figure: plt.Figure, panels: list[plt.Axes], title: str) -> plt.Figure:
    """Labels, legends and a grid."""
    panels[0].set_ylabel("validation accuracy")
    for axes in panels:
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.suptitle(title)
    return figure


if __name__ == "__main__":
    main()
