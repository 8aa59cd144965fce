"""Compare the training throughput of a sweep with the best bare training loop on the same cores.

The bare loop is optimised for this machine: one process per core, uint8 images in memory, precomputed teacher logits,
channels-last layout, freed memory retained, denormals flushed to zero, a fused optimizer, the faster of float32 and
bfloat16, validation after each epoch. Bare loop and sweep take turns, so that changes of the machine's speed affect
both.

    python benchmarks/limit.py [--data FOLDER]
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import images
import sweeps
import torch
from measure import arguments, report, say, shown, spread
from torch import multiprocessing
from torch.nn import functional as F
from watch import Stopwatch

import kdsweep
from kdsweep.worker import process

BATCH = 128
TEMPERATURE, ALPHA, RATE = 4.0, 0.5, 1e-3


def main() -> None:
    """Measure both and compare."""
    parser = arguments(__doc__.splitlines()[0], "limit")
    parser.add_argument("--data", type=Path, help="an image folder such as CIFAR-10; default: generated images")
    parser.add_argument(
        "--processes", type=int, default=len(os.sched_getaffinity(0)), help="processes, concurrent trials"
    )
    parser.add_argument("--epochs", type=int, default=10, help="epochs per trial")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--train-images", type=int, default=5000)
    parser.add_argument("--val-images", type=int, default=1000)
    parser.add_argument("--precision", default="auto", help="precision of the sweep's trials")
    options = parser.parse_args()
    bare: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    swept: list[float] = []
    with tempfile.TemporaryDirectory(prefix="kdsweep-limit-") as temporary:
        folder = Path(temporary)
        say("preparing the images and the teacher")
        images.provide(folder, options.data, options.train_images, options.val_images)
        logits = teacher_logits(folder)
        for repeat in range(options.repeats):
            for precision, rates in bare.items():
                rates.append(bare_rate(folder, logits, options.processes, 2 * options.epochs, precision))
            swept.append(sweep_rate(folder, f"limit-{repeat}", options))
            say(f"repeat {repeat + 1}: {[f'{name} {rates[-1]:.0f}' for name, rates in bare.items()]}, {swept[-1]:.0f}")
    rates = {f"bare loop, {name}": spread(values) for name, values in bare.items()} | {"sweep": spread(swept)}
    best = max(bare, key=lambda name: rates[f"bare loop, {name}"]["median"])
    shares = spread([ours / limit for ours, limit in zip(swept, bare[best], strict=True)])
    rows = [
        {"loop": name, "images per second": shown(rate, 0), "share of the best": ""} for name, rate in rates.items()
    ]
    rows[-1]["share of the best"] = shown(shares, 2)
    title = f"{options.processes} processes of one thread, {options.train_images} images, kd, batch {BATCH}"
    report(title, rows, {"images_per_second": rates, "share": shares}, options.out)


def teacher_logits(folder: Path) -> torch.Tensor:
    """The teacher's logits [N, 10] of the training images."""
    teacher = kdsweep.models.build("tutorial_teacher", (3, 32, 32), images.CLASSES)
    teacher.load_state_dict(torch.load(images.teacher_file(folder), weights_only=True))
    teacher.eval()
    inputs = images.normalised(torch.from_numpy(images.arrays(folder, "train")[0]))
    with torch.inference_mode():
        return torch.cat([teacher(batch) for batch in inputs.split(500)]).clone()


def bare_rate(folder: Path, logits: torch.Tensor, processes: int, epochs: int, precision: str) -> float:
    """Images trained per second by all processes together, after a warm-up epoch."""
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(processes), context.Queue()
    arguments_ = (folder, logits, epochs, precision, barrier, answers)
    workers = [context.Process(target=bare_loop, args=arguments_) for _ in range(processes)]
    for worker in workers:
        worker.start()
    rates = [answers.get() for _ in workers]
    for worker in workers:
        worker.join()
    return float(sum(rates))


def bare_loop(folder: Path, logits: torch.Tensor, epochs: int, precision: str, barrier: Any, answers: Any) -> None:
    """One process: train, validate after each epoch, put the rate in the queue."""
    process.set_up(threads=1)
    torch.manual_seed(0)
    pixels, labels = (torch.from_numpy(array) for array in images.arrays(folder, "train"))
    val_pixels, val_labels = (torch.from_numpy(array) for array in images.arrays(folder, "val"))
    pixels = pixels.to(memory_format=torch.channels_last)
    val = images.normalised(val_pixels).to(memory_format=torch.channels_last)
    student = kdsweep.models.build("lightnn", (3, 32, 32), images.CLASSES).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(student.parameters(), lr=RATE, fused=True)
    targets = F.log_softmax(logits / TEMPERATURE, dim=1)
    scale, shift = 1 / (255 * images.STD), -images.MEAN / images.STD
    for epoch in range(epochs + 1):
        if epoch == 1:  # the first epoch is a warm-up
            barrier.wait()
            started = time.perf_counter()
        student.train()
        for index in torch.randperm(len(labels)).split(BATCH):
            batch = pixels[index].to(torch.float32, memory_format=torch.channels_last).mul_(scale).add_(shift)
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
                found = student(batch)
            found = found.float()
            soft = F.log_softmax(found / TEMPERATURE, dim=1)
            distill = F.kl_div(soft, targets[index], reduction="batchmean", log_target=True) * TEMPERATURE**2
            loss = (1 - ALPHA) * F.cross_entropy(found, labels[index]) + ALPHA * distill
            loss.backward()
            optimizer.step()
        student.eval()
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            right = sum((student(part).argmax(1) == at).sum() for part, at in zip(
                val.split(500), val_labels.split(500), strict=True))  # fmt: skip
        assert int(right) >= 0
    answers.put(epochs * len(labels) / (time.perf_counter() - started))


def sweep_rate(folder: Path, name: str, options: Any) -> float:
    """Images trained per second by a sweep while all its slots are busy."""
    values = sweeps.tutorial(folder, folder / "runs", name, options.epochs)
    values["train"]["precision"] = options.precision
    values["search"]["trials"] = options.trials
    values["resources"] = {"max_concurrent": options.processes}
    watch = Stopwatch()
    kdsweep.run(sweeps.spec_of(values, folder), progress=watch)
    first, last = watch.steady(options.processes)
    return (last.epochs - first.epochs) * options.train_images / (last.seconds - first.seconds)


if __name__ == "__main__":
    main()
