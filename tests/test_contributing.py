"""The examples of docs/contributing.md, pasted as they are into a copy of kdsweep, pass its tests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLE = re.compile(r"`(kdsweep/[a-z_/]+\.py)`[^`]*?```python\n(.*?)```", flags=re.DOTALL)
COPIED = (
    "kdsweep",
    "tests",
    "benchmarks",
    "docs",
    "search_spaces",
    ".ci",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "cluster.yaml",
)


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """A checkout with every example of the page, and the pages that are written from the code written again."""
    root = tmp_path_factory.mktemp("checkout")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__", "measured"))
        else:
            shutil.copyfile(source, root / name)
    examples = EXAMPLE.findall((ROOT / "docs" / "contributing.md").read_text())
    assert len(examples) == 10
    for path, code in examples:
        assert not (root / path).exists(), f"{path} is there already"
        (root / path).write_text(code)
    assert run(root, "benchmarks/methods_page.py").returncode == 0
    return root


def run(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.run(
        [sys.executable, *command], cwd=root, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_each_example_is_found_and_passes_the_contract_of_its_kind(copy):
    commands = ("methods", "models", "datasets", "optimizers", "schedules", "losses", "samplers", "schedulers")
    listed = "".join(run(copy, "-m", "kdsweep", command).stdout for command in commands)
    examples = ("huber", "tiny", "stripes", "sign", "quadratic", "brier", "evolution", "patience")
    assert [name for name in examples if name not in listed] == []
    folders = [f"tests/{name}" for name in ("methods", "models", "datasets", "tasks", "training", "search")]
    chosen = " or ".join(["page", "method", "declared", "registered", "listed", *examples])
    ran = run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, *folders)
    assert ran.returncode == 0, ran.stdout[-3000:]


@pytest.mark.slow
def test_the_tests_of_parts_pass_with_the_examples(copy):
    folders = [f"tests/{name}" for name in ("config", "datasets", "methods", "models", "search", "tasks", "training")]
    top = [f"tests/{path.name}" for path in (copy / "tests").glob("test_*.py") if path.name != Path(__file__).name]
    ran = run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", *folders, *top)
    assert ran.returncode == 0, ran.stdout[-5000:]
