"""What a student loses if it sees only the largest logits of its teacher, and what they save on disk.

    python benchmarks/keep_logits.py --cifar cifar10

`--cifar` is an image folder with `train/` and `test/`; `mnist_mini` is part of kdsweep. Students are trained with the
distillation term alone (alpha 1), with the same seeds for every `teacher.keep_logits`; accuracies are those of the last
epoch on the test split, and differences are paired by seed.
"""

from __future__ import annotations

import statistics
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from measure import MEASURED, arguments, report, say

import kdsweep
from kdsweep import tasks
from kdsweep.config.recipes import trial_recipe
from kdsweep.config.spec import SweepSpec
from kdsweep.results.gains import interval
from kdsweep.teacher.kept import KeptLogits
from kdsweep.training.evaluate import evaluate
from kdsweep.training.trainer import Training
from kdsweep.worker import process
from kdsweep.worker.workbench import Workbench, provide_teacher

CPU = torch.device("cpu")
CLASSES = 10
KEPT = (1, 2, 5, "all")
TEMPERATURES = (1.0, 4.0)


def main() -> None:
    """Train everything and print a table."""
    parser = arguments(__doc__.splitlines()[0], "keep_logits")
    parser.set_defaults(repeats=5)
    parser.add_argument("--cifar", required=True, help="an image folder with train/ and test/")
    parser.add_argument(
        "--images", type=int, default=5_000, help="training images of it, of which a tenth are held out"
    )
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    specs = {"mnist_mini": mnist(), "CIFAR-10": cifar(options)}
    teachers = {name: teacher(name, spec) for name, spec in specs.items()}
    jobs = list(product(specs, TEMPERATURES, KEPT, range(options.repeats)))
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        running = {job: pool.submit(student, specs[job[0]], *job) for job in jobs}
        found = {job: one.result() for job, one in running.items()}
    runs = [{"data": job[0], "temperature": job[1], "keep_logits": job[2], "seed": job[3], "accuracy": accuracy}
            for job, accuracy in found.items()]  # fmt: skip
    title = f"Students of few logits; teachers {', '.join(f'{name} {value:.2%}' for name, value in teachers.items())}"
    report(title, table(specs, found, options.repeats), {"teachers": teachers, "runs": runs}, options.out)


def mnist() -> SweepSpec:
    """Return the sweep of the small MNIST that kdsweep contains, with the teacher that it contains."""
    return spec_of("keep-mnist", {"name": "mnist_mini", "val_fraction": 0.1}, "mnist_student", 10, {
        "model": "mnist_teacher", "width": 0.25, "checkpoint": "kdsweep:mnist_mini_teacher",
    })  # fmt: skip


def cifar(options: Any) -> SweepSpec:
    """Return the sweep of the image folder."""
    data = {"name": "image_folder", "root": options.cifar, "subset": options.images, "resize": 32}
    return spec_of("keep-cifar", data, "lightnn", 8, {
        "model": "tutorial_teacher", "width": 0.5, "train": {"epochs": 10, "lr": 2e-3, "precision": "float32"},
    })  # fmt: skip


def spec_of(name: str, data: dict[str, Any], student: str, epochs: int, teacher: dict[str, Any]) -> SweepSpec:
    """Return a sweep of kd."""
    return kdsweep.load_spec({
        "name": name, "dataset": data, "teacher": teacher, "student": {"model": student},
        "space": {"method": "kd", "width": 0.5, "alpha": 1.0, "kd": {"temperature": {"uniform": [1.0, 4.0]}}},
        "train": {"epochs": epochs, "batch_size": 64, "lr": 2e-3, "precision": "float32"},
        "storage": str(MEASURED / "runs"),
    })  # fmt: skip


def teacher(name: str, spec: SweepSpec) -> float:
    """Prepare the data and the teacher, if they are not there; return its test accuracy."""
    process.set_up(1)
    task = tasks.of(spec.dataset)
    data = task.prepare(spec.dataset, spec.seed, spec.sweep_dir.store)
    task.prepare_test(spec.dataset, data)
    provide_teacher(
        spec, spec.sweep_dir, data, CPU, lambda metrics: say(f"{name}: teacher {metrics['val_accuracy']:.3f}")
    )
    bench = opened(spec)
    tested = evaluate(bench.teacher.model, bench.test, data.task.measured(("val_accuracy",), data.num_classes))
    return round(tested["accuracy"], 4)


def opened(spec: SweepSpec) -> Workbench:
    """Open a workbench in one process of one thread."""
    process.set_up(1)
    data = tasks.of(spec.dataset).prepare(spec.dataset, spec.seed, spec.sweep_dir.store)
    return Workbench.of(spec, spec.sweep_dir, data, CPU)


def student(spec: SweepSpec, name: str, temperature: float, keep: int | str, seed: int) -> float:
    """Train one student; return its test accuracy."""
    bench = opened(spec.replaced(teacher=spec.teacher.model_copy(update={"keep_logits": keep})))
    config = {"method": "kd", "width": 0.5, "lr": 2e-3, "alpha": 1.0, "kd.temperature": temperature}
    recipe = trial_recipe(bench.spec, config, seed + 1)
    training = Training(recipe, bench.data, bench.train, bench.val, bench.source(recipe))
    while not training.done:
        training.run_epoch()
    metrics = bench.data.task.measured(("val_accuracy",), bench.data.num_classes)
    accuracy = evaluate(training.inference, bench.test, metrics)["accuracy"]
    say(f"{name}, T {temperature:g}, keep_logits {keep}, seed {seed}: {accuracy:.4f}")
    return accuracy


def table(specs: dict[str, SweepSpec], found: dict[Any, float], repeats: int) -> list[dict[str, object]]:
    """One row per data set, temperature and number of logits, with the interval of the paired difference."""
    rows = []
    for name, temperature, keep in product(specs, TEMPERATURES, KEPT):
        own, every = ([found[name, temperature, one, seed] for seed in range(repeats)] for one in (keep, "all"))
        differences = 100 * (np.array(own) - np.array(every))
        low, high = (0.0, 0.0) if keep == "all" else interval(differences)
        rows.append({
            "data": name, "temperature": f"{temperature:g}", "keep_logits": keep,
            "bytes per image": KeptLogits.of(keep).size(CLASSES), "test accuracy": f"{statistics.mean(own):.2%}",
            "points against all (95 %)": f"{differences.mean():+.2f} ({low:+.2f} to {high:+.2f})",
        })  # fmt: skip
    return rows


if __name__ == "__main__":
    main()
