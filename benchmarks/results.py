"""Measure how long `kdsweep results` takes on a sweep of 10,000 trials of 20 epochs.

The sweep is synthetic, but written through the same study code as a real one. It is read once as a finished sweep, with
its data frames, and once as a running sweep, from the logs alone.

    python benchmarks/results.py [--sweep-dir DIRECTORY]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import synthetic
from measure import arguments, report, say, shown, spread

from kdsweep.results.frames import write_frames
from kdsweep.search.study import Study
from kdsweep.search.trial import State
from kdsweep.storage.paths import SweepDir

COMMANDS = {
    "--help": ["--help"],
    "the best 10": ["results", "DIR", "--top", "10"],
    "a condition": ["results", "DIR", "--where", "width <= 0.5 and method == 'dkd'", "--sort", "-val_accuracy"],
    "every epoch as CSV": ["results", "DIR", "--epochs", "--format", "csv", "--out", "OUT"],
}


def main() -> None:
    """Create the sweep, then time each command."""
    parser = arguments(__doc__.splitlines()[0], "results")
    parser.set_defaults(repeats=5)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--sweep-dir", type=Path, help="where to keep the synthetic sweep; reused if it exists")
    options = parser.parse_args()
    figures: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="kdsweep-results-") as temporary:
        folder = Path(temporary)
        sweep = SweepDir((options.sweep_dir or folder / "sweep").absolute())
        if not sweep.spec.is_file():
            say(f"creating {options.trials} trials of {synthetic.EPOCHS} epochs")
            make_up(sweep, folder, options.trials)
        for repeat in range(options.repeats):
            started = time.perf_counter()
            write_frames(sweep)
            figures.setdefault("write both frames (at the end of a sweep)", []).append(time.perf_counter() - started)
            for frames in ("frames", "logs"):
                if frames == "logs":
                    sweep.trials_frame.unlink()
                    sweep.epochs_frame.unlink()
                for name, command in COMMANDS.items():
                    if (frames, name) == ("logs", "--help"):
                        continue
                    what = name if name == "--help" else f"{name}, from the {frames}"
                    figures.setdefault(what, []).append(seconds(command, sweep.root, folder / "out.csv"))
            say(f"repeat {repeat + 1} of {options.repeats}: " + ", ".join(f"{v[-1]:.2f}" for v in figures.values()))
        write_frames(sweep)
    measured = {what: spread(values) for what, values in figures.items()}
    rows = [{"command": what, "seconds": shown(figure, 2)} for what, figure in measured.items()]
    title = f"kdsweep on {options.trials} trials of {synthetic.EPOCHS} epochs"
    report(title, rows, {"seconds": measured}, options.out)


def make_up(sweep: SweepDir, folder: Path, trials: int) -> None:
    """Create a sweep of random trials, none stopped early."""
    spec = synthetic.spec_of(folder, "made-up", trials)
    search = spec.search.model_copy(update={"sampler": "random"})
    spec = spec.replaced(search=search, scheduler=spec.scheduler.model_copy(update={"name": "none"}))
    study = Study(spec, sweep, spec.search_space)
    while trial := study.ask():
        for epoch in range(1, synthetic.EPOCHS + 1):
            study.report(trial.key, {
                "epoch": epoch, "train_loss": 1.0 / epoch, "val_loss": 1.5 / epoch, "lr": 1e-3, "seconds": 1.0,
                "val_accuracy": synthetic.accuracy(trial.config, trial.number, epoch), "size_mb": 1.0,
                "parameters": int(1e5 * float(trial.config["width"])),
            })  # fmt: skip
        study.finish(trial.key, State.COMPLETE)
    study.close()
    spec.save(sweep.spec)


def seconds(command: list[str], sweep: Path, out: Path) -> float:
    """Seconds that a command takes in its own process."""
    words = [{"DIR": str(sweep), "OUT": str(out)}.get(word, word) for word in command]
    program = Path(sys.executable).with_name("kdsweep")
    started = time.perf_counter()
    subprocess.run([program, *words], check=True, capture_output=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
