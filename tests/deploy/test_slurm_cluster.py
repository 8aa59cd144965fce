"""deploy/slurm.sbatch on a real Slurm of three nodes, each with a network and processes of its own."""

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
NODES, CLUSTER = (Path(__file__).parent / name for name in ("nodes.sh", "slurm.sh"))
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged")
CONFIG = """\
ClusterName=kdsweep
SlurmctldHost=control(10.77.0.254)
SlurmUser=root
AuthType=auth/munge
SelectType=select/cons_tres
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SlurmdParameters=config_overrides
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmdPidFile={folder}/%n.pid
SlurmctldPidFile={folder}/slurmctld.pid
MailProg=/bin/true
KillWait=5
GresTypes=gpu
NodeName=node[1-3] NodeAddr=10.77.0.[1-3] CPUs=2 RealMemory=2000 Gres=gpu:1
PartitionName=all Nodes=ALL Default=YES
"""
# A file that is no GPU lets the nodes have one: the script asks for it, and the sweep says that it uses none.
GPUS = "AutoDetect=off\nNodeName=node[1-3] Name=gpu File=/dev/null\n"
CGROUPS = "CgroupPlugin=cgroup/v1\n"  # slurmd looks for them at its start, though nothing uses them
SPEC = """\
name: slurm
dataset: {name: mnist_mini, subset: 1000, val_fraction: 0.5}
teacher: {model: mnist_teacher, width: 0.25, checkpoint: "kdsweep:mnist_mini_teacher"}
student: {model: mnist_student}
space: {method: [kd], width: 0.25, lr: {choice: [1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 6e-3]}}
train: {epochs: 100, batch_size: 32}
search: {trials: 6, sampler: random}
scheduler: {name: none}
confirm: {top: 0}
resources: {max_concurrent: 3, gpus_per_trial: 0}
"""
# Interrupts the job in the middle, as a preemption does; then submits it once more.
JOBS = """\
set -euo pipefail
submit() { sbatch --parsable "$@" "$SBATCH" slurm.yaml --set seed=1; }
ended() { scontrol show job "$job" | grep -qE 'JobState=(COMPLETED|FAILED|CANCELLED|NODE_FAIL)'; }
job=$(submit)
until [ "$(cat runs/slurm/epochs.jsonl 2> /dev/null | wc -l)" -ge 100 ]; do if ended; then exit 1; fi; sleep 0.1; done
scontrol requeue "$job"
# It would wait for two minutes.
until ended; do scontrol update JobId="$job" StartTime=now 2> /dev/null || true; sleep 1; done
scontrol show job "$job" | grep -oE '(JobState|Restarts)=\\w+'
submit --wait
"""


def can_make_networks() -> bool:
    if os.geteuid() or not shutil.which("ip") or not shutil.which("unshare"):
        return False
    return subprocess.run([NODES, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.cluster
def test_a_sweep_of_three_slurm_nodes_survives_a_preemption_and_the_same_command_finds_it_finished(tmp_path):
    if not can_make_networks() or not all(map(shutil.which, PROGRAMS)):
        pytest.skip("needs root, network namespaces, and the Debian packages slurmctld, slurmd, slurm-client and munge")
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, text in {"slurm": CONFIG.format(folder=folder), "gres": GPUS, "cgroup": CGROUPS}.items():
        (folder / f"{name}.conf").write_text(text)
    (tmp_path / "slurm.yaml").write_text(SPEC)
    with tempfile.TemporaryDirectory(prefix="kds-", dir="/tmp", ignore_cleanup_errors=True) as short:
        environment = os.environ | {
            "HOME": str(tmp_path / "home"), "RAY_TMPDIR": short, "KDSWEEP_ENV": str(Path(sys.executable).parents[1]),
            "PYTHONPATH": str(ROOT), "RAY_memory_monitor_refresh_ms": "0",
            "RAY_gcs_rpc_server_reconnect_timeout_s": "5",  # how long nodes wait for a head that has ended
            "SBATCH": str(ROOT / "deploy/slurm.sbatch"),
        }  # fmt: skip
        environment.pop("RAY_ADDRESS", None)
        script = [NODES, CLUSTER, folder, "bash", "-c", JOBS]
        done = subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    logs = sorted(tmp_path.glob("kdsweep-*.log"))
    told = done.stdout + done.stderr[-4000:] + "".join(log.read_text() for log in logs)
    assert done.returncode == 0, told
    assert "JobState=COMPLETED" in done.stdout, told
    assert "Restarts=1" in done.stdout
    first, second = (log.read_text() for log in logs)
    assert "3 nodes" in first
    assert "resuming" in first  # after what the first start said
    assert "report " in second
    found = kdsweep.load_results(tmp_path / "runs/slurm")
    assert (found.trials["state"] == "COMPLETE").all()
    assert not found.epochs.duplicated(["trial", "epoch"]).any()
    assert len(found.epochs) == 6 * 100
    assert list((tmp_path / "home/.ray").glob("slurm-*")) == []  # the tokens
