"""Distil on stored teacher outputs under MixUp, consistently and patiently, and from a pool of views.

    python benchmarks/views.py --data cifar10

`--data` is an image folder with `train/` and `test/`. Three questions, each answered with small models on `--images`
training images:

1. Does kd with crops, flips and MixUp give the same curve from stored outputs as with the teacher in the loop, and in
   what fraction of the time?
2. Beyer et al. 2022 (arXiv:2106.05237): is it better to show teacher and student the same view, and to train longer?
   `fixed` shows the teacher the images as they are and the student crops and flips; `same` shows both the same view.
3. How many views does a pool need that the epochs cycle through, compared with a new view in every epoch?

Students are trained with the distillation term alone (alpha 1); accuracies are those of the last epoch on the test
split.
"""

from __future__ import annotations

import json
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from measure import MEASURED, arguments, report, say

import kdsweep
from kdsweep import tasks
from kdsweep.config.recipes import trial_recipe
from kdsweep.config.spec import SweepSpec
from kdsweep.teacher.outputs import StoredTeacher
from kdsweep.training.evaluate import evaluate
from kdsweep.training.trainer import Training
from kdsweep.worker import process
from kdsweep.worker.workbench import Workbench, provide_teacher

CPU = torch.device("cpu")
CROPS, MIXED = "crop_flip", "crop+flip+mixup"
POOLS = (1, 4)


def main() -> None:
    """Train everything and print three tables."""
    parser = arguments(__doc__.splitlines()[0], "views")
    parser.set_defaults(repeats=2)
    parser.add_argument("--data", required=True, help="an image folder with train/ and test/")
    parser.add_argument("--images", type=int, default=10_000, help="training images, of which a tenth are held out")
    parser.add_argument("--short", type=int, default=5, help="epochs of a short training")
    parser.add_argument("--long", type=int, default=20, help="epochs of a long training")
    parser.add_argument("--teacher-epochs", type=int, default=15)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    spec = spec_of(options)
    root, teacher = prepared(spec)
    say(f"teacher: {teacher}")
    equal = same_curve(spec, root)
    jobs = [(name, augment, views, epochs) for name, augment, views, epochs in conditions(options)]
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        running = [
            (job, pool.submit(student, spec, root, seed, *job)) for job in jobs for seed in range(options.repeats)
        ]
        found = [{"what": job[0], "epochs": job[3], "accuracy": one.result()} for job, one in running]
    details = {"teacher": teacher, "equal": equal, "runs": found}
    report(f"Stored outputs under MixUp; teacher {teacher}", equal["rows"], details, options.out)
    report("Same views and patience (test accuracy, mean and each seed)", table(found), details, options.out)


def conditions(options: Any) -> list[tuple[str, str, int, int]]:
    """The trainings: name, the student's transforms, number of views (0: new ones) and epochs."""
    found = []
    for epochs in (options.short, options.long):
        found += [("fixed teacher, crop_flip", CROPS, -1, epochs), ("same views, crop_flip", CROPS, 0, epochs)]
        found += [("same views, crop_flip + MixUp", MIXED, 0, epochs)]
    return found + [(f"pool of {views}, crop_flip + MixUp", MIXED, views, options.long) for views in POOLS]


def spec_of(options: Any) -> SweepSpec:
    """The sweep that the trainings belong to."""
    return kdsweep.load_spec({
        "name": "views",
        "dataset": {
            "name": "image_folder", "root": options.data, "subset": options.images, "augment": CROPS, "resize": 32,
        },
        "teacher": {
            "model": "tutorial_teacher", "width": 0.5,
            "train": {"epochs": options.teacher_epochs, "lr": 2e-3, "precision": "float32"},
        },
        "student": {"model": "lightnn"},
        "space": {
            "method": "kd", "width": 0.5, "augment": {"choice": ["none", CROPS, MIXED]}, "kd": {"temperature": 2.0},
        },
        "train": {"epochs": options.long, "batch_size": 128, "lr": 2e-3, "precision": "float32"},
        "storage": str(MEASURED / "runs"),
    })  # fmt: skip


def prepared(spec: SweepSpec) -> tuple[Path, dict[str, Any]]:
    """Prepare the data and train the teacher, if they are not there. Return where the data is, and the teacher."""
    process.set_up(1)
    task = tasks.of(spec.dataset)
    data = task.prepare(spec.dataset, spec.seed, spec.sweep_dir.store)
    task.prepare_test(spec.dataset, data)
    made = provide_teacher(
        spec, spec.sweep_dir, data, CPU, lambda metrics: say(f"teacher: {metrics['val_accuracy']:.3f}")
    )
    bench = opened(spec, data.root)
    tested = evaluate(bench.teacher.model, bench.test, data.task.measured(("val_accuracy",), data.num_classes))
    return data.root, {
        "model": made.model, "parameters": made.parameters, "test_accuracy": round(tested["accuracy"], 4)
    }  # fmt: skip


def opened(spec: SweepSpec, root: Path) -> Workbench:
    """Open a workbench in one process of one thread."""
    process.set_up(1)
    return Workbench.of(spec, spec.sweep_dir, tasks.of(spec.dataset).load(root), CPU)


def config_of(augment: str) -> dict[str, Any]:
    return {"method": "kd", "width": 0.5, "lr": 2e-3, "alpha": 1.0, "kd.temperature": 2.0, "augment": augment}


def of_length(spec: SweepSpec, epochs: int, views: int) -> SweepSpec:
    """The spec with another budget and pool."""
    return spec.replaced(
        train=spec.train.model_copy(update={"epochs": epochs}),
        dataset=spec.dataset.model_copy(update={"views": max(views, 0)}),
    )


def same_curve(spec: SweepSpec, root: Path, epochs: int = 4) -> dict[str, Any]:
    """Train with the teacher in the loop, from stored outputs that are computed now, and from those that are there."""
    short = of_length(spec, epochs, 0)
    curves, seconds = [], []
    for name in ("loop", "first", "later"):
        bench = opened(short, root)
        if name == "first":  # stored outputs of earlier runs would hide what the first trial pays
            store = bench.outputs_of(MIXED).store
            for epoch in range(1, epochs + 1):
                for path in store.view_root(epoch).glob("*"):
                    path.unlink()
        recipe = trial_recipe(short, config_of(MIXED), 1)
        source = bench.teacher if name == "loop" else bench.source(recipe)
        assert name == "loop" or isinstance(source, StoredTeacher)
        training = Training(recipe, bench.data, bench.train, bench.val, source)
        started = time.process_time()
        curves.append([value for _ in range(epochs) for value in losses(training.run_epoch())])
        seconds.append(time.process_time() - started)
    largest = [max(abs(a - b) / abs(a) for a, b in zip(curves[0], curve, strict=True)) for curve in curves]
    names = ("teacher in the loop", "stored outputs, first trial (computes them)", "stored outputs, later trials")
    rows = [
        {
            "what": name, "CPU seconds per epoch": f"{took / epochs:.2f}", "of the time": f"{took / seconds[0]:.2f}",
            "largest relative difference of a loss": f"{away:.1e}",
        }
        for name, took, away in zip(names, seconds, largest, strict=True)
    ]  # fmt: skip
    for row in rows:
        say(str(row))
    return {"rows": rows, "curves": curves, "seconds": seconds}


def losses(metrics: dict[str, float]) -> tuple[float, float]:
    return metrics["train_loss"], metrics["val_loss"]


def student(spec: SweepSpec, root: Path, seed: int, name: str, augment: str, views: int, epochs: int) -> float:
    """Train one student; return its test accuracy."""
    bench = opened(of_length(spec, epochs, views), root)
    recipe = trial_recipe(bench.spec, config_of(augment), seed + 1)
    source = bench.source(recipe)
    if views < 0:
        source = StoredTeacher(bench.outputs_of("none"), frozenset({"logits"}), bench.example)
    training = Training(recipe, bench.data, bench.train, bench.val, source)
    while not training.done:
        training.run_epoch()
    metrics = bench.data.task.measured(("val_accuracy",), bench.data.num_classes)
    accuracy = evaluate(training.inference, bench.test, metrics)["accuracy"]
    log = Path(MEASURED / "views.jsonl")
    with log.open("a") as file:
        file.write(json.dumps({"what": name, "epochs": epochs, "seed": seed, "accuracy": accuracy}) + "\n")
    say(f"{name}, {epochs} epochs, seed {seed}: {accuracy:.4f}")
    return accuracy


def table(found: list[dict[str, Any]]) -> list[dict[str, object]]:
    """One row per condition and budget."""
    rows: dict[tuple[str, int], list[float]] = {}
    for run in found:
        rows.setdefault((run["what"], run["epochs"]), []).append(run["accuracy"])
    return [
        {"what": what, "epochs": epochs, "test accuracy": f"{statistics.mean(values):.2%}",
         "seeds": ", ".join(f"{value:.2%}" for value in values)}
        for (what, epochs), values in rows.items()
    ]  # fmt: skip


if __name__ == "__main__":
    main()
