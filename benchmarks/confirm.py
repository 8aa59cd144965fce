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
from designs import GOAL, confirmed, first
from measure import arguments, report, say

from kdsweep import load_results, tasks
from kdsweep.distributions import Config
from kdsweep.results.designs import AutoSeeds, Chosen, FixedSeeds, run_name
from kdsweep.seeds import derived_seed
from kdsweep.storage.files import read_json, write_json
from kdsweep.storage.paths import SweepDir
from kdsweep.tune.work import tested
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
    """How often each design names the best candidate, with seeds drawn with replacement."""
    results, sweep = load_results(options.sweep), SweepDir.existing(options.sweep)
    configs = {key: results.config(key) for key in keys}
    runs = {
        run_name(configs[key], number): read_json(
            sweep.confirmation(run_name(configs[key], fresh_seed(results.spec.seed, number))).result
        )
        for key in keys
        for number in range(options.seeds)
    }
    values = {key: [runs[run_name(configs[key], number)] for number in range(options.seeds)] for key in keys}
    val = {key: np.array([run[GOAL.column] for run in values[key]]) for key in keys}
    truth = max(keys, key=lambda key: val[key].mean())
    for key in keys:
        spread = 100 * val[key].std(ddof=1)
        say(f"{key}: {100 * val[key].mean():.2f} ± {spread:.2f}{' (the best)' if key == truth else ''}")
    chosen = [Chosen(key, configs[key], None, None) for key in keys]  # plain students do not affect the order
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
        best, count = [keys[0]] * options.repeats, 0
        if design is not None:
            for repeat in range(options.repeats):
                found, count = confirmed(design, lambda config, _, rng=rng: _any_run(runs, config, options.seeds, rng))
                best[repeat] = first(design, found)
        regret = np.mean([val[truth].mean() - val[key].mean() for key in best])
        yield {
            "seeds": name,
            "trainings of candidates": count,
            "truly best named (%)": f"{100 * np.mean([key == truth for key in best]):.1f}",
            "regret (points)": f"{100 * regret:.3f}",
        }


def _any_run(
    runs: Mapping[str, Mapping[str, float]], config: Config, seeds: int, rng: np.random.Generator
) -> Mapping[str, float]:
    """One of the trainings of a configuration, at random."""
    return runs[run_name(config, int(rng.integers(seeds)))]


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
