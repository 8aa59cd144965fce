"""Sweeps submitted to a real Ray cluster of two nodes with token authentication."""

from __future__ import annotations

import json
import os
import pty
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

import kdsweep
from kdsweep.storage.bucket import Bucket
from kdsweep.storage.segments import read_logs

pytestmark = pytest.mark.cluster

SPEC = """\
name: sent
dataset: {name: mnist_mini, subset: 1000, val_fraction: 0.5}
teacher: {model: mnist_teacher, width: 0.25, checkpoint: "kdsweep:mnist_mini_teacher"}
student: {model: mnist_student}
space: {method: [kd, "sent_own:Quiet"], width: 0.25}
train: {epochs: 60, batch_size: 32, precision: float32}
search: {trials: 3}
scheduler: {name: none}
confirm: {top: 0}
resources: {max_concurrent: 1, gpus_per_trial: 0}
"""
OWN = """\
from kdsweep.methods import Method

class Quiet(Method):
    formula = "0"
    source = "this test"
    needs = frozenset({"logits"})

    def term(self, student, teacher, labels):
        return student.logits.sum() * 0
"""
START = [sys.executable, "-m", "ray.scripts.scripts", "start", "--disable-usage-stats", "--num-cpus=1", "--num-gpus=0",
         "--dashboard-agent-listen-port=0"]  # fmt: skip


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def cluster(tmp_path):
    """The address of the dashboard, and the environment of a process that knows the token."""
    pytest.importorskip("aiohttp_cors")  # ray[default]
    home = tmp_path / "home"
    (home / ".ray").mkdir(parents=True)
    (home / ".ray/auth_token").write_text(secrets.token_hex(32))
    python = Path(sys.executable).parent
    environment = os.environ | {"HOME": str(home), "RAY_AUTH_MODE": "token", "PATH": f"{python}:{os.environ['PATH']}"}
    environment.pop("RAY_ADDRESS", None)
    port, dashboard = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="kds-", dir="/tmp", ignore_cleanup_errors=True) as short:  # for sockets
        head = [*START, "--head", f"--port={port}", f"--dashboard-port={dashboard}", f"--temp-dir={short}/ray",
                f"--ray-client-server-port={free_port()}"]  # fmt: skip
        try:
            # A temporary folder of its own: two nodes that unpack a job's code into the same one disturb each other.
            side = [*START, f"--address=127.0.0.1:{port}", f"--temp-dir={short}/other", '--resources={"side": 1}']
            for number, command in enumerate((head, side)):
                own = {"KDSWEEP_CACHE": str(tmp_path / f"cache{number}")}
                started = subprocess.run(command, env=environment | own, capture_output=True, text=True, check=False)
                assert started.returncode == 0, started.stdout + started.stderr
            yield f"http://127.0.0.1:{dashboard}", environment
        finally:
            end_all(home)


def end_all(home: Path) -> None:
    """End the daemons of the cluster, which are those with its HOME; `ray stop` would end those of others too."""
    for process in psutil.process_iter(["environ"]):
        if (process.info["environ"] or {}).get("HOME") == str(home):
            with suppress(psutil.NoSuchProcess):
                process.kill()


class Proxy:
    """Stands between a client and a server, and can cut the connections of all clients."""

    def __init__(self, port: int):
        self._port = port
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Cut the connections; new ones are accepted."""
        for end in self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # ends accept
        self._listener.close()
        self.cut()
        for end in self._open:
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, server = self._listener.accept()[0], socket.create_connection(("127.0.0.1", self._port))
                self._open += [client, server]
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    @staticmethod
    def _pass_on(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class OnTerminal:
    """A command whose input and output are a terminal."""

    def __init__(self, words: list[str], folder: Path, environment: dict[str, str]):
        self._master, terminal = pty.openpty()
        # Tests in the background inherit that SIGINT is ignored, which no command of a terminal does.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        self.process = subprocess.Popen(
            words, cwd=folder, env=environment, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True
        )
        signal.signal(signal.SIGINT, before)
        os.close(terminal)
        self.text = ""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with suppress(OSError):
            while data := os.read(self._master, 65536):
                self.text += data.decode()

    def interrupt(self, answer: str) -> int:
        """Press Ctrl-C, answer the question, and return the exit code."""
        self.process.send_signal(signal.SIGINT)
        wait_for(lambda: "[y/N]" in self.text or self.process.poll() is not None)
        assert self.process.poll() is None, self.text
        os.write(self._master, f"{answer}\n".encode())
        return self.process.wait(300)


def wait_for(reached) -> None:
    until = time.monotonic() + 600
    while not reached():
        assert time.monotonic() < until, "not reached within ten minutes"
        time.sleep(0.2)


def drivers(storage: object) -> list[psutil.Process]:
    """The processes that run the sweep: the shell of the job, and Python."""
    found = [process for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"]]
    return [process for process in found if "-m kdsweep" in (line := " ".join(process.info["cmdline"]))
            and str(storage) in line and " submit " not in line]  # fmt: skip


def lines_of(log: Path) -> int:
    return log.read_bytes().count(b"\n") if log.is_file() else 0


def epochs_in(bucket) -> int:
    """The epochs that the bucket's segments tell."""
    store = Bucket(f"{bucket.uri}/runs")
    return read_logs(store, "sent").content.get("epochs.jsonl", b"").count(b"\n")


def comparable(results):
    return results.trials[["trial", "state", "config", "epochs", "val_accuracy", "val_loss"]].to_dict("records")


def test_a_submitted_sweep_is_killed_and_resumed_and_equals_one_that_was_not(cluster, tmp_path, monkeypatch):
    address, environment = cluster
    (tmp_path / "sent.yaml").write_text(SPEC)
    (tmp_path / "sent_own.py").write_text(OWN)
    storage = tmp_path / "shared"

    def command(*arguments, **variables) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "kdsweep", *arguments, "--address", address]
        return subprocess.run(
            words, cwd=tmp_path, env=environment | variables, capture_output=True, text=True, check=False
        )

    wait_for(lambda: command("jobs").returncode == 0)  # the dashboard listens before it can answer
    refused = command("jobs", RAY_AUTH_TOKEN="0" * 64)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
    assert "the cluster refuses the token" in refused.stderr

    sent = command("submit", "sent.yaml", "--storage", str(storage), "--no-wait")
    assert sent.returncode == 0, sent.stderr
    assert f"2 files sent, results in {storage}/sent" in sent.stderr
    again = command("submit", "sent.yaml", "--storage", str(storage), "--no-wait")
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert "is running it already" in again.stderr

    wait_for(lambda: lines_of(storage / "sent/epochs.jsonl") >= 3)
    for process in drivers(storage):
        process.send_signal(signal.SIGKILL)
    wait_for(lambda: "FAILED" in command("jobs").stdout)

    resumed = command("submit", "sent.yaml", "--storage", str(storage), "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "cluster joined RAY_ADDRESS=" in resumed.stdout
    assert "resuming 1 after" in resumed.stdout
    assert f"kdsweep results {storage}/sent" in resumed.stdout  # an absolute path
    assert command("jobs").stdout.count("SUCCEEDED") == 1
    stopped = command("stop", "sent")
    assert (stopped.returncode, "has ended already" in stopped.stderr) == (2, True)

    monkeypatch.chdir(tmp_path)
    found = kdsweep.load_results(storage / "sent")
    alone = kdsweep.run(kdsweep.load_spec(tmp_path / "sent.yaml", {"storage": str(tmp_path / "alone")}), "local")
    assert comparable(found) == comparable(alone)
    assert not found.epochs.duplicated(["trial", "epoch"]).any()
    assert (found.trials["node"] != "").all()
    recorded = json.loads(found.sweep.environment.read_text())
    assert len(recorded["starts"]) == 2
    assert recorded["starts"][1]["trained"]
    assert {(worker["start"], worker["device"]) for worker in recorded["workers"]} >= {(0, "cpu"), (1, "cpu")}


def test_a_submitted_sweep_in_a_bucket_survives_its_driver_its_node_and_the_server(
    bucket, server, cluster, tmp_path, monkeypatch
):
    address, environment = cluster
    (tmp_path / "sent.yaml").write_text(SPEC)
    (tmp_path / "sent_own.py").write_text(OWN)

    def command(*arguments) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "kdsweep", *arguments, "--address", address]
        return subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    wait_for(lambda: command("jobs").returncode == 0)
    sent = command("submit", "sent.yaml", "--storage", "s3://sweeps/runs", "--no-wait")
    assert sent.returncode == 0, sent.stderr
    assert "2 files sent, results in s3://sweeps/runs/sent" in sent.stderr
    wait_for(lambda: epochs_in(bucket) >= 3)
    server.stop()
    time.sleep(3)
    server.start()
    seen = epochs_in(bucket)
    wait_for(lambda: epochs_in(bucket) > seen)
    for process in drivers("s3://sweeps/runs"):
        process.send_signal(signal.SIGKILL)
    wait_for(lambda: "FAILED" in command("jobs").stdout)
    for cache in tmp_path.glob("cache*"):
        shutil.rmtree(cache)  # as if the next driver ran on another node

    resumed = command("submit", "sent.yaml", "--storage", "s3://sweeps/runs", "--resume")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "resuming 1 after" in resumed.stdout
    assert "kdsweep results s3://sweeps/runs/sent" in resumed.stdout

    monkeypatch.chdir(tmp_path)
    found = kdsweep.load_results("s3://sweeps/runs/sent")
    alone = kdsweep.run(kdsweep.load_spec(tmp_path / "sent.yaml", {"storage": str(tmp_path / "alone")}), "local")
    assert comparable(found) == comparable(alone)
    assert not found.epochs.duplicated(["trial", "epoch"]).any()
    recorded = json.loads(found.sweep.environment.read_text())
    assert len(recorded["starts"]) == 2
    (student,) = found.export_to("s3://sweeps/students", top=1)
    assert f"students/{student.place.name}/model.safetensors" in bucket.listed()


def test_the_driver_has_a_place_and_a_broken_log_goes_on_until_it_is_left_or_the_sweep_stopped(cluster, tmp_path):
    address, environment = cluster
    proxy = Proxy(int(address.rpartition(":")[2]))
    # Long enough to be left and stopped on any machine.
    (tmp_path / "sent.yaml").write_text(SPEC.replace("trials: 3", "trials: 300"))
    (tmp_path / "sent_own.py").write_text(OWN)
    kdsweep_command = [sys.executable, "-m", "kdsweep"]
    places = ["--storage", str(tmp_path / "shared"), "--driver-cpus", "0.1"]

    def states() -> dict[str, str]:
        words = [*kdsweep_command, "jobs", "--address", address]
        done = subprocess.run(
            words, env=environment | {"COLUMNS": "300"}, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        return {line.split()[0]: line.split()[1] for line in done.stdout.splitlines() if len(line.split()) > 2}

    try:
        submitted = [*kdsweep_command, "submit", "sent.yaml", *places, "--address", proxy.address]
        sent = OnTerminal(submitted, tmp_path, environment)
        wait_for(lambda: "search " in sent.text or sent.process.poll() is not None)
        before = sent.text
        proxy.cut()
        wait_for(lambda: sent.text.count("search ") > before.count("search ") or sent.process.poll() is not None)
        assert sent.interrupt("n") == 130, sent.text
        assert "sent continues on the cluster" in sent.text
        assert sent.text.count("data    mnist_mini") == 1  # nothing is told twice
        assert states()["sent"] == "RUNNING"

        followed = OnTerminal([*kdsweep_command, "logs", "sent", "--address", address], tmp_path, environment)
        wait_for(lambda: "data    mnist_mini" in followed.text or followed.process.poll() is not None)
        assert followed.interrupt("y") == 130, followed.text
        assert "stopped sent; continue with" in followed.text
        assert states()["sent"] == "STOPPED"

        def submit_elsewhere(name: str, resource: str) -> None:
            words = [*kdsweep_command, "submit", "sent.yaml", "--name", name, *places, "--no-wait"]
            words += ["--driver-resource", resource, "--address", address]
            done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, check=False)
            assert done.returncode == 0, done.stderr

        # Its log is not followed: with two nodes on one machine, Ray looks for the second's log in the head's folder.
        submit_elsewhere("side", "side=0.01")
        wait_for(lambda: drivers("--name side"))
        assert {process.environ()["KDSWEEP_CACHE"] for process in drivers("--name side")} == {str(tmp_path / "cache1")}
        submit_elsewhere("nowhere", "nowhere=1")
        assert states()["nowhere"] == "PENDING"
    finally:
        proxy.close()
