"""Fixtures shared by the tests: sweep files, and one finished sweep on a local Ray."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import inputs
import pytest

# Before Ray is imported anywhere: workers must not run `uv run` again.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
# The tests start about a hundred processes; without bytecode each would compile all of PyTorch again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Processes of pytest-xdist have one; tests of wide tables are about output of unknown width.
os.environ.pop("COLUMNS", None)

MINIMAL = """\
name: {name}
dataset: {{name: mnist_mini, subset: 1200, val_fraction: 0.5}}
teacher: {{model: mnist_teacher, width: 0.25, checkpoint: "kdsweep:mnist_mini_teacher"}}
student: {{model: mnist_student}}
space:
  method: [kd, hint, none]
  width: {{choice: [0.25, 0.5]}}
  temperature: {{loguniform: [2, 8]}}
  alpha: {{uniform: [0.3, 0.9]}}
  lr: {{loguniform: [1e-3, 1e-2]}}
train: {{epochs: 4, batch_size: 64}}
search: {{trials: 10, startup_trials: 5, points: [{{method: kd, width: 0.5, temperature: 4, alpha: 0.9, lr: 3e-3}}]}}
scheduler: {{name: asha, grace_epochs: 1}}
confirm: {{top: 1, seeds: 2}}
storage: {storage}
"""


@pytest.fixture(autouse=True)
def without_tokens():
    """Let no later test start a Ray that needs a token: commands about jobs set this if they find one."""
    yield
    os.environ.pop("RAY_AUTH_MODE", None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--count-inputs", action="store_true", help="print how many malformed inputs were tried, by kind")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send what this process of pytest-xdist counted to the one that reports."""
    sent = getattr(session.config, "workeroutput", None)
    if sent is not None:
        sent["inputs"] = [[*key, number] for key, number in inputs.counts.items()]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Add what another process counted."""
    for kind, outcome, number in getattr(node, "workeroutput", {}).get("inputs", ()):
        inputs.counts[kind, outcome] += number


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.getoption("count_inputs"):
        terminalreporter.section("malformed inputs")
        for line in inputs.table():
            terminalreporter.write_line(line)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tests share the cores; small models are no faster on several."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def minimal() -> str:
    """The text of a small sweep file, with {name} and {storage} to fill in."""
    return MINIMAL


@pytest.fixture
def sweep_file(tmp_path: Path) -> Path:
    """A small sweep file, with its storage in the test's directory."""
    path = tmp_path / "small.yaml"
    path.write_text(MINIMAL.format(name="small", storage=tmp_path / "runs"))
    return path


@pytest.fixture(scope="session")
def local_ray():
    """One local Ray for all tests that need one."""
    from kdsweep.tune.cluster import connected

    with connected(None):
        yield


@pytest.fixture(scope="session")
def swept(local_ray, tmp_path_factory) -> Path:
    """The directory of one finished sweep; tests must not change it."""
    import kdsweep

    folder = tmp_path_factory.mktemp("swept")
    path = folder / "small.yaml"
    # With this seed the best student is distilled, by a wide margin, so that the sweep has a gain to confirm.
    path.write_text("seed: 1\n" + MINIMAL.format(name="small", storage=folder / "runs"))
    return kdsweep.run(kdsweep.load_spec(path)).path
