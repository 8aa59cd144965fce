"""benchmarks/gpu.py: all sections but the search run on the null GPU. What they measure there means nothing."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import null_cuda
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
# Imported by every process: losses are garbage, so nothing is checked for finite numbers.
SITE = "import math\nmath.isfinite = lambda value: True\n"


def calls(run: Any) -> Counter[str]:
    """Stand in for torch.profiler, which needs more of CUDA than there is."""
    null_cuda.reset()
    run()
    counted = null_cuda.counts()
    return Counter(cudaLaunchKernel=null_cuda.total(counted, "KERNEL"), cudaStreamSynchronize=null_cuda.syncs(counted))


def sections(root: str) -> dict[str, Any]:
    """Run the sections in this process, and return what they found."""
    import gpu
    import images
    from on_gpu import faults, launches, section
    from trainings import ignore_values

    ignore_values()
    launches.calls = calls
    faults.BREAKS = "null_cuda:poison"
    setting = section.Setting(Path(root), quick=True, ray=False)
    images.provide(setting.folder, None, *gpu.QUICK_IMAGES)
    section.bench(setting, "first", "lightnn", device=section.CPU)  # where its teacher can be judged
    return {name: vars(gpu.measured(name, setting)) for name in gpu.SECTIONS}


@pytest.mark.null_gpu
def test_every_section_ends_with_a_table_and_figures(on_null_gpu, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(SITE)
    places = ":".join(map(str, (tmp_path, Path(__file__).parent, BENCHMARKS)))
    found = on_null_gpu(sections, str(tmp_path / "folder"), PATHS=places)
    assert list(found) == ["parity", "launches", "speed", "processes", "memory", "faults", "sweep"]
    assert found["sweep"]["notes"] == ["skipped: without Ray"]
    for name, part in found.items():
        assert bool(part["table"]) == bool(part["figures"]) == (name != "sweep")
    assert set(found["parity"]["figures"]) >= {
        "mnist_student, none",
        "resnet8, kd captured",
        "resnet8, kd in a cohort of 4",
    }
    for name, figures in found["launches"]["figures"].items():
        assert figures["waits"] == 0, name
        assert 0 < figures["launches_per_trial"] <= figures["launches"], name
        assert (figures["launches"] < 5) == name.startswith("captured")
    rates = [figures["rate"]["median"] for figures in found["speed"]["figures"].values()]
    assert len(rates) == 16
    assert min(rates) > 0
    assert set(found["processes"]["figures"]["without MPS"]) == {"1", "2"}
    (memory,) = found["memory"]["figures"].values()
    assert 0 < memory["reserved"] <= memory["used"]
    rows = {row["fault"]: row for row in found["faults"]["figures"]["rows"]}
    assert len(rows) == 12
    assert {row["seen"] for row in rows.values() if row["seen"] != row["documented"]} == {"skipped: without Ray"}


def test_without_a_gpu_one_line_says_so():
    command = [sys.executable, str(BENCHMARKS / "gpu.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"CUDA_VISIBLE_DEVICES": ""})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("gpu.py: PyTorch ")
    assert len(done.stderr.splitlines()) == 1
