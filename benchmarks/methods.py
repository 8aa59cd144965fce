"""Compare every method, at its default parameters, with the plain student on parts of MNIST and of an image folder.

Nothing is searched or selected: one fixed setting, test accuracy after the last epoch, three seeds, each paired with
the plain student of the same seed. This shows that every method works and what it costs. It does not show which method
is best: that takes a search over each method's weight and alpha.

    python benchmarks/methods.py --data DIR --workers 2

DIR is an image folder (train/CLASS/IMAGE and test/CLASS/IMAGE), such as CIFAR-10. Without it only MNIST is used. The
script prints the tables and writes all measurements to docs/data/methods.json; run benchmarks/methods_page.py to update
docs/methods.md.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from typing import Any

import torch
from measure import say
from methods_page import MEASURED, results

from kdsweep.config.spec import SweepSpec, read_spec
from kdsweep.errors import MethodError
from kdsweep.methods import METHODS
from kdsweep.storage.environment import describe_environment
from kdsweep.storage.paths import SweepDir
from kdsweep.tasks.image import splits as datasets
from kdsweep.tasks.image.splits import PreparedData
from kdsweep.tasks.metrics import METRICS
from kdsweep.training.evaluate import evaluate
from kdsweep.worker import process
from kdsweep.worker.workbench import Workbench, open_workbench, provide_teacher

ALPHA, OTHER_ALPHAS = 0.5, {"simkd": 1.0, "none": 0.0}
CPU = torch.device("cpu")
PROTOCOL = (
    f"Every method has its default parameters and alpha {ALPHA:g} (`simkd` 1: its student keeps the teacher's "
    "classifier). Nothing is searched or selected: test accuracy after the last epoch, mean and standard deviation of "
    "{seeds} seeds, gain over the plain student paired by seed. A setting this small shows that a method works and "
    "what it costs, not which method is best; for that, search weight and alpha."
)


def mnist(storage: Path) -> SweepSpec:
    """2,000 digits and the teacher that is included in kdsweep."""
    return _spec(
        storage,
        name="mnist_mini",
        dataset={"name": "mnist_mini", "val_fraction": 0.5},
        teacher={"model": "mnist_teacher", "width": 0.25, "checkpoint": "kdsweep:mnist_mini_teacher"},
        student={"model": "mnist_student"},
        train={"epochs": 5, "batch_size": 64, "lr": 3e-3},
    )


def folder(storage: Path, root: Path, pair: tuple[str, str], images: int, for_teacher: int, epochs: int) -> SweepSpec:
    """A part of an image folder; the teacher is trained on a larger part."""
    teacher, student = pair
    dataset = {"name": "image_folder", "root": str(root), "subset": for_teacher, "val_fraction": 1000 / for_teacher}
    trained = {"model": teacher, "width": 0.5, "train": {"epochs": epochs, "batch_size": 64}}
    name = f"{root.name}-{student}"
    sections = {"name": name, "dataset": dataset, "teacher": trained, "student": {"model": student}}
    alone = _spec(storage, **{**sections, "name": f"{name}-teacher"})
    prepare(alone)
    return _spec(
        storage,
        **sections
        | {"dataset": dataset | {"subset": images + 1000, "val_fraction": 1000 / (images + 1000)}}
        | {"teacher": {"model": teacher, "width": 0.5, "checkpoint": str(alone.sweep_dir.teacher_weights)}},
        train={"epochs": 5, "batch_size": 64},
    )


def _spec(storage: Path, **sections: Any) -> SweepSpec:
    space = {"method": list(METHODS), "width": 1.0}
    return SweepSpec.model_validate({**sections, "space": space, "storage": str(storage)})


def main() -> None:
    """Run everything, print the tables and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="an image folder")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="METHOD")
    parser.add_argument("--out", type=Path, default=MEASURED)
    options = parser.parse_args()
    started = time.perf_counter()
    process.set_up(options.workers)
    with (
        tempfile.TemporaryDirectory() as storage,
        ProcessPoolExecutor(options.workers, multiprocessing.get_context("spawn")) as pool,
    ):
        plan = planned(Path(storage), options.data, options.methods)
        tables = [measure(pool, spec, names, options.seeds) for spec, names in plan]
    environment = describe_environment([])
    measured = {
        "command": f"python benchmarks/methods.py {'--data DIR ' * bool(options.data)}--workers {options.workers}",
        "date": environment["started"][:10],
        "minutes": (time.perf_counter() - started) / 60,
        "workers": options.workers,
        "protocol": PROTOCOL.format(seeds=options.seeds),
        "environment": {key: environment[key] for key in ("python", "packages", "processor", "cpu_count")},
        "settings": tables,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(measured, indent=1) + "\n")
    print(results(measured))


def planned(storage: Path, root: Path | None, names: list[str]) -> Iterable[tuple[SweepSpec, list[str]]]:
    """Settings and their methods; methods that cannot connect the first pair of models run on a second pair."""
    yield mnist(storage), names
    if root is not None:
        here = root.absolute()
        spec = folder(storage, here, ("tutorial_teacher", "lightnn"), 5000, 12000, 4)
        yield spec, names
        refused = [name for name in names if refusal(spec.sweep_dir.root, name)]
        if refused:
            yield folder(storage, here, ("resnet8x4", "resnet8"), 2000, 4000, 3), refused


def measure(pool: ProcessPoolExecutor, spec: SweepSpec, names: list[str], seeds: int) -> dict[str, Any]:
    """Run one setting: the teacher, then every method with every seed."""
    about = prepare(spec)
    root = spec.sweep_dir.root
    skipped = {name: refusal(root, name) for name in names}
    wanted = ["none", *(name for name in names if name != "none" and not skipped[name])]
    pending = {pool.submit(train, root, name, seed): (name, seed) for name in wanted for seed in range(seeds)}
    found: dict[tuple[str, int], dict[str, float]] = {}
    for future in as_completed(pending):
        found[pending[future]] = future.result()
        say(f"{spec.name}: {len(found)} of {len(pending)}, {pending[future]} {future.result()}")
    rows = [row(name, seeds, found) for name in wanted]
    rows += [{"method": name, "skipped": reason} for name, reason in skipped.items() if reason]
    return {**about, "rows": rows}


def prepare(spec: SweepSpec) -> dict[str, Any]:
    """Prepare the data, the teacher and its stored outputs; return the description of the setting."""
    sweep = spec.sweep_dir
    sweep.root.mkdir(parents=True)
    spec.save(sweep.spec)
    data = datasets.prepare(spec.dataset, spec.seed, sweep.store)
    datasets.prepare_test(spec.dataset, data)
    sweep.data.write_text(str(data.root))
    card = provide_teacher(spec, sweep, data, CPU, lambda metrics: say(f"{spec.name}: teacher {metrics}"))
    bench = workbench(sweep.root)
    where = Path(spec.dataset.root).name if spec.dataset.name == "image_folder" else spec.dataset.name
    images = torch.cat([batch for batch, _ in bench.test.batches(512)])
    logits = torch.cat([bench.teacher.outputs(batch).logits for batch in images.split(512)])
    train, width = spec.train, f" of width {spec.teacher.width:g}" if spec.teacher.width != 1 else ""
    return {
        "title": f"{where}, {spec.teacher.model}{width} to {spec.student.model}",
        "about": f"{len(bench.train):,} training images, {train.epochs} epochs of batch {train.batch_size}, "
        f"{train.optimizer} with learning rate {train.lr:g}, {train.schedule} schedule.",
        "teacher_parameters": card.parameters,
        "teacher_accuracy": float((logits.argmax(1) == bench.test.labels).float().mean()),
        "trivial": float(bench.test.labels.bincount().max()) / len(bench.test),
    }


@cache
def workbench(root: Path) -> Workbench:
    """The setting's workbench, opened once in each process."""
    sweep = SweepDir(root)
    return open_workbench(read_spec(sweep), sweep, PreparedData.load(Path(sweep.data.read_text())), CPU)


def config(root: Path, name: str) -> dict[str, Any]:
    """The fixed configuration of one method."""
    return {"method": name, "width": 1.0, "alpha": OTHER_ALPHAS.get(name, ALPHA), "lr": workbench(root).spec.train.lr}


def refusal(root: Path, name: str) -> str:
    """Why a method cannot connect the setting's models; empty if it can."""
    try:
        workbench(root).training(config(root, name), 0, root / "none")
    except MethodError as error:
        return str(error)
    return ""


def train(root: Path, name: str, seed: int) -> dict[str, float]:
    """Train one student in a worker process."""
    process.set_up(threads=1)
    bench = workbench(root)
    training = bench.training(config(root, name), seed, root / "none")
    started = time.process_time()
    while not training.done:
        training.run_epoch()
    seconds = time.process_time() - started
    accuracy = evaluate(training.inference, bench.test, {"accuracy": METRICS["accuracy"]})["accuracy"]
    return {"accuracy": accuracy, "epoch_seconds": seconds / training.epoch}


def row(name: str, seeds: int, found: dict[tuple[str, int], dict[str, float]]) -> dict[str, Any]:
    """Mean and spread of one method and of its gain over the plain student."""
    values = [found[name, seed]["accuracy"] for seed in range(seeds)]
    gains = [value - found["none", seed]["accuracy"] for seed, value in enumerate(values)]
    return {
        "method": name,
        "alpha": OTHER_ALPHAS.get(name, ALPHA),
        "accuracies": values,
        "mean": statistics.mean(values),
        "std": statistics.stdev(values) if seeds > 1 else 0.0,
        "gain": statistics.mean(gains),
        "gain_std": statistics.stdev(gains) if seeds > 1 else 0.0,
        "epoch_seconds": statistics.mean(found[name, seed]["epoch_seconds"] for seed in range(seeds)),
    }


if __name__ == "__main__":
    main()
