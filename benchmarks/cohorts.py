"""Compare K trials that train as one cohort with the same trials one after another, on one thread.

Cohort and separate trials take turns, epoch by epoch, so that changes of the machine's speed affect both. An epoch
includes its validation. Time is CPU time, which other processes on the machine disturb less.

    python benchmarks/cohorts.py [--data FOLDER] [--sizes 2 4 8 16]
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import benches
import images
import sweeps
import torch
from measure import arguments, report, say, shown, spread

from kdsweep.worker import process
from kdsweep.worker.workbench import Workbench

CPU = torch.device("cpu")
STUDENTS = (("lightnn", 1.0), ("lightnn", 0.25), ("mnist_student", 1.0), ("mnist_student", 0.25))


def main() -> None:
    """Time one epoch of each, after a warm-up epoch."""
    parser = arguments(__doc__.splitlines()[0], "cohorts")
    parser.add_argument("--data", type=Path, help="an image folder such as CIFAR-10; default: generated images")
    parser.add_argument("--sizes", type=int, nargs="+", default=[2, 4, 8, 16], help="trials in a cohort")
    parser.add_argument("--train-images", type=int, default=2048)
    parser.add_argument("--val-images", type=int, default=512)
    parser.add_argument("--precision", default="float32")
    options = parser.parse_args()
    process.set_up(threads=1)
    rows, figures = [], {}
    with tempfile.TemporaryDirectory(prefix="kdsweep-cohorts-") as temporary:
        folder = Path(temporary)
        images.provide(folder, options.data, options.train_images, options.val_images)
        benches = {name: opened(folder, name, options) for name in dict(STUDENTS)}
        for name, width in STUDENTS:
            for size in options.sizes:
                say(f"{name}, width {width:g}, {size} trials")
                separate, together = timed(benches[name], width, size, options.repeats)
                ratios = spread([alone / one for alone, one in zip(separate, together, strict=True)])
                figures[f"{name} {width:g} {size}"] = {"separate": separate, "cohort": together, "ratio": ratios}
                rows.append({
                    "student": name, "width": f"{width:g}", "trials": size,
                    "separate, CPU ms per trial-step": shown(spread(separate)),
                    "cohort, CPU ms per trial-step": shown(spread(together)),
                    "times as fast": shown(ratios, 2),
                })  # fmt: skip
    report("kd, batch 128, one thread, validation included", rows, {"figures": figures}, options.out)


def opened(folder: Path, student: str, options: Any) -> Workbench:
    """Prepare the data and the teacher's outputs of a sweep with this student."""
    values = sweeps.tutorial(folder, folder / "runs", f"cohorts-{student}", epochs=options.repeats + 1)
    values["student"]["model"] = student
    values["train"]["precision"] = options.precision
    return benches.opened(values, folder, CPU)


def timed(bench: Workbench, width: float, size: int, repeats: int) -> tuple[list[float], list[float]]:
    """CPU milliseconds per trial-step of separate trials and of a cohort, for each repeat."""
    configs = [{"method": "kd", "width": width, **values} for values in sweeps.configurations(size)]
    nowhere = bench.spec.sweep_dir.root / "none"
    trainings = [bench.training(config, 0, nowhere) for config in configs]
    cohort = bench.cohort(configs, 0)
    steps = size * -(-len(bench.train) // bench.spec.train.batch_size)

    def milliseconds(run: Callable[[], object]) -> float:
        started = time.process_time()
        run()
        return 1000 * (time.process_time() - started) / steps

    separate, together = [], []
    for _ in range(repeats + 1):
        separate.append(milliseconds(lambda: [training.run_epoch() for training in trainings]))
        together.append(milliseconds(cohort.run_epoch))
    return separate[1:], together[1:]


if __name__ == "__main__":
    main()
