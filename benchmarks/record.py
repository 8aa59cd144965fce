"""Records learning curves of random configurations, each trained to its last epoch; benchmarks/search.py replays them.

    python benchmarks/record.py mnist_mini
    python benchmarks/record.py cifar10 --images DIR

DIR is an image folder (train/CLASS/IMAGE and test/CLASS/IMAGE) with CIFAR-10's images. The recording is a sweep of its
own, without early stopping, so an interrupted one is continued by the same command. It ends as a table in
benchmarks/data/NAME.parquet: one row per trial and epoch, with the trial's settings.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import kdsweep
from kdsweep.errors import SweepDirError

DATA = Path(__file__).parent / "data"
SPACE = {
    "method": ["none", "kd", "dkd", "dist", "hint", "at"],
    "width": {"choice": [0.25, 0.5, 1.0]},
    "temperature": {"loguniform": [1, 16]},
    "alpha": {"uniform": [0.05, 0.95]},
    "lr": {"loguniform": [3e-4, 3e-2]},
}
MNIST: dict[str, Any] = {
    "dataset": {"name": "mnist_mini", "val_fraction": 0.5},
    "teacher": {"model": "mnist_teacher", "width": 0.25, "checkpoint": "kdsweep:mnist_mini_teacher"},
    "student": {"model": "mnist_student"},
    "train": {"epochs": 18, "batch_size": 64, "precision": "float32"},
}
CIFAR10: dict[str, Any] = {
    "dataset": {"name": "image_folder", "subset": 6000, "val_fraction": 1 / 3},
    "teacher": {"model": "tutorial_teacher", "width": 0.5, "train": {"epochs": 12, "batch_size": 64}},
    "student": {"model": "lightnn"},
    "train": {"epochs": 18, "batch_size": 128, "precision": "float32"},
}


def main() -> None:
    """Run or continue the recording, and write its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["mnist_mini", "cifar10"])
    parser.add_argument("--images", type=Path, help="an image folder; only for cifar10")
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--storage", type=Path, default=Path("runs"))
    options = parser.parse_args()
    sections = MNIST if options.name == "mnist_mini" else CIFAR10
    if options.name == "cifar10":
        if options.images is None:
            parser.error("cifar10 needs --images DIR")
        sections = sections | {"dataset": sections["dataset"] | {"root": str(options.images.absolute())}}
    results = record(f"record_{options.name}", sections, options.trials, options.storage)
    DATA.mkdir(exist_ok=True)
    path = DATA / f"{options.name}.parquet"
    table(results).to_parquet(path, index=False, compression="zstd")
    print(f"{results.trials['trial'].nunique()} configurations written to {path}")


def record(name: str, sections: dict[str, Any], trials: int, storage: Path) -> kdsweep.Results:
    """Every configuration of the recording, trained to its last epoch."""
    values = {
        **sections, "name": name, "space": SPACE, "search": {"sampler": "random", "trials": trials},
        "scheduler": {"name": "none"}, "confirm": {"top": 0}, "storage": str(storage),
    }  # fmt: skip
    storage.mkdir(parents=True, exist_ok=True)
    path = storage / f"{name}.yaml"
    path.write_text(json.dumps(values))
    spec = kdsweep.load_spec(path)
    try:
        return kdsweep.run(spec)
    except SweepDirError:
        return kdsweep.resume(spec.sweep_dir.root, trials)


def table(results: kdsweep.Results) -> Any:
    """One row per trial and epoch: the settings, what the epoch reached and what it cost."""
    trials = results.trials[results.trials["state"] == "COMPLETE"]
    settings = ["method", "width", "temperature", "alpha", "lr"]
    own = [name for name in trials.columns if "." in name and not name.startswith("rung.")]
    epochs = results.epochs[["trial", "epoch", "val_accuracy", "val_loss", "seconds"]]
    merged = epochs.merge(trials[["trial", "number", *settings, *own]], on="trial").drop(columns="trial")
    return merged.sort_values(["number", "epoch"]).reset_index(drop=True)


if __name__ == "__main__":
    main()
