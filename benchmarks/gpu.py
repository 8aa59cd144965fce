"""Measure kdsweep on an NVIDIA GPU, in under 10 minutes: values, launches, speed, memory, faults and a whole search.

Each section runs in a process of its own and prints a table. It needs torch and kdsweep's other dependencies, but Ray
only for the section `sweep` and a part of `faults`. Exit code 1 if a check failed, 2 if there is no GPU.

    python benchmarks/gpu.py [--section NAME ...] [--quick] [--without-ray] [--data FOLDER]
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import images
import torch
from measure import arguments, say, show, write
from on_gpu.section import Found, Setting

from kdsweep.worker import gpu

SECTIONS = {
    "parity": "values: the loss curves of a few methods on the CPU and on the GPU",
    "launches": "kernel launches and waits per training step",
    "speed": "steps per second of one process: a single trial, captured steps, cohorts",
    "processes": "1 to 16 processes on the GPU, with and without MPS",
    "memory": "the memory that the probe plans, against nvidia-smi",
    "faults": "out of memory and broken GPUs",
    "sweep": "the 100-trial search",
}
SECONDS = 600.0  # the most that all sections together may take
IMAGES, QUICK_IMAGES = (8192, 2048), (1024, 256)


def main() -> int:
    """Run the sections; return the exit code."""
    parser = arguments(__doc__.splitlines()[0], "gpu")
    parser.add_argument("--section", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="NAME",
                        help="; ".join(f"{name}: {what}" for name, what in SECTIONS.items()))  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="small sizes, which show only that everything runs")
    parser.add_argument("--without-ray", action="store_true", help="skip what needs Ray; so it is if Ray is missing")
    parser.add_argument("--data", type=Path, help="an image folder such as CIFAR-10; default: generated images")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # used when this script calls itself
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print(f"gpu.py: PyTorch {torch.__version__} sees no GPU; run this on a machine with one", file=sys.stderr)
        return 2
    if options.folder:
        return one_section(options)
    with tempfile.TemporaryDirectory(prefix="kdsweep-gpu-") as temporary:
        return all_sections(options, Path(temporary))


def all_sections(options: argparse.Namespace, folder: Path) -> int:
    """Run each section in a process of its own; collect what they found."""
    say("preparing images and a teacher")
    images.provide(folder, options.data, *(QUICK_IMAGES if options.quick else IMAGES))
    found: dict[str, Any] = {}
    for name in options.section:
        say(f"section {name}: {SECTIONS[name]}")
        began = time.perf_counter()
        out = folder / f"{name}.json"
        spent = sum(part["seconds"] for part in found.values())
        failure = run_section(name, options, folder, out, SECONDS - spent)
        found[name] = json.loads(out.read_text()) if out.is_file() else {"failures": [failure]}
        found[name]["seconds"] = round(time.perf_counter() - began, 1)
        say(f"section {name} took {found[name]['seconds']} s")
    failures = [f"{name}: {one}" for name, part in found.items() for one in part["failures"]]
    for failure in failures:
        print(f"FAILED {failure}")
    print(f"{len(failures)} checks failed in {sum(part['seconds'] for part in found.values()):.0f} s")
    device = gpu.described(torch.device("cuda")) | {"driver": driver()}
    write({"gpu": device, "quick": options.quick, "sections": found, "failures": failures}, options.out)
    return 1 if failures else 0


def run_section(name: str, options: argparse.Namespace, folder: Path, out: Path, seconds: float) -> str:
    """Run a section, which writes to a file, for some seconds at most; return what to say if it has not."""
    if seconds <= 0:
        return f"not run: the sections before took {SECONDS:g} s; name it with --section"
    command: list[object] = [sys.executable, __file__, "--section", name, "--folder", folder, "--out", out]
    command += ["--repeats", options.repeats]
    command += [*["--quick"] * options.quick, *["--without-ray"] * options.without_ray]
    command += ["--data", options.data] if options.data else []
    process = subprocess.Popen(list(map(str, command)))
    try:
        return f"ended with exit code {process.wait(seconds)}"
    except subprocess.TimeoutExpired:
        return f"stopped: all sections together may take {SECONDS:g} s; name it with --section"
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)  # it ends its own processes
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def one_section(options: argparse.Namespace) -> int:
    """Run one section in this process; print its table and write what it found."""
    ray = not options.without_ray and find_spec("ray") is not None
    setting = Setting(options.folder, options.quick, ray, options.data, options.repeats)
    found = measured(options.section[0], setting)
    if found.table:
        show(found.title, found.table)
    for note in found.notes:
        print(f"  {note}")
    options.out.write_text(json.dumps(asdict(found), default=str))
    return 0


def measured(section: str, setting: Setting) -> Found:
    """Run a section in this process."""
    found: Found = import_module(f"on_gpu.{section}").measure(setting)
    return found


def driver() -> str:
    """Return the version of the NVIDIA driver, or why it is not known."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown: {error}"


if __name__ == "__main__":
    sys.exit(main())
