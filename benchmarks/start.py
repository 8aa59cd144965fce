"""Measure where a sweep's time goes, from the command to the prompt: start-up, search, confirmation, idle workers.

Runs `kdsweep run` as a user would, on the quickstart and on 24 kd trials under early stopping with images of CIFAR-10's
size (these have no test split and are not confirmed). Each sweep runs twice in a row: first with an empty store (cold),
then with the data, teacher outputs and precision measurement of the first run (warm). The times come from the
`timeline` in the sweep's `environment.json`.

    python benchmarks/start.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import images
import sweeps
from measure import arguments, report, say, shown, spread

HERE = Path(__file__).parent
QUICKSTART = HERE.parent / "search_spaces" / "quickstart.yaml"
ROWS = (
    "imports, checking the sweep file",
    "Ray starts",
    "workers start",
    "teacher, its outputs, precision",
    "first epoch, after the command",
    "search",
    "confirmation begins, after the search",
    "confirmation",
    "table, shutdown",
    "whole command",
)


def main() -> None:
    """Run both sweeps cold and warm."""
    options = arguments(__doc__.splitlines()[0], "start").parse_args()
    seconds: dict[str, list[dict[str, float]]] = {}
    idle: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="kdsweep-start-") as temporary:
        folder = Path(temporary)
        say("preparing the images and the teacher")
        images.provide(folder, None, 5000, 1000)
        for repeat in range(options.repeats):
            for kind, file in (("quickstart", QUICKSTART), ("24 short trials", short_trials(folder, repeat))):
                for state in ("cold", "warm"):
                    name = f"{kind}, {state}"
                    say(f"repeat {repeat + 1} of {options.repeats}: {name}")
                    times, share = measured(file, folder / f"{kind[:5]}-{repeat}", state)
                    seconds.setdefault(name, []).append(times)
                    idle.setdefault(name, []).append(share)
                    say(f"  {times}")
    table = [
        {"seconds": row}
        | {name: shown(spread([one[row] for one in each])) if row in each[0] else "" for name, each in seconds.items()}
        for row in ROWS
    ]
    table.append({"seconds": "idle workers, %"} | {name: shown(spread(each)) for name, each in idle.items()})
    report("Where a sweep's time goes", table, {"seconds": seconds, "idle": idle}, options.out)


def short_trials(folder: Path, repeat: int) -> Path:
    """Write the sweep file of 24 kd trials of at most five epochs under early stopping."""
    values = sweeps.tutorial(folder, folder, f"short-{repeat}", epochs=5)
    values |= {"search": {"trials": 24}, "scheduler": {"name": "asha"}, "confirm": {"top": 0}}
    return sweeps.written(values, folder)


def measured(sweep_file: Path, storage: Path, name: str) -> tuple[dict[str, float], float]:
    """Run a sweep; return the seconds of each row, and the share of idle worker time from search to end in per cent."""
    command = [sys.executable, "-m", "kdsweep", "run", str(sweep_file), "--storage", str(storage), "--name", name]
    places = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": places}
    launched = time.time()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    taken = time.time() - launched
    if done.returncode:
        raise SystemExit(f"{sweep_file}: exit code {done.returncode}\n{done.stderr[-4000:]}")
    written = json.loads((storage / name / "environment.json").read_text())
    timeline: dict[str, Any] = written["timeline"]
    began = datetime.fromisoformat(written["started"]).timestamp() - launched
    stages = timeline["stages"]
    prepare, search, end = stages["prepare"], stages["search"], timeline["end"]
    values = {
        ROWS[0]: began,
        ROWS[1]: prepare["begin"],
        ROWS[2]: prepare["first_step"] - prepare["begin"],
        ROWS[3]: prepare["end"] - prepare["first_step"],
        ROWS[4]: began + timeline["first_epoch"],
        ROWS[5]: search["end"] - search["begin"],
        ROWS[8]: taken - began - end,
        ROWS[9]: taken,
    }
    if confirm := stages.get("confirm"):
        values[ROWS[6]] = confirm["first_step"] - search["end"]
        values[ROWS[7]] = confirm["end"] - confirm["begin"]
    busy = sum(stage["busy"] for name, stage in stages.items() if name != "prepare")
    idle = 100 * (1 - busy / (timeline["workers"] * (end - search["begin"])))
    return {row: round(value, 3) for row, value in values.items()}, idle


if __name__ == "__main__":
    main()
