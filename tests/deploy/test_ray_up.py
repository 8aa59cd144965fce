"""`ray up` of cluster.yaml's start commands on three machines with ssh: a head without trials, and two workers."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml
from test_slurm_cluster import NODES, ROOT, SPEC, can_make_networks

import kdsweep

SSHD = """\
Port 22
HostKey {home}/.ssh/key
AuthorizedKeysFile {home}/.ssh/key.pub
StrictModes no
PasswordAuthentication no
PermitRootLogin prohibit-password
PidFile none
"""


def prepare(folder: Path) -> None:
    """Write the home of the machines, the configuration of sshd, and a cluster.yaml for the local provider."""
    home = folder / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ray").mkdir()
    (home / ".ray/auth_token").write_text(secrets.token_hex(32))
    python = Path(sys.executable).parent
    (home / ".bashrc").write_text(f"export PATH={python}:$PATH PYTHONPATH={ROOT} RAY_AUTH_MODE=token\n")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", home / ".ssh/key"], check=True)
    (folder / "sshd_config").write_text(SSHD.format(home=home))
    (folder / "sweep.yaml").write_text(SPEC + f"storage: {folder}/runs\n")
    of_aws = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    local = {name: of_aws[name] for name in ("head_start_ray_commands", "worker_start_ray_commands", "upscaling_speed")}
    local |= {
        "cluster_name": "kdsweep-local", "min_workers": 3, "max_workers": 3, "idle_timeout_minutes": 5,
        # Ray's autoscaler counts the head among the machines of the local provider.
        "provider": {"type": "local", "head_ip": "10.77.0.1", "worker_ips": ["10.77.0.2", "10.77.0.3"]},
        "auth": {"ssh_user": "root", "ssh_private_key": str(home / ".ssh/key")},
    }  # fmt: skip
    (folder / "cluster.yaml").write_text(yaml.safe_dump(local))


@pytest.mark.cluster
def test_ray_up_starts_the_machines_runs_a_sweep_and_ray_down_ends_them():
    if not can_make_networks() or not shutil.which("sshd", path="/usr/sbin") or not shutil.which("rsync"):
        pytest.skip("needs root, network namespaces, sshd and rsync")
    with tempfile.TemporaryDirectory(prefix="kds-", dir="/var/tmp", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        prepare(folder)
        python = Path(sys.executable).parent
        environment = os.environ | {"PATH": f"{python}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
        environment |= {"RAY_AUTH_MODE": "token", "RAY_memory_monitor_refresh_ms": "0"}
        environment.pop("RAY_ADDRESS", None)
        script = [NODES, Path(__file__).parent / "ray_up.sh", folder]
        done = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
        logs = "".join(log.read_text() for log in folder.glob("sshd*.log"))
        assert done.returncode == 0, done.stdout + done.stderr + logs
        found = kdsweep.load_results(folder / "runs/slurm")
        assert (found.trials["state"] == "COMPLETE").all()
        assert len(found.epochs) == 6 * 100
        assert set(found.trials["node"]) <= {"10.77.0.2", "10.77.0.3"}  # none on the head
