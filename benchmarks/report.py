"""Measure how long the report of a large sweep takes to make and to open in Chromium, and how large it is.

The sweep is synthetic, but written through the same study code as a real one: random trials of 20 epochs. Each repeat
is a process of its own, first with the data frames of a finished sweep, then from the logs of a running one.

    python benchmarks/report.py [--trials 1000] [--sweep-dir DIRECTORY]

With `--picture`, it draws the report of a real sweep instead:

    python benchmarks/report.py --picture runs/quickstart docs/images/report.png
"""

from __future__ import annotations

import argparse
import base64
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import results as synthetic_results
import synthetic
from measure import arguments, report, say, shown, spread
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from kdsweep.results.frames import load_results, write_frames
from kdsweep.results.report.page import write_report
from kdsweep.storage.paths import SweepDir

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
READY = "return document.documentElement.dataset.ready"
# Milliseconds from the start of the navigation until all charts are drawn.
OPENED = "return performance.getEntriesByName('charts drawn')[0].startTime"
PICTURE = (1280, 2050)  # CSS pixels


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
        for repeat in range(options.repeats):
            command = ["report", "DIR", "--out", "OUT"]
            write_frames(sweep)
            made = synthetic_results.seconds(command, sweep.root, page)
            figures.setdefault("made, from the frames (seconds)", []).append(made)
            sweep.trials_frame.unlink()
            sweep.epochs_frame.unlink()
            made = synthetic_results.seconds(command, sweep.root, page)
            figures.setdefault("made, from the logs (seconds)", []).append(made)
            figures.setdefault("opened in Chromium (seconds)", []).append(opened(page))
            figures.setdefault("size (MB)", []).append(page.stat().st_size / 1e6)
            say(f"repeat {repeat + 1} of {options.repeats}: " + ", ".join(f"{v[-1]:.2f}" for v in figures.values()))
        write_frames(sweep)
    measured = {what: spread(values) for what, values in figures.items()}
    rows = [{"report": what, "measured": shown(figure, 2)} for what, figure in measured.items()]
    title = f"kdsweep report on {options.trials} trials of {synthetic.EPOCHS} epochs"
    report(title, rows, {"measured": measured}, options.out)


def opened(page: Path) -> float:
    """Seconds from the start of the navigation until all charts are drawn."""
    with browser() as driver:
        show(driver, page)
        return float(driver.execute_script(OPENED)) / 1000


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
