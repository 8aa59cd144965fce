"""The loss curves of a few methods on the CPU and on the GPU, in float32 without TF32."""

from __future__ import annotations

from collections.abc import Sequence

import benches
import torch

from kdsweep.distributions import Config
from kdsweep.training.trainer import DivergedError
from on_gpu.section import CPU, GPU, Found, Setting, bench

# Students without dropout, whose masks differ between devices. A rounding that moves one activation across the kink of
# a ReLU can grow with batch norm.
TOLERANCES = {"mnist_student": 1e-3, "resnet8": 2e-2}
METHODS = ("none", "kd", "dkd", "dist", "at", "hint", "kd+at")
STEPS, EPOCHS, TOGETHER = 4, 6, 4


def measure(setting: Setting) -> Found:
    """Train on both devices; compare the mean loss of every few steps."""
    found = Found(f"the CPU's losses and the GPU's over {EPOCHS} times {STEPS} steps, float32 without TF32", [], {})
    for student, tolerance in TOLERANCES.items():
        on = {device.type: bench(setting, f"parity-{student}", student, device=device) for device in (CPU, GPU)}
        torch.backends.cudnn.allow_tf32 = False  # that of matrix products is off already
        for method in METHODS[:2] if setting.quick else METHODS:
            config: Config = {"method": method, "width": 1.0, "lr": 1e-3, "precision": "float32"}
            config |= {"alpha": 0.5} if method != "none" else {}
            curves = {}
            for name, opened in on.items():
                run = benches.training(opened, config, STEPS)
                curves[name] = [run.run_epoch()["train_loss"] for _ in range(EPOCHS)]
            note(found, f"{student}, {method}", curves["cpu"], curves["cuda"], tolerance)
            if method == "kd":
                run = benches.training(on["cuda"], {**config, "capture": True}, STEPS)
                captured = [run.run_epoch()["train_loss"] for _ in range(EPOCHS)]
                note(found, f"{student}, kd captured", curves["cpu"], captured, tolerance)
                cohort = benches.cohort(on["cuda"], [config] * TOGETHER, STEPS)
                rows = [cohort.run_epoch()[-1] for _ in range(EPOCHS)]
                together = [float("nan") if isinstance(row, DivergedError) else row["train_loss"] for row in rows]
                note(found, f"{student}, kd in a cohort of {TOGETHER}", curves["cpu"], together, tolerance)
    return found


def note(found: Found, name: str, cpu: Sequence[float], cuda: Sequence[float], tolerance: float) -> None:
    """Add the comparison of two curves."""
    largest = max(abs(there - here) / max(abs(here), 1e-12) for here, there in zip(cpu, cuda, strict=True))
    equal = largest <= tolerance  # false if it is not a number
    found.figures[name] = {"cpu": list(cpu), "cuda": list(cuda), "difference": largest, "tolerance": tolerance}
    found.table.append({
        "run": name, "last loss, CPU": f"{cpu[-1]:.5f}", "last loss, GPU": f"{cuda[-1]:.5f}",
        "largest difference, relative": f"{largest:.1e}", "tolerance": f"{tolerance:.0e}",
        "equal": "yes" if equal else "no",
    })  # fmt: skip
    if not equal:
        found.failures.append(f"{name}: the losses differ by {largest:.1e}; at most {tolerance:.0e} is accepted")
