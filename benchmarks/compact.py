"""Measure the effect of storing stage maps in bfloat16 on accuracy.

Teacher outputs are stored in float32, except stage maps, which are large and stored in bfloat16. Each method that uses
stage maps trains once with stored maps and once with the teacher in the loop in float32, with the same seeds.

    python benchmarks/compact.py
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import torch
from measure import arguments, report, say

from kdsweep.config.spec import SweepSpec
from kdsweep.tasks.image import splits as datasets
from kdsweep.training.trainer import Training
from kdsweep.worker import process
from kdsweep.worker.workbench import Workbench, open_workbench, provide_teacher

METHODS = ("hint", "sp", "nst", "vid", "reviewkd", "ofd")
CPU = torch.device("cpu")
EPOCHS = 5


def main() -> None:
    """Train both ways and compare."""
    parser = arguments(__doc__.splitlines()[0], "compact")
    options = parser.parse_args()
    process.set_up(threads=1)
    rows, details = [], {}
    with tempfile.TemporaryDirectory(prefix="kdsweep-compact-") as folder:
        stored, in_loop = (bench(Path(folder), name, gigabytes) for name, gigabytes in (("stored", 8.0), ("loop", 0.0)))
        for method in METHODS:
            runs = [(trained(stored, method, seed), trained(in_loop, method, seed)) for seed in range(options.repeats)]
            details[method] = runs
            say(f"{method}: {runs}")
            differences = [100 * (kept - exact) for kept, exact in runs]
            rows.append({
                "method": method,
                "stored, bfloat16": f"{statistics.mean(kept for kept, _ in runs):.2%}",
                "in the loop, float32": f"{statistics.mean(exact for _, exact in runs):.2%}",
                "difference, points": f"{statistics.mean(differences):+.2f} ± {statistics.stdev(differences):.2f}",
            })  # fmt: skip
    report(
        f"stored stage maps and teacher in the loop, {options.repeats} seeds, val accuracy",
        rows,
        {"runs": details},
        options.out,
    )


def bench(folder: Path, name: str, gigabytes: float) -> Workbench:
    """Prepare digits and their teacher, with a disk budget for its outputs."""
    spec = SweepSpec.model_validate({
        "name": name,
        "dataset": {"name": "mnist_mini", "val_fraction": 0.5},
        "teacher": {"model": "mnist_teacher", "width": 0.25, "checkpoint": "kdsweep:mnist_mini_teacher",
                    "cache_gb": gigabytes},
        "student": {"model": "mnist_student"},
        "space": {"method": list(METHODS)},
        "train": {"epochs": EPOCHS, "batch_size": 64, "lr": 3e-3, "precision": "float32"},
        "storage": str(folder),
    })  # fmt: skip
    data = datasets.prepare(spec.dataset, spec.seed, spec.sweep_dir.store)
    provide_teacher(spec, spec.sweep_dir, data, CPU, lambda metrics: None)
    return open_workbench(spec, spec.sweep_dir, data, CPU)


def trained(where: Workbench, method: str, seed: int) -> float:
    """Best validation accuracy of one run with the method's default parameters."""
    config = {"method": method, "width": 0.5, "alpha": 0.5, "lr": 3e-3}
    training: Training = where.training(config, seed, Path("no state"))
    while not training.done:
        training.run_epoch()
    return training.best_value


if __name__ == "__main__":
    main()
