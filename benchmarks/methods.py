"""Every method at its default parameters beside the plain student, on a part of MNIST and of an image folder.

Nothing is searched and nothing is selected: one fixed setting, the accuracy on the test split after the last epoch,
three seeds, each paired with the plain student of the same seed. It shows that every method trains a student and what it
costs, not which is best: that takes a search over each method's weight and alpha.

    python benchmarks/methods.py --data DIR --workers 2

DIR is an image folder (train/CLASS/IMAGE and test/CLASS/IMAGE), such as CIFAR-10. Without it only MNIST is run. The
table goes to standard output, everything measured to docs/data/methods.json; benchmarks/methods_page.py then writes it
into docs/methods.md.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from typing import Any

import torch
from methods_page import MEASURED, results

from kdsweep import data as datasets
from kdsweep import methods
from kdsweep.environment import describe_environment
from kdsweep.errors import MethodError
from kdsweep.methods import METHODS
from kdsweep.spec import SweepSpec
from kdsweep.training import evaluate
from kdsweep.workbench import Workbench, open_workbench, provide_teacher

# The fixed setting of each method: its default parameters and this alpha.
ALPHA = 0.5
OTHER_ALPHAS = {"simkd": 1.0, "none": 0.0}
CPU = torch.device("cpu")


def settings(data: str, storage: str) -> dict[str, dict[str, Any]]:
    """The sweep specs by name; what one pair of models cannot bridge is run on the next of the same data."""
    found = {
        "mnist": {
            "name": "mnist",
            "dataset": {"name": "mnist_mini", "val_fraction": 0.5},
            "teacher": {"model": "mnist_teacher", "width": 0.25, "checkpoint": "kdsweep:mnist_mini_teacher"},
            "student": {"model": "mnist_student"},
            "train": {"epochs": 8, "batch_size": 64, "lr": 3e-3},
        }
    }
    if data:
        folder = {"name": "image_folder", "root": str(Path(data).absolute()), "subset": 6000, "val_fraction": 1 / 6}
        found["images"] = {
            "name": "images",
            "dataset": folder,
            "teacher": {"model": "tutorial_teacher", "train": {"epochs": 8, "batch_size": 64}},
            "student": {"model": "lightnn"},
            "train": {"epochs": 8, "batch_size": 64, "lr": 1e-3},
        }
        found["images, residual"] = {
            "name": "residual",
            "dataset": folder,
            "teacher": {"model": "resnet8x4", "width": 0.5, "train": {"epochs": 8, "batch_size": 64}},
            "student": {"model": "resnet8"},
            "train": {"epochs": 8, "batch_size": 64, "lr": 1e-3},
        }
    space = {"method": list(METHODS), "width": 1.0}
    return {key: {**value, "space": space, "storage": storage} for key, value in found.items()}


def main() -> None:
    """Run everything, print the tables and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="", help="an image folder")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="METHOD")
    parser.add_argument("--out", type=Path, default=MEASURED)
    options = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as storage:
        specs = settings(options.data, storage)
        tables = {name: prepared(name, spec) for name, spec in specs.items()}
        wanted = share_out(tables, ["none", *(method for method in options.methods if method != "none")])
        runs = train_all(specs, wanted, options.seeds, options.workers)
        for name, table in tables.items():
            table["rows"] = [row(name, method, runs) for method in wanted[name]] + table.pop("skipped")
    environment = describe_environment([])
    measured = {
        "command": f"python benchmarks/methods.py {'--data DIR ' * bool(options.data)}--workers {options.workers}",
        "date": environment["started"][:10],
        "minutes": (time.perf_counter() - started) / 60,
        "workers": options.workers,
        "protocol": protocol(options.seeds),
        "environment": {key: environment[key] for key in ("python", "packages", "processor", "cpu_count", "gpus")},
        "settings": list(tables.values()),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(measured, indent=1) + "\n")
    print(results(measured))


def protocol(seeds: int) -> str:
    """What was done, in words."""
    return (
        f"Every method has its default parameters and alpha {ALPHA:g} (simkd 1, since it keeps the teacher's own "
        f"classifier); nothing is searched. Mean and standard deviation over {seeds} seeds of the test accuracy after "
        "the last epoch; the difference is paired by seed with the plain student. A setting this small shows that a "
        "method works and what an epoch costs, not which method is best."
    )


def prepared(name: str, written: dict[str, Any]) -> dict[str, Any]:
    """Data, teacher and its stored outputs, made once; returns what the table's head says."""
    spec = SweepSpec.model_validate(written)
    sweep = spec.sweep_dir
    sweep.root.mkdir(parents=True)
    data = datasets.prepare(spec.dataset, spec.seed, sweep.store)
    datasets.prepare_test(spec.dataset, data)
    report(f"{name}: teacher")
    card = provide_teacher(spec, sweep, data, CPU, lambda metrics: report(f"{name}: teacher {metrics['val_accuracy']}"))
    sweep.data.write_text(str(data.root))
    bench = open_workbench(spec, sweep, data, CPU)
    student, train = spec.student.model, spec.train
    return {
        "name": name,
        "title": name,
        "about": f"{len(bench.train):,} training images, {train.epochs} epochs of batch {train.batch_size} with "
        f"{train.optimizer} at {train.lr:g}, {spec.teacher.model}"
        + (f" of width {spec.teacher.width:g}" if spec.teacher.width != 1 else "")
        + f" ({card.parameters:,} parameters) to {student}.",
        "teacher_accuracy": evaluate(bench.teacher._tapped.model, bench.test)[0],
        "trivial": float(bench.test.labels.bincount().max()) / len(bench.test),
        "skipped": [],
    }


def share_out(tables: dict[str, dict[str, Any]], wanted: list[str]) -> dict[str, list[str]]:
    """Which methods run in which setting; what a pair cannot bridge is noted in its table."""
    return {}


if __name__ == "__main__":
    main()
