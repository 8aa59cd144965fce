"""Measure what it costs to pause a trial and to continue it, on a local Ray.

python benchmarks/pausing.py

The same trials are trained to the end three times: without looking at them before the end, reporting after every epoch,
and pausing after every epoch. All that differs is the reports and the pauses.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import sweeps
from measure import arguments, report, say, shown, spread

import kdsweep
from kdsweep.search.stopping import StoppingRule
from kdsweep.tune.cluster import connected

EPOCHS, TRIALS = 8, 16


class Look(StoppingRule):
    """Reports every epoch and stops nobody."""

    def reached(self, group, key, epoch, value):
        return False


class Pause(StoppingRule):
    """Pauses every trial after every epoch and promotes all of them."""

    promotes = True

    def __init__(self, epochs):
        super().__init__(epochs)
        self._seen = {}

    def reached(self, group, key, epoch, value):
        new = epoch > self._seen.pop(key, 0)
        self._seen[key] = epoch
        return new and epoch < self.epochs

    def promotable(self):
        yield from list(self._seen)


def main() -> None:
    """Run the three sweeps in turn."""
    options = arguments(__doc__.splitlines()[0], "pausing").parse_args()
    rules = {"none": "none", "a report every epoch": "pausing:Look", "a pause every epoch": "pausing:Pause"}
    seconds: dict[str, list[float]] = {name: [] for name in rules}
    with tempfile.TemporaryDirectory(prefix="kdsweep-pausing-") as temporary, connected(None):
        for repeat in range(options.repeats):
            for number, (name, rule) in enumerate(rules.items()):
                taken = searched(Path(temporary), f"sweep-{repeat}-{number}", rule)
                seconds[name].append(taken)
                say(f"repeat {repeat + 1}: {name}: {taken:.2f} worker seconds")
    looks = TRIALS * (EPOCHS - 1)
    rows, figures = [], {}
    base = seconds["none"]
    for name, values in seconds.items():
        extra = spread([1000 * (value - before) / looks for value, before in zip(values, base, strict=True)])
        figures[name] = {"worker_seconds": spread(values), "extra_ms": extra}
        rows.append({"early stopping": name, "worker seconds": shown(spread(values)), "extra ms each": shown(extra)})
    report(f"{TRIALS} trials of {EPOCHS} epochs, {looks} reports or pauses", rows, figures, options.out)


def searched(folder: Path, name: str, rule: str) -> float:
    """Run one sweep; return the seconds from its first step to its end, times the number of workers."""
    values = sweeps.tiny(folder, name, TRIALS)
    values["train"]["epochs"] = EPOCHS
    values["scheduler"] = {"name": rule}
    results = kdsweep.run(sweeps.spec_of(values, folder))
    assert set(results.trials["epochs"]) == {EPOCHS}
    timeline = json.loads((results.path / "environment.json").read_text())["timeline"]
    search = timeline["stages"]["search"]
    return float((search["end"] - search["first_step"]) * timeline["workers"])


if __name__ == "__main__":
    main()
