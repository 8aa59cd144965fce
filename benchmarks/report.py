"""Measure how long the report of a large sweep takes to make and to open in Chromium, and how large it is.

The sweep is synthetic, but written through the same study code as a real one: random trials of 20 epochs. It is
confirmed and has predictions of 10,000 test images of 100 classes with 24 pictures. Each repeat is a process of its
own, first with the data frames of a finished sweep, then from the logs of a running one.

    python benchmarks/report.py [--trials 1000] [--sweep-dir DIRECTORY]

With `--picture`, it draws the report of a real sweep instead:

    python benchmarks/report.py --picture runs/quickstart docs/images/report.png
"""

from __future__ import annotations

import argparse
import base64
import io
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import results as synthetic_results
import synthetic
from measure import arguments, report, say, shown, spread
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from kdsweep.results.confirmed import gain_columns
from kdsweep.results.frames import load_results, write_frame, write_frames
from kdsweep.results.predictions import disagreements, models_of, save
from kdsweep.results.predictor import MOST_PICTURES, SHRUNK
from kdsweep.results.report.page import write_report
from kdsweep.storage.files import write_json
from kdsweep.storage.paths import SweepDir

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
READY = "return document.documentElement.dataset.ready"
# Milliseconds from the start of the navigation until the charts in view are drawn, and until all are.
OPENED = "return ['charts in view drawn', 'charts drawn'].map(n => performance.getEntriesByName(n)[0].startTime)"
PICTURE = (1280, 2050)  # CSS pixels
CLASSES, SAMPLES = 100, 10_000  # of the predictions


def main() -> None:
    """Measure, or draw a picture."""
    parser = arguments(__doc__.splitlines()[0], "report")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--sweep-dir", type=Path, help="where to keep the synthetic sweep; reused if it exists")
    parser.add_argument("--picture", type=Path, nargs=2, metavar=("DIR", "PNG"), help="draw a real sweep's report")
    options = parser.parse_args()
    if options.picture:
        picture(*options.picture)
    else:
        measure(options)


def measure(options: argparse.Namespace) -> None:
    """Create the sweep, then make and open its report."""
    figures: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="kdsweep-report-") as temporary:
        folder = Path(temporary)
        sweep = SweepDir((options.sweep_dir or folder / "sweep").absolute())
        page = folder / "report.html"
        if not sweep.spec.is_file():
            say(f"creating {options.trials} trials of {synthetic.EPOCHS} epochs")
            synthetic_results.make_up(sweep, folder, options.trials)
            write_frames(sweep)
            confirm_and_predict(sweep)
        for repeat in range(options.repeats):
            command = ["report", "DIR", "--out", "OUT"]
            write_frames(sweep)
            made = synthetic_results.seconds(command, sweep.root, page)
            figures.setdefault("made, from the frames (seconds)", []).append(made)
            sweep.trials_frame.unlink()
            sweep.epochs_frame.unlink()
            made = synthetic_results.seconds(command, sweep.root, page)
            figures.setdefault("made, from the logs (seconds)", []).append(made)
            for what, measured in opened(page).items():
                figures.setdefault(what, []).append(measured)
            figures.setdefault("size (MB)", []).append(page.stat().st_size / 1e6)
            say(f"repeat {repeat + 1} of {options.repeats}: " + ", ".join(f"{v[-1]:.2f}" for v in figures.values()))
        write_frames(sweep)
    measured = {what: spread(values) for what, values in figures.items()}
    rows = [{"report": what, "measured": shown(figure, 2)} for what, figure in measured.items()]
    title = f"kdsweep report on {options.trials} trials of {synthetic.EPOCHS} epochs"
    report(title, rows, {"measured": measured}, options.out)


def confirm_and_predict(sweep: SweepDir) -> None:
    """Write what a finished sweep has beside its trials: teacher, classes, confirmed students and predictions."""
    card = {"model": "teacher", "origin": "trained", "parameters": 10**6, "size_mb": 4.0, "epochs": 20}
    write_json(sweep.teacher_card, card | {"val_accuracy": 0.92, "val_loss": 0.3})
    write_json(sweep.teacher_test, {"test_accuracy": 0.91})
    names = [f"class number {number}" for number in range(CLASSES)]
    write_json(sweep.data, {"input_shape": [3, 32, 32], "class_names": names, "digest": "made up"})
    found, draw = load_results(sweep.root), np.random.default_rng(0)
    best = found.best(len(found.trials))
    rows = best[best["method"] != "none"].head(3).drop(columns=["config"])
    means = {f"{who}test_accuracy{part}": value for who in ("", "plain_", "tuned_plain_")
             for part, value in (("", 0.9 - 0.02 * bool(who)), ("_std", 0.01))}  # fmt: skip
    gains = {key: draw.normal(0.02, 0.01, 3) for key in rows["trial"]}
    judged = gain_columns({"kd_gain": gains, "kd_gain_tuned": gains}, list(gains), 0.005)
    frame = rows.assign(seeds=3, first_layer_norm=1.0, tuned_plain_lr=1e-3, **means).reset_index(drop=True)
    write_frame(pd.concat([frame, judged], axis=1), sweep.confirmed_frame)
    models = models_of(load_results(sweep.root))
    labels = draw.integers(0, CLASSES, SAMPLES, dtype=np.int32)
    answers = pd.DataFrame({"sample": np.arange(SAMPLES, dtype=np.int32), "label": labels})
    for model in models:
        model.weights.parent.mkdir(parents=True, exist_ok=True)
        model.weights.write_bytes(b"made up")
        wrong = draw.random(SAMPLES) > 0.85
        answers[f"{model.role}_class"] = np.where(wrong, draw.integers(0, CLASSES, SAMPLES), labels).astype(np.int32)
        answers[f"{model.role}_confidence"] = draw.uniform(0.1, 1, SAMPLES).astype(np.float32)
    pictures: list[bytes | None] = [None] * SAMPLES
    for place in disagreements(answers)["sample"].head(MOST_PICTURES):
        buffer = io.BytesIO()
        pixels = draw.integers(0, 256, (SHRUNK, SHRUNK, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(buffer, "JPEG")  # of noise, so larger than a photograph
        pictures[place] = buffer.getvalue()
    save(answers.assign(image=pictures), models, sweep)


def opened(page: Path) -> dict[str, float]:
    """Seconds from the start of the navigation until the page can be read and used, and processor time of its thread.

    Text and leaderboard are there first, then the charts in view, then the others one by one, while the page is used.
    """
    with browser() as driver:
        driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
        show(driver, page)
        in_view, everything = (float(mark) / 1000 for mark in driver.execute_script(OPENED))
        found = driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
        busy = next(float(metric["value"]) for metric in found if metric["name"] == "TaskDuration")
        return {
            "opened in Chromium, charts in view drawn (seconds)": in_view,
            "all charts drawn (seconds)": everything,
            "processor time of its thread until then (seconds)": busy,
        }


def picture(directory: Path, out: Path) -> None:
    """Write the first screens of a sweep's report as PNG."""
    width, height = PICTURE
    with tempfile.TemporaryDirectory(prefix="kdsweep-report-") as temporary, browser() as driver:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        show(driver, write_report(load_results(directory), Path(temporary) / "report.html"))
        out.write_bytes(base64.b64decode(driver.execute_cdp_cmd("Page.captureScreenshot", {})["data"]))
    say(str(out))


@contextmanager
def browser() -> Iterator[webdriver.Chrome]:
    """A fresh Chromium; needs Debian's packages chromium and chromium-driver."""
    with tempfile.TemporaryDirectory(prefix="kdsweep-chromium-") as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
        try:
            yield driver
        finally:
            driver.quit()


def show(driver: webdriver.Chrome, page: Path) -> None:
    """Open a page and wait until its charts are drawn."""
    driver.get(page.as_uri())
    while not driver.execute_script(READY):
        time.sleep(0.02)


if __name__ == "__main__":
    main()
