"""Faults of trials: what a process and a whole sweep do after them, as docs/gpus.md says.

Called as a script, this module is a process whose GPU breaks.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import benches
import sweeps
import torch

import kdsweep
from kdsweep.registry import load_user_object
from kdsweep.worker import gpu
from on_gpu.children import answer, started
from on_gpu.section import GPU, Found, Setting, bench, merged

# What breaks the GPU for a process; tests on a runtime without kernels name something else.
BREAKS = "on_gpu.faulty_methods:read_out_of_range"
STEPS = 2
NO_RAY = "skipped: without Ray"


def measure(setting: Setting) -> Found:
    """Provoke each fault, and compare with what is documented."""
    found = Found("faults", [], {})
    opened = bench(setting, "faults", "lightnn")
    note(found, "a trial out of memory is seen as such", "yes", *out_of_memory(opened))
    note(found, "MB that it leaves behind", "0", left_behind(opened))
    note(found, "the next trial in its process", "trains", trains(opened))
    with started(1, __file__, (setting.folder, int(setting.quick), BREAKS), {}) as (process,):
        broken = json.loads(answer(process))
    note(found, "a CUDA error that lasts is seen as such", "yes", "yes" if broken["fault"] else "no", broken["fault"])
    note(found, "a trial in its process after it", "fails", broken["next"])
    note(found, "a trial in another process", "trains", trains(opened))
    expected = {"kd": "COMPLETE", "breaks the GPU twice": "COMPLETE", "needs 60 % of the GPU": "COMPLETE",
                "needs more than there is": "FAILED", "hint": "COMPLETE", "at": "COMPLETE"}  # fmt: skip
    if not setting.ray:
        found.notes.append(f"the sweep: {NO_RAY}")
    states = swept(setting, BREAKS) if setting.ray else dict.fromkeys(expected, NO_RAY)
    for kind, state in expected.items():
        note(found, f"in a sweep of two trials at a time: {kind}", state, states.get(kind, "missing"))
    return found


def note(found: Found, what: str, documented: str, seen: str, detail: str = "") -> None:
    """Add a row."""
    found.figures.setdefault("rows", []).append({"fault": what, "documented": documented, "seen": seen})
    found.table.append({"fault": what, "documented": documented, "seen": seen, "detail": detail[:60]})
    if seen not in (documented, NO_RAY):
        found.failures.append(f"{what}: {seen}, where {documented!r} is documented")


def out_of_memory(opened: Any) -> tuple[str, str]:
    """Train a method that takes all memory of this process's share; return whether kdsweep calls it that, and how."""
    gpu.limit_memory(GPU, 0.5)
    try:
        benches.training(opened, config("on_gpu.faulty_methods:TooGreedy"), STEPS).run_epoch()
    except RuntimeError as error:
        return "yes" if gpu.ran_out_of_memory(error) else "no", str(error)
    finally:
        gpu.limit_memory(GPU, 1)
    return "no error", ""


def left_behind(opened: Any) -> str:
    """Return the MB that are reserved, apart from those of the data and the libraries."""
    gpu.release()
    before = torch.cuda.memory_reserved()
    out_of_memory(opened)
    gpu.release()
    return f"{(torch.cuda.memory_reserved() - before) / 1e6:.0f}"


def trains(opened: Any) -> str:
    """Return whether a trial can be trained in this process."""
    try:
        benches.training(opened, config(), STEPS).run_epoch()
    except RuntimeError:
        return "fails"
    return "trains"


def config(method: str = "kd") -> dict[str, Any]:
    """Return the configuration of a trial."""
    return {"method": method, "width": 1.0, "lr": 1e-3, "alpha": 0.5}


def swept(setting: Setting, breaks: str) -> dict[str, str]:
    """Run a sweep of such trials, two at a time; return their states by kind."""
    os.environ["FAULTS_FOLDER"] = str(setting.folder)  # the workers of a local Ray inherit it
    (setting.folder / "breaks.txt").write_text(breaks)
    (setting.folder / "broken.txt").unlink(missing_ok=True)
    of = "on_gpu.faulty_methods:"
    kinds = {"kd": "kd", f"{of}BreaksTwice": "breaks the GPU twice", f"{of}Greedy": "needs 60 % of the GPU",
             f"{of}TooGreedy": "needs more than there is", "hint": "hint", "at": "at"}  # fmt: skip
    values = sweeps.tutorial(setting.folder, setting.folder / "runs", "faulty", epochs=3)
    points = [{"method": method} for method in kinds]
    sections = {
        "space": {"method": list(kinds)},
        "search": {"trials": len(kinds), "points": points},
        "resources": {"gpus_per_trial": 0.5, "max_failures": 0},
    }
    results = kdsweep.run(sweeps.spec_of(merged(values, sections), setting.folder), address="local")
    return {kinds[row["method"]]: row["state"] for row in results.trials.to_dict("records")}


def main() -> None:
    """Break the GPU, and answer with what kdsweep sees then."""
    folder, quick, breaks = sys.argv[1:]
    opened = bench(Setting(Path(folder), quick == "1"), "faults", "lightnn")
    trains(opened)
    try:
        load_user_object(breaks, "function")()
        torch.cuda.synchronize()
    except RuntimeError:
        pass
    print(json.dumps({"fault": gpu.fault(), "next": trains(opened)}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
