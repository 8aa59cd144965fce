"""Runs test code on a GPU that does not exist: on the null CUDA runtime."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import build
import child

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def null_cuda_environment(tmp_path_factory) -> dict[str, str]:
    """Environment variables of a process that sees one GPU; the runtime is built once."""
    if reason := build.missing():
        pytest.skip(reason)
    return build.build(tmp_path_factory.mktemp("null_cuda"))


@pytest.fixture
def on_null_gpu(null_cuda_environment) -> Callable[..., Any]:
    """Call a function of a test module in a process with one GPU, and return its result.

    The function takes and returns JSON data. `gb` is the memory of the GPU in GiB. PATHS are more places of modules.
    """

    def call(function: Callable[..., Any], *arguments: Any, gb: float = 80, **variables: str) -> Any:
        file = sys.modules[function.__module__].__file__
        assert file is not None
        command = [sys.executable, "-W", "error", child.__file__, file, function.__name__, json.dumps(arguments)]
        environment = {**os.environ, **null_cuda_environment, "NULLCUDA_GB": str(gb), "PYTHONPATH": str(ROOT)}
        if "PATHS" in variables:
            environment["PYTHONPATH"] += f":{variables.pop('PATHS')}"
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment | variables)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        line = next(line for line in reversed(done.stdout.splitlines()) if line.startswith(child.RESULT))
        return json.loads(line.removeprefix(child.RESULT))

    return call
