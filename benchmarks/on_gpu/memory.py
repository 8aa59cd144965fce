"""What the probe says that a trial takes, beside what nvidia-smi shows while it trains and evaluates.

Called as a script, this module is such a trial.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import benches
import torch

from kdsweep.worker import probe
from kdsweep.worker.capacity import CONTEXT_BYTES
from on_gpu.children import answer, started
from on_gpu.section import Found, Setting, bench

TRIALS = (("lightnn", 1.0, 128), ("lightnn", 4.0, 1024), ("resnet20", 1.0, 128))
STEPS, MB = 4, 1e6


def measure(setting: Setting) -> Found:
    """Probe each student, then train it in a process of its own and look at the GPU from outside."""
    found = Found("memory of one trial, in MB", [], {})
    seen = shutil.which("nvidia-smi") is not None
    if not seen:
        found.notes.append("nvidia-smi is not installed: what the trial's own process sees is shown in its place")
    for student, width, batch in TRIALS[:1] if setting.quick else TRIALS:
        opened = opened_for(setting, student, width, batch)
        probed = probe.measure(opened.spec, opened)
        before = used() if seen else 0.0
        arguments = (setting.folder, int(setting.quick), student, width, batch)
        with started(1, __file__, arguments, {}) as (trial,):
            inside = json.loads(answer(trial))
            outside = used() - before if seen else inside["used"]
        allowed = (probed.trial_bytes + CONTEXT_BYTES) / MB
        name = f"{student}, width {width:g}, batch {batch}"
        found.figures[name] = {"probe": probed.trial_bytes / MB, "allowed": allowed, "seen": outside, **inside}
        found.table.append({
            "trial": name, "probe": f"{probed.trial_bytes / MB:,.0f}", "with the context": f"{allowed:,.0f}",
            "PyTorch reserved": f"{inside['reserved']:,.0f}", "nvidia-smi" if seen else "used": f"{outside:,.0f}",
            "trials per GPU": probed.fitting(1),
        })  # fmt: skip
        if outside > allowed:
            found.failures.append(f"{name}: takes {outside:,.0f} MB, more than the {allowed:,.0f} MB that are planned")
    return found


def opened_for(setting: Setting, student: str, width: float, batch: int) -> Any:
    """Open a sweep whose only trials are of this kind."""
    train = {"batch_size": batch}
    return bench(setting, f"memory-{student}-{width:g}-{batch}", student, width, train=train)


def used() -> float:
    """Return the used memory of the first GPU in MB, by nvidia-smi."""
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    printed = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout
    return float(printed.split()[0]) * 2**20 / MB


def main() -> None:
    """Train and evaluate; print what was taken, and keep it until the input ends."""
    folder, quick, student, width, batch = sys.argv[1:]
    opened = opened_for(Setting(Path(folder), quick == "1"), student, float(width), int(batch))
    run = benches.training(opened, benches.members(1, width=float(width))[0], STEPS, val=len(opened.val))
    for _ in range(2):
        run.run_epoch()
    free, total = torch.cuda.mem_get_info()
    print(json.dumps({"reserved": torch.cuda.memory_reserved() / MB, "used": (total - free) / MB}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
