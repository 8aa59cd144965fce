"""Measure whether `torch.compile` pays off: milliseconds per step of the tutorial's student, eager and compiled.

Only the student's forward pass is compiled; the step also includes kd's loss, the backward pass and the optimizer. The
second student has the same shape, like the next trial of a worker: its first step shows whether the compiled code is
reused. On a GPU the compiled step is captured as a CUDA graph (`mode="reduce-overhead"`).

    python benchmarks/compiled.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from measure import arguments, report, say, shown, spread
from torch import nn
from torch.nn import functional as F

from kdsweep import models
from kdsweep.training.precision import autocast_dtype
from kdsweep.worker import process

BATCH, STEPS = 128, 20
Forward = Callable[[nn.Module, torch.Tensor], torch.Tensor]


def main() -> None:
    """Time eager and compiled steps in both precisions."""
    parser = arguments(__doc__.splitlines()[0], "compiled")
    options = parser.parse_args()
    process.set_up(threads=1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    compiled: Forward = torch.compile(forward, mode="reduce-overhead" if device.type == "cuda" else "default")
    rows, figures = [], {}
    for precision in ("float32", "bfloat16"):
        for name, run in (("eager", forward), ("compiled", compiled)):
            say(f"{precision}, {name}")
            student = Student(run, precision, device)
            first = student.steps(1)
            student.steps(5)
            steps = spread([student.steps(STEPS) / STEPS for _ in range(options.repeats)])
            second = Student(run, precision, device).steps(1)
            figures[f"{precision}, {name}"] = {"step_ms": steps, "first_ms": first, "second_student_ms": second}
            rows.append({
                "step": f"{precision}, {name}", "ms": shown(steps), "first step, s": f"{first / 1000:.1f}",
                "first step of a second student, s": f"{second / 1000:.1f}",
            })  # fmt: skip
    report(f"steps of {BATCH} images on one {device.type}", rows, {"figures": figures}, options.out)


def forward(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model(images)
    return logits


class Student:
    """A student with an optimizer and one batch."""

    def __init__(self, run: Forward, precision: str, device: torch.device):
        torch.manual_seed(0)
        self._run, self._device, self._type = run, device, autocast_dtype(precision)
        self._model = models.build("lightnn", (3, 32, 32), 10).to(device, memory_format=torch.channels_last)
        self._optimizer = torch.optim.Adam(self._model.parameters(), fused=True)
        self._images = torch.randn(BATCH, 3, 32, 32, device=device).to(memory_format=torch.channels_last)
        self._labels = torch.randint(10, (BATCH,), device=device)
        self._targets = torch.randn(BATCH, 10, device=device).log_softmax(1)

    def steps(self, count: int) -> float:
        """Train `count` steps; return the total milliseconds."""
        self._wait()
        started = time.perf_counter()
        for _ in range(count):
            with torch.autocast(self._device.type, self._type, enabled=self._type != torch.float32):
                logits = self._run(self._model, self._images)
            logits = logits.float()
            soft = F.kl_div(logits.log_softmax(1), self._targets, reduction="batchmean", log_target=True)
            self._optimizer.zero_grad()
            (0.5 * F.cross_entropy(logits, self._labels) + 0.5 * soft).backward()
            self._optimizer.step()
        self._wait()
        return 1000 * (time.perf_counter() - started)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize()


if __name__ == "__main__":
    main()
