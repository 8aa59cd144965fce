"""Replays searches on recorded learning curves: kdsweep's search with its defaults and variants, and its peers.

    python benchmarks/search.py                    # every strategy on both tables
    python benchmarks/search.py --only kdsweep random --workers 2 8 32
    python benchmarks/search.py --fit              # the error of the interpolated curves

Nothing is trained. A table of recorded curves (see `record.py`) is interpolated to a curve for every configuration of
its space, and simulated workers train them at the recorded speed. A strategy sees the accuracies, and regret is
measured on the smooth curves (`replay/measures.py`). Finished replays are kept in a folder, so an interrupted run
continues; after a change of the code, give another one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from measure import MEASURED, say
from replay.curves import TABLES, Listed, Surrogate
from replay.measures import NEAR, OVERALL, measured
from replay.strategies import STRATEGIES, Setting, missing
from replay.workers import replay

from kdsweep.results import student_t
from kdsweep.storage.environment import describe_environment

CHECKPOINTS = (5, 10, 25, 50)
_surrogates: dict[str, Surrogate] = {}


def main() -> None:
    """Run the replays that are missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", choices=[*TABLES, "all"], default="all")
    parser.add_argument("--seeds", type=int, default=30, help="replays of each strategy (default: 30)")
    parser.add_argument("--workers", type=int, nargs="+", default=[8], help="simulated workers (default: 8)")
    parser.add_argument("--only", nargs="+", choices=list(STRATEGIES), metavar="NAME", help="strategies; default: all")
    parser.add_argument("--limit", type=int, choices=CHECKPOINTS, default=25,
                        help="budget in %% of the grid's epochs (default: 25; TPE is slow beyond)")  # fmt: skip
    parser.add_argument("--listed", action="store_true", help="the space is just the recorded configurations")
    parser.add_argument("--keep", type=Path, default=MEASURED / "search", help="folder for finished replays")
    parser.add_argument("--out", type=Path, default=MEASURED / "search.json")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--fit", action="store_true", help="print the leave-one-out error of the curves, and stop")
    parser.add_argument("--against", choices=list(STRATEGIES), metavar="NAME", default="kdsweep",
                        help="strategy to compare the others with, seed by seed (default: kdsweep)")  # fmt: skip
    parser.add_argument("--shown", action="store_true", help="print what is kept, without running anything")
    options = parser.parse_args()
    tables = list(TABLES) if options.table == "all" else [options.table]
    if options.fit:
        print(markdown([row for name in tables for row in fit(name, Surrogate.load(name))]))
        return
    names = [name for name in options.only or STRATEGIES if not _skipped(name)]
    tasks = [
        (table, name, workers, seed, options.limit, options.listed)
        for seed in range(options.seeds)
        for table in tables
        for workers in options.workers
        for name in names
    ]
    if not options.shown:
        run(tasks, options.keep, options.jobs)
    written: dict[str, Any] = {"environment": describe_environment(["search.py"]), "tables": {}}
    for table in tables:
        for workers in options.workers:
            rows = sorted(
                (
                    row(name, outcomes, options.limit)
                    for name in names
                    if (outcomes := kept(options.keep, [task for task in tasks if task[:3] == (table, name, workers)]))
                ),
                key=lambda row: float(str(row[f"{options.limit} %"]).split()[0]),
            )
            title = f"{table}, {workers} workers" + (", recorded configurations only" if options.listed else "")
            print(f"\n{title}\n\n{markdown(rows)}")
            written["tables"][title] = rows
            replays = {
                name: {task[3]: kept(options.keep, [task]) for task in tasks if task[:3] == (table, name, workers)}
                for name in names
            }
            if compared := differences(replays, options.against, options.limit):
                print(f"\n{title}: regret less that of {options.against} on the same seed\n\n{markdown(compared)}")
                written["tables"][f"{title}, differences"] = compared
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(written, indent=2, default=str) + "\n")


Task = tuple[str, str, int, int, int, bool]


def run(tasks: Sequence[Task], folder: Path, jobs: int) -> None:
    """Run the replays that are not kept yet, and keep them."""
    todo = [task for task in tasks if not kept(folder, [task])]
    for task in todo:
        surrogate(task[0])  # before the processes fork
    started = time.monotonic()
    with ProcessPoolExecutor(jobs) as pool:
        running = {pool.submit(outcome, task): task for task in todo}
        for done, future in enumerate(as_completed(running), start=1):
            path = path_of(folder, running[future])
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(future.result()))
            partial.replace(path)
            if done % 20 == 0 or done == len(todo):
                say(f"{done} of {len(todo)} replays after {time.monotonic() - started:.0f} s")


def outcome(task: Task) -> dict[str, Any]:
    """Run one replay."""
    table, name, workers, seed, limit, listed = task
    source = surrogate(table)
    return replayed(source, name, workers, seed, limit, Listed(source) if listed else source)


def replayed(
    source: Surrogate, name: str, workers: int, seed: int, limit: int, curves: Surrogate | Listed
) -> dict[str, Any]:
    """Replay one strategy on the curves, with budgets in % of the epochs of all recorded configurations."""
    grid = source.recorded.size
    budgets = {str(percent): grid * percent // 100 for percent in CHECKPOINTS if percent <= limit}
    started = time.monotonic()
    setting = Setting(source.space, seed, source.epochs, list(budgets.values()))
    strategy = STRATEGIES[name](setting)
    try:
        epochs = replay(strategy, curves, workers, max(budgets.values()))
        found = measured(epochs, curves, source.widths, source.epochs, budgets)
    finally:
        strategy.close()
    return found | {"seconds": round(time.monotonic() - started, 2)}


def surrogate(table: str) -> Surrogate:
    """Fit a table once per process."""
    if table not in _surrogates:
        _surrogates[table] = Surrogate.load(table)
        _surrogates[table].best(1.0, plain=False)
    return _surrogates[table]


def path_of(folder: Path, task: Task) -> Path:
    """Return where a replay is kept."""
    table, name, workers, seed, _, listed = task
    slug = "".join(letter if letter.isalnum() else "-" for letter in name)
    return folder / f"{table}{'-listed' if listed else ''}" / slug / f"{workers}-{seed:03d}.json"


def kept(folder: Path, tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """Read the kept replays among the tasks, leaving out those that ended before the limit."""
    found = ((task, json.loads(path.read_text())) for task in tasks if (path := path_of(folder, task)).is_file())
    return [outcome for task, outcome in found if str(task[4]) in outcome["regret"]]


def row(name: str, outcomes: Sequence[dict[str, Any]], limit: int) -> dict[str, Any]:
    """Summarise a strategy over seeds: the mean regret of the widths by budget, then details at the limit."""
    widths = list(outcomes[0]["near"])
    last = str(limit)
    cells: dict[str, Any] = {"strategy": name, "seeds": len(outcomes)}
    for percent in (str(percent) for percent in CHECKPOINTS if percent <= limit):
        cells[f"{percent} %"] = interval([mean(found["regret"][percent], widths) for found in outcomes])
    for width in widths:
        cells[f"width {float(width):g}"] = shown([found["regret"][last][width] for found in outcomes])
    cells[OVERALL] = shown([found["regret"][last][OVERALL] for found in outcomes])
    # The median, because a replay may not have tried a plain student at each width yet.
    plain = [mean(found["plain_regret"][last], widths) for found in outcomes]
    cells["plain (median)"] = f"{statistics.median(plain):.2f}"
    for width in widths:
        reached = [found["near"][width] for found in outcomes]
        middle = statistics.median([np.inf if at is None else at for at in reached])
        cells[f"epochs to {NEAR} at {float(width):g}"] = "never" if middle == np.inf else f"{middle:.0f}"
    cells["trials"] = f"{statistics.mean(found['trials'] for found in outcomes):.0f}"
    cells["minutes"] = f"{60 * statistics.mean(found['hours'] for found in outcomes):.1f}"
    return cells


def differences(replays: dict[str, dict[int, list[dict[str, Any]]]], against: str, limit: int) -> list[dict[str, Any]]:
    """Compare strategies with one of them, paired by seed: the mean regret of the widths by budget, less that one's."""
    rows = []
    for name, by_seed in replays.items():
        pairs = [
            (mine[0], theirs[0])
            for seed, mine in by_seed.items()
            if mine and (theirs := replays.get(against, {}).get(seed)) and name != against
        ]
        if not pairs:
            continue
        widths = list(pairs[0][0]["near"])
        found = {
            f"{percent} %": interval([
                mean(mine["regret"][str(percent)], widths) - mean(theirs["regret"][str(percent)], widths)
                for mine, theirs in pairs
            ])
            for percent in CHECKPOINTS
            if percent <= limit
        }  # fmt: skip
        rows.append({"strategy": name, "seeds": len(pairs)} | found)
    return rows


def mean(regret: dict[str, float], widths: Sequence[str]) -> float:
    """Average a regret over the widths."""
    return statistics.mean(regret[width] for width in widths)


def interval(values: Sequence[float]) -> str:
    """Format a mean and half the width of its 95 % interval (Student's t)."""
    if len(values) < 2:
        return f"{values[0]:.3f}"
    half = student_t.quantile(0.05, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values):.3f} ± {half:.3f}"


def shown(values: Sequence[float]) -> str:
    """Format a mean."""
    return f"{statistics.mean(values):.2f}"


def fit(name: str, source: Surrogate) -> Iterator[dict[str, Any]]:
    """Describe the leave-one-out errors of the interpolated curves, and the best true accuracies."""
    errors, residuals = 100 * source.errors(), 100 * source.residuals()
    final = source.recorded.max(1)
    at = np.array([config["width"] for config in source.configs])
    for width in source.widths:
        here = at == width
        better = here & (final >= np.median(final[here]))
        last = source.recorded[here, -1]
        yield {
            "table": name, "width": f"{width:g}", "configurations": int(here.sum()),
            "error, last epoch": f"{np.abs(errors[here, -1]).mean():.2f}",
            "of the better half": f"{np.abs(errors[better, -1]).mean():.2f}",
            "bias": f"{errors[better, -1].mean():+.2f}",
            "better half, first epoch": f"{np.abs(errors[better, 0]).mean():.2f}",
            "noise, last epoch": f"{residuals[better, -1].std():.2f}",
            "correlation": f"{np.corrcoef(last + errors[here, -1] / 100, last)[0, 1]:.3f}",
            "best recorded": f"{100 * final[here].max():.2f}",
            "best true": f"{100 * source.best(width, plain=False):.2f}",
            "best true plain": f"{100 * source.best(width, plain=True):.2f}",
        }  # fmt: skip


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Format rows with equal keys as a table."""
    if not rows:
        return "nothing to show"
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _skipped(name: str) -> bool:
    reason = missing(name)
    if reason:
        say(reason)
    return bool(reason)


if __name__ == "__main__":
    main()
