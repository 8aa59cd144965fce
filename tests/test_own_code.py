"""No command imports modules of the current directory unless the user names them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import kdsweep

SCRIPT = Path(sys.executable).with_name("kdsweep")
SHADOWS = (
    "json", "safetensors", "torch", "ray", "numpy", "typing", "pandas", "pyarrow", "optuna", "pydantic", "rich",
    "yaml", "ruamel", "torchvision", "PIL", "random", "logging", "dataclasses", "collections", "string", "queue",
    "filelock", "setproctitle", "sitecustomize", "datasets", "timm", "typer",
    "kdsweep",
)  # fmt: skip
FINISHED = Path(__file__).parent / "data" / "finished_0.1.0"

SWEEP = """\
name: tiny
dataset: {name: mnist_mini, subset: 200, val_fraction: 0.5}
teacher: {model: mnist_teacher, width: 0.25, checkpoint: "kdsweep:mnist_mini_teacher"}
student: {model: mnist_student}
space: {method: [kd], width: 0.25}
train: {epochs: 1, batch_size: 64}
search: {trials: 1, startup_trials: 1}
scheduler: {name: none}
confirm: {top: 1, seeds: 1}
storage: runs
"""


@pytest.fixture
def hostile(tmp_path):
    """A directory with a sweep and with modules that shadow others and record when they are imported."""
    mark = tmp_path / "marks"
    folder = tmp_path / "hostile"
    folder.mkdir()
    for name in SHADOWS:
        (folder / f"{name}.py").write_text(f"open({str(mark)!r}, 'a').write({name + ' '!r})\nraise SystemExit(77)\n")
    shutil.copytree(FINISHED, folder / "runs" / "finished")
    (folder / "tiny.yaml").write_text(SWEEP)
    return folder


def command(folder, *arguments):
    """Run a command in a directory, check that it succeeds without importing its modules, and return its output."""
    environment = {**os.environ, "PYTHONPATH": str(Path(kdsweep.__file__).parents[1])}
    ran = subprocess.run([SCRIPT, *arguments], cwd=folder, capture_output=True, text=True, env=environment)
    marks = folder.parent / "marks"
    assert (ran.returncode, marks.read_text() if marks.exists() else "") == (0, ""), ran.stderr
    return ran.stdout


def test_commands_that_only_read_import_nothing_from_the_current_directory(hostile):
    for arguments in (
        ["--help"], ["--version"], ["methods", "kd"], ["models"], ["datasets"], ["validate", "tiny.yaml"],
        ["results", "runs/finished", "--where", "width < 1", "--out", "x.parquet"],
    ):  # fmt: skip
        command(hostile, *arguments)


def test_a_student_is_evaluated_in_its_folder_without_importing_modules_there(hostile):
    (student,) = command(hostile, "export", "runs/finished", "--out", "students", "--top", "1").split()
    folder = hostile / student
    for name in SHADOWS:
        shutil.copy(hostile / f"{name}.py", folder)
    assert "accuracy" in command(folder, "evaluate", ".", "--split", "val")


def test_a_sweep_runs_beside_modules_that_shadow_the_ones_it_needs(hostile):
    for arguments in (["run", "tiny.yaml"], ["confirm", "runs/tiny", "--seeds", "2"],
                      ["resume", "runs/tiny", "--trials", "2"]):  # fmt: skip
        command(hostile, *arguments)


def test_user_code_is_found_beside_modules_that_shadow(hostile):
    (hostile / "own_student.py").write_text(
        "from torch import nn\n\n"
        "def build(input_shape, num_classes, width):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(784, round(32 * width)), nn.Linear(round(32 * width), 10))\n"
    )
    assert "own_student" not in command(hostile, "validate", "tiny.yaml", "--set", "student.model=own_student:build")
