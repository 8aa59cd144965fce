"""A whole search on images of CIFAR-10's size: 100 trials of at most 20 epochs under ASHA."""

from __future__ import annotations

from dataclasses import replace

import images
import start
import sweeps
from measure import say

import kdsweep
from on_gpu.section import Found, Setting, merged

COHORTS = (1, 16)
GOALS = {"search": 20.0, "whole command": 60.0}
FULL = (45_000, 5_000, 100, 20, 2)
SMALL = (2000, 400, 4, 2, 4)  # with enough epochs for a teacher that is better than chance


def measure(setting: Setting) -> Found:
    """Run the search with trials one by one and in cohorts; each begins with an empty store."""
    train, val, trials, epochs, teacher_epochs = SMALL if setting.quick else FULL
    source = setting.data or "generated images"
    title = f"seconds of {trials} kd trials of at most {epochs} epochs under ASHA on {train} images ({source})"
    found = Found(title, [], {})
    if not setting.ray:
        found.notes.append("skipped: without Ray")
        return found
    place = replace(setting, folder=setting.folder / "sweep")
    say(f"preparing {train + val} images")
    images.write(place.folder, setting.data, train, val)
    columns = {}
    for cohort in COHORTS:
        name = f"cohorts of {cohort}" if cohort > 1 else "one by one"
        say(name)
        storage = place.folder / f"storage-{cohort}"
        values = sweeps.tutorial(place.folder, storage, "search", epochs)
        values = merged(values, {
            "search": {"trials": trials, "sampler": "tpe"}, "scheduler": {"name": "asha"}, "train": {"cohort": cohort},
        })  # fmt: skip
        values["teacher"] = {"model": "tutorial_teacher", "train": {"epochs": teacher_epochs}}
        seconds, idle = start.measured(sweeps.written(values, place.folder), storage, f"cohort-{cohort}")
        results = kdsweep.load_results(storage / f"cohort-{cohort}")
        columns[name] = seconds | {"idle workers, %": round(idle, 1)}
        found.figures[name] = {
            **columns[name], "trial_epochs": int(results.trials["epochs"].sum()),
            "states": results.trials["state"].value_counts().to_dict(),
            "best": float(results.trials["val_accuracy"].max()),
        }  # fmt: skip
    for row in columns[name]:
        goal = f"{GOALS[row]:g}" if row in GOALS and not setting.quick else ""
        found.table.append({"seconds": row, "goal": goal} | {name: one[row] for name, one in columns.items()})
    return found
