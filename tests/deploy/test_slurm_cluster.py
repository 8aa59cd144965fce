"""deploy/slurm.sbatch on three nodes: only `srun` and `scontrol` are stand-ins."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import kdsweep

ROOT = Path(__file__).parents[2]
NODES = Path(__file__).parent / "nodes.sh"
SRUN = """\
#!/bin/bash
# Runs a command on every node, and ends with the code of the first one.
while [[ $1 = --* ]]; do shift; done
for node in 2 3; do on_node $node "$@" > "node$node.log" 2>&1 & done
on_node 1 "$@"
"""
SPEC = """\
name: slurm
dataset: {name: mnist_mini, subset: 1000, val_fraction: 0.5}
teacher: {model: mnist_teacher, width: 0.25, checkpoint: "kdsweep:mnist_mini_teacher"}
student: {model: mnist_student}
space: {method: [kd], width: 0.25, lr: {choice: [1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 6e-3]}}
train: {epochs: 8, batch_size: 32}
search: {trials: 6, sampler: random}
scheduler: {name: none}
confirm: {top: 0}
resources: {max_concurrent: 3, gpus_per_trial: 0}
"""


def can_make_networks() -> bool:
    if os.geteuid() or not shutil.which("ip") or not shutil.which("unshare"):
        return False
    return subprocess.run([NODES, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.cluster
def test_a_sweep_of_three_slurm_nodes_ends_and_the_same_job_finds_it_finished(tmp_path):
    if not can_make_networks():
        pytest.skip("needs root, and network namespaces")
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for name, text in {"srun": SRUN, "scontrol": "#!/bin/sh\necho 10.77.0.1\n"}.items():
        (bin_folder / name).write_text(text)
        (bin_folder / name).chmod(0o755)
    (tmp_path / "slurm.yaml").write_text(SPEC)
    with tempfile.TemporaryDirectory(prefix="kds-", dir="/tmp", ignore_cleanup_errors=True) as short:
        environment = os.environ | {
            "PATH": f"{bin_folder}:{os.environ['PATH']}", "HOME": str(tmp_path / "home"), "RAY_TMPDIR": short,
            "KDSWEEP_ENV": str(Path(sys.executable).parents[1]), "SLURM_JOB_ID": "7", "SLURM_NNODES": "3",
            "SLURM_JOB_NODELIST": "node[1-3]", "PYTHONPATH": str(ROOT), "RAY_memory_monitor_refresh_ms": "0",
        }  # fmt: skip
        environment.pop("RAY_ADDRESS", None)

        def job(*options: str) -> str:
            script = [NODES, "bash", ROOT / "deploy/slurm.sbatch", "slurm.yaml", *options]
            done = subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
            logs = "".join(log.read_text() for log in tmp_path.glob("node*.log"))
            assert done.returncode == 0, done.stdout + done.stderr + logs
            return done.stderr

        told = job("--set", "seed=1")
        assert "3 nodes" in told
        found = kdsweep.load_results(tmp_path / "runs/slurm")
        assert (found.trials["state"] == "COMPLETE").all()
        assert len(found.epochs) == 48
        assert not (tmp_path / "home/.ray/slurm-7").exists()  # the token
        assert "report " in job("--set", "seed=1")
        assert len(kdsweep.load_results(tmp_path / "runs/slurm").epochs) == 48
