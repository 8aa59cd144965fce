"""Sweeps whose trials hang or exhaust the memory, and whose storage fills up or disappears."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import kdsweep

pytestmark = pytest.mark.chaos

SPEC = """\
dataset: {name: mnist_mini, subset: 1000, val_fraction: 0.5}
teacher: {model: mnist_teacher, width: 0.25, checkpoint: "kdsweep:mnist_mini_teacher"}
student: {model: mnist_student}
scheduler: {name: none}
confirm: {top: 0}
name: faults
"""
METHODS = """\
import time
from pathlib import Path
import torch
from kdsweep.methods import Method

class Faulty(Method):
    formula = "0"
    source = "this test"
    needs = frozenset({"logits"})

class Hangs(Faulty):
    def term(self, student, teacher, labels):
        time.sleep(600)

class HangsOnce(Faulty):
    def term(self, student, teacher, labels):
        if not (been := Path(__file__).with_suffix(".been")).exists():
            been.touch()
            time.sleep(600)
        return student.logits.sum() * 0

class Greedy(Faulty):
    def term(self, student, teacher, labels):
        return torch.empty(2**55).sum()
"""


def start(folder: Path, *arguments: str, background: bool = False) -> subprocess.Popen[str]:
    """Start a kdsweep command in `folder`. In the background, it ignores SIGINT, as in a shell."""
    command = [sys.executable, "-c", "from kdsweep.cli import main; main()", *arguments]
    if background:
        command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(driver: subprocess.Popen[str]) -> str:
    output, errors = driver.communicate()
    assert driver.returncode == 0, errors
    return output


def written(folder: Path, text: str, storage: Path) -> Path:
    (folder / "faulty.py").write_text(METHODS)
    (folder / "faults.yaml").write_text(f"{SPEC}storage: {storage}\n{text}")
    return storage / "faults"


def reaches(log: Path, lines: int, driver: subprocess.Popen[str]) -> None:
    while not (log.is_file() and log.read_bytes().count(b"\n") >= lines):
        assert driver.poll() is None, driver.communicate()
        time.sleep(0.02)


def test_a_trial_that_hangs_or_runs_out_of_memory_fails_with_the_reason_and_the_sweep_continues(tmp_path):
    sweep = written(
        tmp_path,
        "space: {method: ['faulty:Hangs', 'faulty:HangsOnce', 'faulty:Greedy', none], alpha: 0.5, lr: 1e-3}\n"
        "search: {sampler: grid, trials: 4}\ntrain: {epochs: 2}\n"
        "resources: {max_failures: 1, step_timeout_seconds: 10}\n",
        tmp_path / "runs",
    )
    finished(start(tmp_path, "run", "faults.yaml"))
    trials = kdsweep.load_results(sweep).trials.set_index("method")
    assert trials["state"].to_dict() == {
        "faulty:Hangs": "FAILED",
        "faulty:HangsOnce": "COMPLETE",
        "faulty:Greedy": "FAILED",
        "none": "COMPLETE",
    }
    assert trials["error"]["faulty:Hangs"] == "an epoch took longer than step_timeout_seconds (10)"
    assert trials["error"]["faulty:Greedy"].startswith("out of memory: ")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = os.geteuid() == 0 and shutil.which("mount")
    if (
        not mounted
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", place], check=False).returncode
    ):
        pytest.skip("file systems cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


LONG = """\
space: {method: [kd, none], width: 0.25, lr: {loguniform: [1e-3, 1e-2]}}
search: {trials: 8}
train: {epochs: 300}
"""


def test_a_full_disk_stops_the_sweep_with_a_one_line_error_and_loses_nothing(small_disk, tmp_path):
    sweep = written(tmp_path, LONG, small_disk)
    driver = start(tmp_path, "run", "faults.yaml")
    reaches(sweep / "epochs.jsonl", 60, driver)
    ballast = small_disk / "ballast"
    subprocess.run(["dd", "if=/dev/zero", f"of={ballast}", "bs=1k"], capture_output=True, check=False)
    _, errors = driver.communicate()
    assert driver.returncode == 1
    last = errors.strip().splitlines()[-1]
    assert "storage error: No space left on device" in last
    assert f"continue with: kdsweep resume {sweep}" in last
    assert "Traceback" not in errors
    ballast.unlink()
    before = kdsweep.load_results(sweep).epochs
    finished(start(tmp_path, "resume", str(sweep)))
    after = kdsweep.load_results(sweep)
    assert list(after.trials["state"]) == ["COMPLETE"] * 8
    both = after.epochs.merge(before, on=["trial", "epoch"], suffixes=("", "_before"))
    assert len(both) == len(before) > 0
    assert (both["train_loss"] == both["train_loss_before"]).all()
    assert (both["val_accuracy"] == both["val_accuracy_before"]).all()


def test_storage_that_disappears_stops_the_sweep_with_a_one_line_error_and_loses_nothing(tmp_path):
    storage, away = tmp_path / "runs", tmp_path / "away"
    sweep = written(tmp_path, LONG, storage)
    driver = start(tmp_path, "run", "faults.yaml")
    reaches(sweep / "epochs.jsonl", 60, driver)
    storage.rename(away)
    _, errors = driver.communicate()
    assert driver.returncode == 1, errors
    assert "storage error: " in errors.strip().splitlines()[-1]
    assert "Traceback" not in errors
    shutil.rmtree(storage, ignore_errors=True)
    away.rename(storage)
    finished(start(tmp_path, "resume", str(sweep)))
    assert list(kdsweep.load_results(sweep).trials["state"]) == ["COMPLETE"] * 8


def test_sigterm_saves_the_state_within_ten_seconds(tmp_path):
    sweep = written(tmp_path, LONG, tmp_path / "runs")
    driver = start(tmp_path, "run", "faults.yaml")
    reaches(sweep / "epochs.jsonl", 60, driver)
    driver.send_signal(signal.SIGTERM)
    asked = time.time()
    _, errors = driver.communicate()
    assert driver.returncode == 130
    assert f"continue with: kdsweep resume {sweep}" in errors
    states = list(sweep.glob("trials/*/state.safetensors"))
    assert states
    assert all(path.stat().st_mtime - asked < 10 for path in states)


def test_sigterm_stops_a_background_driver_while_the_teacher_trains(tmp_path):
    sweep = written(tmp_path, "space: {method: none}\n", tmp_path / "runs")
    teacher = ("--set", "teacher={model: mnist_teacher, width: 0.25, train: {epochs: 10000}}")
    driver = start(tmp_path, "run", "faults.yaml", *teacher, background=True)
    for line in driver.stderr:
        if "/10000 epochs, val accuracy" in line:
            break
    driver.send_signal(signal.SIGTERM)
    _, errors = driver.communicate(timeout=60)
    assert driver.returncode == 130
    assert f"continue with: kdsweep resume {sweep}" in errors
