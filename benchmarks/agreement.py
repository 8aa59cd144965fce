"""Check whether kdsweep's optimisations cost accuracy, by comparing a kd student with a plain training loop.

The plain loop runs the teacher in every batch, uses float32 throughout, and shares no training code with kdsweep. It
trains the settings of one confirmed trial on the same split with its own seeds, selects the best epoch on the
validation split and uses the test split once, like the sweep's confirmation.

    python benchmarks/agreement.py runs/tutorial_points --trial 1 [--beside runs/tutorial_auto]

Sweeps given by --beside must have confirmed the same settings, for example with another precision.
"""

from __future__ import annotations

import math
import statistics
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from measure import arguments, report, say
from torch.nn import functional as F

import kdsweep
from kdsweep.storage import weights
from kdsweep.tasks.image.splits import PreparedData, prepare
from kdsweep.worker import process


def main() -> None:
    """Train the plain loop and compare."""
    parser = arguments(__doc__.splitlines()[0], "agreement")
    parser.add_argument("sweep", type=Path, help="a sweep that confirmed a kd trial")
    parser.add_argument("--trial", default="1", help="the trial: its key or number")
    parser.add_argument("--beside", type=Path, nargs="*", default=[], help="sweeps that confirmed the same settings")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    config = kdsweep.load_results(options.sweep).config(options.trial)
    if config["method"] != "kd":
        raise SystemExit(f"trial {options.trial} uses {config['method']}; accepted: a kd trial")
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(by_hand, options.sweep, config, seed) for seed in range(options.repeats)]
        found = [job.result() for job in jobs]
    rows = [row_of("hand-written loop: teacher in the loop, float32", found)]
    for folder in (options.sweep, *options.beside):
        rows.append(row_of(f"sweep {folder.name}", confirmed(folder, config)))
    report(f"kd in a hand-written loop and in a sweep: {config}", rows, {"by_hand": found}, options.out)


def row_of(name: str, runs: list[dict[str, float]]) -> dict[str, object]:
    """Mean and spread over the seeds."""
    row: dict[str, object] = {"what": name, "seeds": len(runs)}
    for split in ("val", "test"):
        values = [run[f"{split}_accuracy"] for run in runs]
        spread = statistics.stdev(values) if len(values) > 1 else math.nan
        row[f"{split} accuracy"] = f"{statistics.mean(values):.2%} ± {spread:.2%}"
    return row


def confirmed(folder: Path, config: dict[str, Any]) -> list[dict[str, float]]:
    """The sweep's confirmation results for these settings, seed by seed."""
    import json

    from kdsweep.seeds import digest_of

    found = sorted((folder / "confirmed").glob(f"{digest_of(config)[:12]}-*/result.json"))
    if not found:
        raise SystemExit(f"{folder}: has not confirmed {config}")
    return [json.loads(path.read_text()) for path in found]


def by_hand(folder: Path, config: dict[str, Any], seed: int) -> dict[str, float]:
    """One run in plain PyTorch."""
    torch.set_num_threads(1)
    process.keep_freed_memory()  # the only part of kdsweep's process setup used here
    torch.manual_seed(seed)
    spec = kdsweep.load_results(folder).spec
    data = prepare(spec.dataset, spec.seed, spec.sweep_dir.store)
    train, val, test = (arrays(data, split) for split in ("train", "val", "test"))
    teacher = kdsweep.models.build(spec.teacher.model, data.input_shape, data.num_classes, spec.teacher.width)
    teacher.load_state_dict(weights.load(folder / "teacher" / "model.safetensors"))
    student = kdsweep.models.build(spec.student.model, data.input_shape, data.num_classes, float(config["width"]))
    for model in (teacher.eval(), student):
        model.to(memory_format=torch.channels_last)
    mean, std = (torch.tensor(values)[:, None, None] for values in (data.mean, data.std))
    optimizer = torch.optim.Adam(student.parameters(), lr=config["lr"])
    temperature, alpha = config["temperature"], config["alpha"]

    def inputs(images: torch.Tensor) -> torch.Tensor:
        return ((images.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)

    def accuracy(images: torch.Tensor, labels: torch.Tensor) -> float:
        student.eval()
        with torch.no_grad():
            parts = zip(images.split(500), labels.split(500), strict=True)
            return sum(int((student(inputs(x)).argmax(1) == y).sum()) for x, y in parts) / len(labels)

    best, state = -1.0, {}
    for epoch in range(spec.train.epochs):
        student.train()
        for index in torch.randperm(len(train[1])).split(spec.train.batch_size):
            images, labels = inputs(train[0][index]), train[1][index]
            with torch.no_grad():
                targets = F.softmax(teacher(images) / temperature, dim=1)
            logits = student(images)
            soft = (targets * (targets.log() - F.log_softmax(logits / temperature, dim=1))).sum(1).mean()
            loss = (1 - alpha) * F.cross_entropy(logits, labels) + alpha * temperature**2 * soft
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        reached = accuracy(*val)
        say(f"seed {seed}, epoch {epoch + 1}: val accuracy {reached:.4f}")
        if reached > best:
            best, state = reached, {name: tensor.clone() for name, tensor in student.state_dict().items()}
    student.load_state_dict(state)
    return {"val_accuracy": best, "test_accuracy": accuracy(*test)}


def arrays(data: PreparedData, split: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 images [N, C, H, W] and labels [N]."""
    images = data.split(split, torch.device("cpu"))
    return images.images, images.labels


if __name__ == "__main__":
    main()
