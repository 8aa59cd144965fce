"""Compare the throughput of a whole sweep, in trial-epochs per hour, with hand-written scripts.

All contenders train the same kd trials of the tutorial's student and teacher on the same images, one after another on
an otherwise idle machine; no trial is stopped early, unless --asha is given. Each contender runs in its own process and
is timed from start to end. The hand-written scripts are slow and run at a constant speed, so they may run only the
first few trials (--peer-trials). With a narrower student (--width), kdsweep is compared with itself: with cohorts
and without.

    python benchmarks/throughput.py [--data FOLDER] [--trials 24] [--epochs 5]
    python benchmarks/throughput.py --width 0.25 --trials 96 --repeats 3
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import images
import sweeps
from measure import arguments, report, say, shown, spread

HERE = Path(__file__).parent
BASELINE = "Ray Tune by hand"
OWN = {"kdsweep": 1, "kdsweep, cohorts": "auto"}  # and their `train.cohort`
CONTENDERS = (BASELINE, "Ray Tune by hand, actors reused", "Optuna by hand, one process", *OWN)


def main() -> None:
    """Run every contender and compare."""
    parser = arguments(__doc__.splitlines()[0], "throughput")
    parser.set_defaults(repeats=1)
    parser.add_argument("--data", type=Path, help="an image folder such as CIFAR-10; default: generated images")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--peer-trials", type=int, help="number of trials for the hand-written scripts; default: all")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--width", type=float, default=1.0, help="of the student; hand-written scripts have only 1")
    parser.add_argument("--asha", action="store_true", help="kdsweep stops weak trials early; rates are compared")
    parser.add_argument("--train-images", type=int, default=5000)
    parser.add_argument("--val-images", type=int, default=1000)
    parser.add_argument("--only", nargs="*", choices=CONTENDERS, metavar="CONTENDER")
    parser.add_argument("--sweep", type=Path, help=argparse.SUPPRESS)  # used when this script calls itself as kdsweep
    options = parser.parse_args()
    if options.sweep:
        run_kdsweep(options.sweep)
        return
    options.only = options.only or (CONTENDERS if options.width == 1 else tuple(OWN))
    if options.width != 1 and not OWN.keys() >= set(options.only):
        parser.error(f"--width {options.width:g}: the hand-written scripts train students of width 1 only")
    with tempfile.TemporaryDirectory(prefix="kdsweep-throughput-") as folder:
        compare(options, Path(folder))


def compare(options: argparse.Namespace, folder: Path) -> None:
    """Time the contenders in turn."""
    say(f"preparing {options.train_images} training images and the teacher")
    images.provide(folder, options.data, options.train_images, options.val_images)
    counts = dict.fromkeys(CONTENDERS, options.peer_trials or options.trials) | dict.fromkeys(OWN, options.trials)
    expected = {name: count * options.epochs for name, count in counts.items()}
    seconds: dict[str, list[float]] = {name: [] for name in options.only}
    best: dict[str, float] = {}
    for repeat in range(options.repeats):
        for name in options.only:
            say(f"repeat {repeat + 1} of {options.repeats}: {name}")
            (folder / "trials.json").write_text(json.dumps(sweeps.configurations(counts[name])))
            storage = folder / f"storage-{repeat}-{CONTENDERS.index(name)}"
            taken, answer = timed(name, options, folder, storage)
            if options.asha and name in OWN:
                expected[name] = answer["epochs"]
            elif answer["epochs"] != expected[name]:
                raise SystemExit(f"{name}: trained {answer['epochs']} trial-epochs instead of {expected[name]}")
            seconds[name].append(taken)
            best[name] = answer["best"]
            say(f"  {taken:.1f} s, {expected[name] * 3600 / taken:.0f} trial-epochs an hour, {answer}")
    rates = {name: spread([expected[name] * 3600 / taken for taken in values]) for name, values in seconds.items()}
    rows = []
    for name, rate in rates.items():
        baseline = rates[BASELINE if BASELINE in rates else options.only[0]]
        ratio = f"{rate['median'] / baseline['median']:.1f}"
        rows.append({
            "sweep": name, "trials": counts[name], "seconds": shown(spread(seconds[name])),
            "trial-epochs per hour": shown(rate, 0), "speed-up": ratio, "best val accuracy": f"{best[name]:.3f}",
        })  # fmt: skip
    source = options.data or "generated images"
    most = "at most " if options.asha else ""
    title = f"{options.trials} kd trials of {most}{options.epochs} epochs on {options.train_images} images ({source})"
    title += f", width {options.width:g}"
    report(title, rows, {"trial_epochs_per_hour": rates, "seconds": seconds}, options.out)


def timed(name: str, options: argparse.Namespace, folder: Path, storage: Path) -> tuple[float, dict[str, Any]]:
    """Run one contender in its own process; return the seconds and its own report."""
    common = ["--data", folder / images.FILE, "--teacher", images.teacher_file(folder), "--trials",
              folder / "trials.json", "--epochs", options.epochs]  # fmt: skip
    if name in OWN:
        values = sweeps.tutorial(folder, storage, "throughput", options.epochs)
        values["space"]["width"] = options.width
        values["train"]["cohort"] = OWN[name]
        values["search"] = {"sampler": "random", "points": json.loads((folder / "trials.json").read_text())}
        values["search"]["trials"] = len(values["search"]["points"])
        if options.asha:
            values["scheduler"] = {"name": "asha"}
        storage.mkdir()
        command: list[object] = [HERE / "throughput.py", "--sweep", sweeps.written(values, storage)]
    elif name.startswith("Ray"):
        reuse = ["--reuse-actors"] if name.endswith("reused") else []
        command = [HERE / "peers" / "ray_tune_script.py", *common, "--storage", storage, *reuse]
    else:
        command = [HERE / "peers" / "optuna_script.py", *common]
    environment = {**os.environ, "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    log = folder / "log.txt"
    with log.open("w") as errors:
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, *map(str, command)], stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        )
        taken = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stdout[-2000:]}\n{log.read_text()[-4000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return taken, answer


def run_kdsweep(sweep_file: Path) -> None:
    """Run the sweep as a user's script would."""
    import kdsweep

    results = kdsweep.run(kdsweep.load_spec(sweep_file))
    trials = results.trials
    print(json.dumps({"epochs": int(trials["epochs"].sum()), "best": float(trials["val_accuracy"].max())}))


if __name__ == "__main__":
    main()
