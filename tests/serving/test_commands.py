"""The commands `watch` and `dashboard` as a user runs them."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
from made_up import begin, spec_of
from served import SECONDS


def start(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "kdsweep", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, **environment},
    )  # fmt: skip


def ended(process):
    out, err = process.communicate(timeout=SECONDS)
    return process.returncode, out, err


@pytest.mark.parametrize("command", ["watch", "dashboard"])
def test_it_serves_until_ctrl_c_which_ends_it_in_one_line(command, made_up):
    if command == "dashboard":
        pytest.importorskip("optuna_dashboard")
    process = start(command, made_up.root, "--port", 0, KDSWEEP_TOKEN="")
    try:
        line = process.stderr.readline()
        url = re.search(r"http://127\.0\.0\.1:\d+/", line)[0]
        with urllib.request.urlopen(url, timeout=SECONDS) as response:
            assert response.status == 200
        process.send_signal(signal.SIGINT)
        code, out, err = ended(process)
    finally:
        process.kill()
    assert (code, out, err) == (130, "", "stopped; a running sweep goes on\n")


def test_a_port_in_use_ends_in_one_line(made_up):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, err = ended(start("watch", made_up.root, "--port", port))
    assert (code, out) == (2, "")
    assert err == f"--port {port}: in use; accepted: a free port, or 0 to choose one\n"


def test_an_address_that_others_reach_takes_its_token_from_the_environment(tmp_path):
    spec = spec_of(tmp_path)
    begin(spec)
    code, _, err = ended(start("watch", tmp_path, "--host", "0.0.0.0", "--port", 0, KDSWEEP_TOKEN=""))
    assert code == 2
    assert err.count("\n") == 1
    assert "or with --token or KDSWEEP_TOKEN" in err
    process = start("watch", tmp_path, "--host", "0.0.0.0", "--port", 0, KDSWEEP_TOKEN="correcthorsebattery")
    try:
        assert "?token=correcthorsebattery" in process.stderr.readline()
    finally:
        process.send_signal(signal.SIGTERM)
        ended(process)


@pytest.mark.parametrize("command", ["watch", "dashboard"])
def test_a_directory_that_is_not_there_ends_in_one_line(command, tmp_path):
    code, out, err = ended(start(command, tmp_path / "none"))
    assert (code, out) == (2, "")
    assert "no such directory" in err
    assert err.count("\n") == 1
