"""How often confirmation names the truly best candidate of a real sweep, by the way in which seeds are distributed.

Trains the best trials of one width on many fresh seeds. Their means count as the truth. Both ways of distributing seeds
are then replayed on resampled seeds. The trainings are kept in the sweep's `confirmed/`, so an interrupted run goes on.

    kdsweep run search_spaces/quickstart.yaml --set search.trials=48 --set confirm.top=0 --name truth
    python benchmarks/confirm.py runs/truth
"""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import torch
from measure import arguments, say

from kdsweep import load_results, tasks
from kdsweep.distributions import Config
from kdsweep.seeds import derived_seed
from kdsweep.storage.files import write_json
from kdsweep.storage.paths import SweepDir
from kdsweep.tune.work import run_name, tested
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
    train(options)


def train(options: Any) -> None:
    """Train every candidate on every seed, seed by seed; finished trainings are skipped."""
    results = load_results(options.sweep)
    order = results.distinct(len(results.trials))
    keys = order.loc[order["width"] == options.width, "trial"].head(options.top)
    sweep = SweepDir.existing(options.sweep)
    data = tasks.of(results.spec.dataset).prepare(results.spec.dataset, results.spec.seed, sweep.store)
    data.task.prepare_test(results.spec.dataset, data)
    wanted = [
        (sweep.root, data.root, results.config(str(key)), derived_seed(results.spec.seed, "confirm", number) % 2**31)
        for number in range(options.seeds)
        for key in keys
    ]
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for done, _ in enumerate(pool.imap(train_one, wanted), 1):
            say(f"{done}/{len(wanted)} trainings")


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
