"""Sweep files by name: those that come with kdsweep, in a checkout and in the wheel."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import kdsweep
from kdsweep.config import shipped
from kdsweep.errors import SpecError

ROOT = Path(__file__).parents[2]


def test_a_bare_name_is_a_sweep_file_of_kdsweep_unless_there_is_a_file_of_that_name(tmp_path, monkeypatch, sweep_file):
    monkeypatch.chdir(tmp_path)
    spec = kdsweep.load_spec("quickstart", {"search.trials": 3})
    assert (spec.name, spec.search.trials, spec.storage) == ("quickstart", 3, str(tmp_path / "runs"))
    Path("quickstart").mkdir()
    assert kdsweep.load_spec("quickstart").name == "quickstart"
    Path("quickstart").rmdir()
    Path("quickstart").write_text(sweep_file.read_text())
    assert kdsweep.load_spec("quickstart").name == "small"


def test_an_unknown_name_lists_the_known_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match="^quikstart: no such file.*did you mean 'quickstart'.*image_folder"):
        kdsweep.load_spec("quikstart")
    for path in ("quickstart.yaml", "search_spaces/quickstart"):
        with pytest.raises(SpecError, match=f"^{path}: no such file; accepted: a sweep file in YAML$"):
            kdsweep.load_spec(path)


def test_each_has_a_summary():
    assert shipped.names() == sorted(path.stem for path in (ROOT / "search_spaces").glob("*.yaml"))
    assert shipped.summary("quickstart") == "A first sweep"
    assert all(shipped.summary(name) for name in shipped.names())


def test_the_wheel_brings_them_along(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    command = [sys.executable, "-m", "kdsweep", "validate", "quickstart"]
    environment = os.environ | {"PYTHONPATH": str(installed)}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("quickstart: valid\nquickstart: 24 trials")
