"""Measure the cost per trial as the number of trials grows.

python benchmarks/scale.py                  5,000 short trials on Ray
python benchmarks/scale.py --nodes 3        the same on simulated nodes of two CPUs each
python benchmarks/scale.py --driver-only    only the driver's bookkeeping, with synthetic trials
python benchmarks/scale.py --search         the effect of the sampler's bounded memory on the search
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import sweeps
import synthetic
from measure import arguments, report, say, shown, spread
from optuna.trial import TrialState
from watch import Moment, Stopwatch

import kdsweep
from kdsweep.search.plan import rule_of
from kdsweep.search.proposer import Proposer
from kdsweep.search.study import Study
from kdsweep.search.trial import State, Trial
from kdsweep.storage.paths import SweepDir

EARLY = 100  # costs are compared with the window around this trial
WINDOW = 100
EVERYTHING = 10**9


def main() -> None:
    """Run the selected measurement."""
    parser = arguments(__doc__.splitlines()[0], "scale")
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--places", type=int, default=8, help="concurrent synthetic trials (--driver-only, --search)")
    parser.add_argument("--nodes", type=int, default=0, help="simulated nodes; 0 uses this machine only")
    parser.add_argument("--driver-only", action="store_true")
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--seeds", type=int, default=10, help="number of seeds (--search)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kdsweep-scale-") as temporary:
        if options.search:
            compare_searches(options, Path(temporary))
            return
        measure = driver_alone if options.driver_only else on_ray
        runs, resumes = [], []
        for repeat in range(options.repeats):
            say(f"repeat {repeat + 1} of {options.repeats}")
            runs.append(windows(measure(options, Path(temporary), f"scale-{repeat}")))
            if options.driver_only:
                resumes.append(resumed(options, Path(temporary), f"scale-{repeat}"))
        report_windows(options, runs, resumes)


def on_ray(options: argparse.Namespace, folder: Path, name: str) -> list[Moment]:
    """A sweep of one-epoch trials on a few digits."""
    spec = sweeps.spec_of(sweeps.tiny(folder, name, options.trials), folder)
    watch = Stopwatch()
    if not options.nodes:
        kdsweep.run(spec, progress=watch)
        return watch.moments
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(options.nodes):
            cluster.add_node(num_cpus=2)
        kdsweep.run(spec, address=cluster.address, progress=watch)
    finally:
        cluster.shutdown()
    return watch.moments


def driver_alone(options: argparse.Namespace, folder: Path, name: str) -> list[Moment]:
    """Everything the driver does for a trial except Ray: ask, report each epoch, finish, write."""
    spec = synthetic.spec_of(folder, name, options.trials)
    study = Study(spec, SweepDir(folder / name), spec.search_space)
    running: dict[str, Trial] = {}
    started, moments, epochs = time.perf_counter(), [], 0

    def fill() -> None:
        while len(running) < options.places and (trial := study.ask()):
            running[trial.key] = trial

    fill()
    while not study.done:
        for trial in list(running.values()):
            epochs += 1
            epoch = len(trial.values) + 1
            weak = study.report(trial.key, {
                "epoch": epoch, "train_loss": 1.0, "val_loss": 1.0, "lr": 1e-3, "seconds": 1.0, "size_mb": 1.0,
                "val_accuracy": synthetic.accuracy(trial.config, trial.number, epoch),
                "parameters": int(1e5 * float(trial.config["width"])),
            })  # fmt: skip
            if weak or epoch == synthetic.EPOCHS:
                study.leave(trial.key) if weak else study.finish(trial.key, State.COMPLETE)
                del running[trial.key]
                fill()  # a place that is free takes the next trial at once
                ended = sum(study.counts.values())
                moments.append(Moment(time.perf_counter() - started, time.process_time(), epochs, ended))
        fill()  # paused trials may go on now
    study.close()
    return moments


def resumed(options: argparse.Namespace, folder: Path, name: str) -> dict[str, float]:
    """The sizes of a finished sweep's logs, and what reading them costs when it is resumed."""
    sweep = SweepDir(folder / name)
    spec = synthetic.spec_of(folder, name, options.trials)
    started, started_cpu = time.perf_counter(), time.process_time()
    Study(spec, sweep, spec.search_space).close()
    return {
        "resume, s": time.perf_counter() - started,
        "resume, CPU s": time.process_time() - started_cpu,
        "study.journal, MB": sweep.journal.stat().st_size / 1e6,
        "epochs.jsonl, MB": sweep.epochs_log.stat().st_size / 1e6,
    }


def windows(moments: list[Moment]) -> dict[int, dict[str, float]]:
    """Wall and driver-CPU milliseconds per trial, in windows that end at these trial counts."""
    total = moments[-1].ended
    ends = sorted({EARLY + WINDOW // 2, *(total * share // 8 for share in (1, 2, 4, 6)), total})
    costs = {}
    for end in (end for end in ends if end >= min(EARLY + WINDOW // 2, total)):
        first = next(moment for moment in moments if moment.ended >= max(1, end - WINDOW))
        last = next(moment for moment in moments if moment.ended >= end)
        count = last.ended - first.ended
        costs[end] = {
            "wall": 1000 * (last.seconds - first.seconds) / count,
            "driver": 1000 * (last.cpu_seconds - first.cpu_seconds) / count,
        }
    return costs


def report_windows(
    options: argparse.Namespace, runs: list[dict[int, dict[str, float]]], resumes: list[dict[str, float]]
) -> None:
    """One table row per window, with the ratio to the first; and what resuming takes, if it was measured."""
    rows, figures = [], {}
    early = min(runs[0])
    for end in runs[0]:
        costs = {kind: spread([run[end][kind] for run in runs]) for kind in ("wall", "driver")}
        ratio = spread([run[end]["driver"] / run[early]["driver"] for run in runs])
        figures[str(end)] = {**costs, "driver_ratio": ratio}
        rows.append({
            "trials": f"{max(0, end - WINDOW)} to {end}", "wall, ms per trial": shown(costs["wall"]),
            "driver CPU, ms per trial": shown(costs["driver"]), "relative to the first": shown(ratio, 2),
        })  # fmt: skip
    where = "no Ray, synthetic trials" if options.driver_only else f"Ray, {options.nodes or 'no'} simulated nodes"
    resuming = {what: spread([one[what] for one in resumes]) for what in (resumes or [{}])[0]}
    for what, measured in resuming.items():
        say(f"{what}: {shown(measured)}")
    report(f"{options.trials} trials: {where}", rows, {"windows": figures, "resuming": resuming}, options.out)


def compare_searches(options: argparse.Namespace, folder: Path) -> None:
    """Search a synthetic space with all finished trials visible to the sampler, and with a bounded number."""
    spec = synthetic.spec_of(folder, "search", options.trials)
    checkpoints = [count for count in (100, 200, 500, 1000, 2000, 5000) if count <= options.trials]
    regrets: dict[str, dict[int, list[float]]] = {}
    seconds: dict[str, list[float]] = {}
    for seed in range(options.seeds):
        for name, remembered in (("all trials", {"recent": EVERYTHING}), ("the best and the recent", {})):
            started = time.process_time()
            found = best_so_far(spec.replaced(seed=seed), options, remembered)
            seconds.setdefault(name, []).append(time.process_time() - started)
            for count in checkpoints:
                regrets.setdefault(name, {}).setdefault(count, []).append(synthetic.BEST - found[count - 1])
        say(f"seed {seed}: " + ", ".join(f"{name} {values[-1]:.0f} s" for name, values in seconds.items()))
    rows, figures = [], {}
    for name, by_count in regrets.items():
        figures[name] = {str(count): spread(values) for count, values in by_count.items()}
        figures[name]["seconds"] = spread(seconds[name])
        points = {f"points below the optimum after {count}": shown(spread([100 * v for v in by_count[count]]), 2)
                  for count in checkpoints}  # fmt: skip
        rows.append({"trials the sampler sees": name, **points, "CPU, s": shown(figures[name]["seconds"])})
    title = f"{options.trials} made-up trials, {options.places} at a time, ASHA, {options.seeds} seeds"
    report(title, rows, {"regret": figures}, options.out)


def best_so_far(spec: Any, options: argparse.Namespace, remembered: dict[str, int]) -> list[float]:
    """The best final accuracy, noise aside, among the trials that were not stopped, after each trial."""
    proposer = Proposer.of(spec.search, spec.search_space, spec.seed, **remembered)
    rule = rule_of(spec)
    running: dict[int, list[float]] = {}
    configs: dict[int, Any] = {}
    best: list[float] = []
    asked = 0
    while len(best) < options.trials:
        while len(running) < options.places and asked < options.trials:
            configs[asked], running[asked] = proposer.propose(asked), []
            asked += 1
        for number, values in list(running.items()):
            config, epoch = configs[number], len(values) + 1
            values.append(max([synthetic.accuracy(config, number, epoch), *values[-1:]]))
            weak = rule.reached(config["width"], str(number), epoch, values[-1])
            if weak or epoch == synthetic.EPOCHS:
                del running[number]
                proposer.tell(config, TrialState.PRUNED if weak else TrialState.COMPLETE, values)
                reached = 0.0 if weak else synthetic.final_accuracy(config)
                best.append(max([reached, *best[-1:]]))
    return best


if __name__ == "__main__":
    main()
