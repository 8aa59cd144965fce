"""Show how misleading accuracy on the training images is.

    python benchmarks/training_images.py runs/course

For the teacher of a sweep and the saved weights of its trials, print the accuracy on their training images and on the
validation split.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import kdsweep
from kdsweep import models
from kdsweep.storage import weights
from kdsweep.tasks.image.splits import PreparedData, prepare
from kdsweep.tasks.metrics import METRICS
from kdsweep.training.evaluate import evaluate


def main() -> None:
    """Print one line per model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sweep", type=Path)
    results = kdsweep.load_results(parser.parse_args().sweep)
    spec = results.spec
    data = prepare(spec.dataset, spec.seed, spec.sweep_dir.store)
    print("| model | on its training images | on the validation split |\n|---|---|---|")
    print(row("teacher", spec.teacher.model, spec.teacher.width, results.sweep.teacher_weights, data))
    for trial in results.best(len(results.trials)).to_dict("records"):
        best = results.sweep.trial(trial["trial"]).best
        print(row(trial["method"], spec.student.model, trial["width"], best, data))


def row(name: str, model: str, width: float, path: Path, data: PreparedData) -> str:
    """One model's accuracies."""
    network = models.architecture(model, data.input_shape, data.num_classes, width)
    network.load_state_dict(weights.load(path))
    accuracy = {"accuracy": METRICS["accuracy"]}
    cpu = torch.device("cpu")
    measured = (evaluate(network, data.split(split, cpu), accuracy)["accuracy"] for split in ("train", "val"))
    return " | ".join([f"| {name}", *(f"{accuracy:.2%}" for accuracy in measured)]) + " |"


if __name__ == "__main__":
    main()
