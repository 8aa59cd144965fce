"""How often confirmation names the truly best candidate of a real sweep, by the way in which seeds are distributed.

Trains the best trials of one width on many fresh seeds. Their means count as the truth. Both ways of distributing seeds
are then replayed on resampled seeds. The trainings are kept in the sweep's `confirmed/`, so an interrupted run goes on.

    kdsweep run search_spaces/quickstart.yaml --set search.trials=48 --set confirm.top=0 --name truth
    python benchmarks/confirm.py runs/truth
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from designs import GOAL, confirmed, first, quick_name
from measure import arguments, report, say

from kdsweep import load_results, tasks
from kdsweep.distributions import Config
from kdsweep.results import designs
from kdsweep.results.designs import AutoSeeds, Chosen, FixedSeeds
from kdsweep.seeds import derived_seed, run_name
from kdsweep.storage.files import read_json, write_json
from kdsweep.storage.paths import SweepDir
from kdsweep.worker.measures import tested
from kdsweep.worker.place import WorkerPlace
from kdsweep.worker.workbench import open_workbench


def main() -> None:
    """Train, replay and print the table."""
    parser = arguments(__doc__.splitlines()[0], "confirm")
    parser.add_argument("sweep", type=Path, help="directory of a finished sweep")
    parser.add_argument("--width", type=float, default=0.25, help="width of the candidates")
    parser.add_argument("--top", type=int, default=8, help="number of candidates")
    parser.add_argument("--seeds", type=int, default=20, help="number of fresh seeds per candidate")
    parser.add_argument("--processes", type=int, default=2, help="number of training processes")
    parser.set_defaults(repeats=2000)
    options = parser.parse_args()
    keys = train(options)
    designs.run_name = quick_name
    rows = list(replays(options, keys))
    title = f"naming the best of {len(keys)} candidates of width {options.width:g}, {options.repeats} replays"
    report(title, rows, {"candidates": keys}, options.out)


def train(options: Any) -> list[str]:
    """Train every candidate on every seed, seed by seed; finished trainings are skipped. Return the candidates."""
    results = load_results(options.sweep)
    order = results.distinct(len(results.trials))
    keys = [str(key) for key in order.loc[order["width"] == options.width, "trial"].head(options.top)]
    sweep = SweepDir.existing(options.sweep)
    data = tasks.of(results.spec.dataset).prepare(results.spec.dataset, results.spec.seed, sweep.store)
    data.task.prepare_test(results.spec.dataset, data)
    wanted = [
        (sweep.root, data.root, results.config(key), fresh_seed(results.spec.seed, number))
        for number in range(options.seeds)
        for key in keys
    ]
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for done, _ in enumerate(pool.imap(train_one, wanted), 1):
            say(f"{done}/{len(wanted)} trainings")
    return keys


def fresh_seed(seed: int, number: int) -> int:
    """The fresh seed of a number, as in confirmation."""
    return derived_seed(seed, "confirm", number) % 2**31


def replays(options: Any, keys: list[str]) -> Iterable[dict[str, object]]:
    """How often each design names the best candidate.

    In each replay one seed per candidate, drawn at random, takes the place of the search and decides which candidates
    are confirmed; their fresh seeds are drawn with replacement.
    """
    results, sweep = load_results(options.sweep), SweepDir.existing(options.sweep)
    seeds = [fresh_seed(results.spec.seed, number) for number in range(options.seeds)]
    names = [[run_name(results.config(key), seed) for seed in seeds] for key in keys]
    runs = [[read_json(sweep.confirmation(name).result) for name in ours] for ours in names]
    val = np.array([[run[GOAL.column] for run in ours] for ours in runs])
    truth = int(val.mean(axis=1).argmax())
    for key, values in zip(keys, val, strict=True):
        say(f"{key}: {100 * values.mean():.2f} ± {100 * values.std(ddof=1):.2f}")
    chosen = [Chosen(str(place), {"method": "kd", "width": 0, "lr": place}, None, None) for place in range(len(keys))]
    for name, design in {
        "the search's one seed": None,
        "top 3 x 3": FixedSeeds(chosen[:3], range(3)),
        "auto, top 4": AutoSeeds(chosen[:4], None, int, GOAL, 0.0),
        "auto, top 5": AutoSeeds(chosen[:5], None, int, GOAL, 0.0),
        "top 4 x 3": FixedSeeds(chosen[:4], range(3)),
        "top 6 x 2": FixedSeeds(chosen[:6], range(2)),
        "auto, top 6": AutoSeeds(chosen[:6], None, int, GOAL, 0.0),
    }.items():
        rng = np.random.default_rng(0)
        best, count = [], 0
        for _ in range(options.repeats):
            order = np.argsort([-rng.choice(values) for values in val], kind="stable")

            def measure(config: Config, seed: int, order: np.ndarray = order, rng: Any = rng) -> Mapping[str, float]:
                ours = runs[order[int(config["lr"])]]
                return ours[int(rng.integers(len(ours)))]

            place = 0
            if design is not None:
                found, count = confirmed(design, measure)
                place = int(first(design, found))
            best.append(int(order[place]))
        regret = np.mean(val[truth].mean() - val[best].mean(axis=1))
        yield {
            "seeds": name,
            "trainings of candidates": count,
            "truly best named (%)": f"{100 * np.mean(np.array(best) == truth):.1f}",
            "regret (points)": f"{100 * regret:.3f}",
        }


def train_one(task: tuple[Path, Path, Config, int]) -> None:
    """Train a configuration on a fresh seed, as confirmation does."""
    root, data, config, seed = task
    sweep = SweepDir(root)
    folder = sweep.confirmation(run_name(config, seed))
    if folder.result.is_file():
        return
    torch.set_num_threads(1)
    bench = open_workbench(WorkerPlace(sweep, data, Path.cwd()), torch.device("cpu"))
    folder.root.mkdir(parents=True, exist_ok=True)
    training = bench.training(config, seed, folder.state)
    while not training.done:
        training.run_epoch()
    training.restore_best()
    write_json(folder.result, {bench.spec.goal.column: training.best_value} | tested(bench, training.inference))


if __name__ == "__main__":
    main()
