"""A real MLflow server over HTTP: it gets every trial and file once, also if it is down for a while.

The server needs a whole MLflow, which kdsweep does not depend on: `uv tool install 'mlflow>=3.5,<4'`, or the path of an
`mlflow` program in `KDSWEEP_TEST_MLFLOW`.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
import read_back
from test_trackers import begin, first_session, follow, second_session, spec_of

from kdsweep.results.frames import load_results
from kdsweep.tracking.section import TrackingSection
from kdsweep.tracking.session import attach

SECONDS = 180  # to start on a busy machine


def program() -> str:
    """An `mlflow` that can serve; empty if there is none."""
    tool = Path(os.environ.get("UV_TOOL_DIR", Path.home() / ".local/share/uv/tools")) / "mlflow/bin/mlflow"
    own = shutil.which("mlflow") if find_spec("flask") else None
    found = [os.environ.get("KDSWEEP_TEST_MLFLOW", ""), str(tool), own or ""]
    return next((path for path in found if path and Path(path).is_file()), "")


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("mlflow") is None, reason="needs mlflow-skinny"),
    pytest.mark.skipif(not program(), reason="needs a whole MLflow: uv tool install 'mlflow>=3.5,<4'"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def serving(folder: Path, port: int):
    """Run a server on loopback, with its store and files in a folder; yields its address."""
    address = f"http://127.0.0.1:{port}"
    places = ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", str(folder / "files")]
    command = [program(), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", *places]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with (folder / "server.log").open("ab") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        until = time.monotonic() + SECONDS
        while not answers(address):
            assert server.poll() is None, (folder / "server.log").read_text()[-2000:]
            assert time.monotonic() < until, "the server does not answer"
            time.sleep(0.2)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


def test_a_server_gets_every_trial_once_and_what_it_missed_while_it_was_down(tmp_path, port, monkeypatch, capfd):
    monkeypatch.setattr("kdsweep.tracking.feed.EVERY_SECONDS", 0.05)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    spec, folder = spec_of(tmp_path), tmp_path / "server"
    folder.mkdir()
    begin(spec)
    with serving(folder, port) as address:
        section = TrackingSection.model_validate({"mlflow": address})
        assert follow(spec, section, first_session) == section.described(spec.sweep_dir)
        read_back.agrees(read_back.mlflow(spec.sweep_dir, address), spec.sweep_dir.root)
    lines = follow(spec, section, second_session)
    assert len(lines) == 2
    assert lines[1].startswith("warning: mlflow is off for this session: ")
    assert "\n" not in lines[1]
    with serving(folder, port) as address:
        assert follow(spec, section) == lines[:1]
        runs = read_back.mlflow(spec.sweep_dir, address)
        read_back.agrees(runs, spec.sweep_dir.root)
        assert len(runs) == 6
        best = load_results(spec.sweep_dir.root).best()["trial"][0]
        student = tmp_path / f"followed-{best}"
        student.mkdir()
        (student / "README.md").write_text("# The card")
        told: list[str] = []
        attach(section, spec.sweep_dir, spec.goal, {best: student}, told.append)
        assert told == [f"mlflow: attached to the runs of {best}"]
        assert read_back.mlflow(spec.sweep_dir, address)[best].files == ["README.md"]
    (card,) = (folder / "files").rglob("student/README.md")  # the files are on the server, not here
    assert card.read_text() == "# The card"
    assert capfd.readouterr().out == ""
