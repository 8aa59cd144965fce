"""What `import kdsweep` offers: the same names to a reader, to a type checker and at run time."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import kdsweep

PACKAGE = Path(kdsweep.__file__)

SCRIPT = """\
from pathlib import Path

import kdsweep

spec = kdsweep.load_spec("sweep.yaml", {"search.trials": 8})
results = kdsweep.run(spec)
names: list[str] = list(results.trials.columns)
folders: list[Path] = results.export("students", top=3)
student = kdsweep.load_student(folders[0])
student.eval()
wrong: int = results.export("students")
"""


def test_every_public_name_is_exported_resolved_and_known_to_type_checkers():
    tree = ast.parse(PACKAGE.read_text())
    (guarded,) = (node for node in tree.body if isinstance(node, ast.If))
    seen_by_checkers = {alias.name for node in guarded.body for alias in node.names}
    assert seen_by_checkers == set(kdsweep.__all__) == set(kdsweep._HOMES)
    for name in kdsweep.__all__:
        assert getattr(kdsweep, name).__module__.startswith("kdsweep.") or name.isupper()
    assert set(dir(kdsweep)) >= {*kdsweep.__all__, "__version__", "methods", "models", "datasets"}


@pytest.mark.slow
def test_a_users_script_is_type_checked_against_the_package(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    config = tmp_path / "mypy.ini"
    config.write_text(
        "[mypy]\nfollow_imports = silent\n[mypy-torch.*,torchvision.*]\nfollow_imports = skip\n"
    )  # slow to read
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", str(config), str(script)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    faults = [line for line in ran.stdout.splitlines() if "error:" in line]
    assert len(faults) == 1, ran.stdout
    assert faults[0].startswith("script.py:11: error: Incompatible types in assignment")


def test_the_package_runs_as_a_module():
    ran = subprocess.run([sys.executable, "-m", "kdsweep", "--version"], capture_output=True, text=True, check=True)
    assert ran.stdout == f"kdsweep {kdsweep.__version__}\n"


def test_the_shell_completes_commands():
    asked = {"_KDSWEEP_COMPLETE": "complete_bash", "COMP_WORDS": "kdsweep con", "COMP_CWORD": "1"}
    command = [sys.executable, "-m", "kdsweep"]
    ran = subprocess.run(command, capture_output=True, text=True, env=os.environ | asked, check=False)
    assert ran.stdout.split() == ["confirm"]
