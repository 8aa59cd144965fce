"""Which Ray cluster is joined, and what is told of Ray's own failures. Ray's texts are those of Ray 2.60.0."""

from __future__ import annotations

import os
import sys

import pytest

from kdsweep.cli import main
from kdsweep.errors import InputError
from kdsweep.tune.cluster import Address, _own_job, connected
from kdsweep.tune.failures import start_failure, version_mismatch

MISMATCH = """Version mismatch: The cluster was started with:
    Ray: 2.60.0
    Python: 3.11.7
This process on node 192.0.2.2 was started with:
    Ray: 2.55.1
    Python: 3.11.7
"""
NO_RUNTIME_ENV = """Failure # 1 (occurred at 2026-11-27_20-56-47)
The actor died unexpectedly before finishing this task.

Failure # 2 (occurred at 2026-11-27_20-56-47)
Failed to set up runtime environment.
Could not create the actor because its associated runtime env failed to be created.
[Node 192.0.2.2] Traceback (most recent call last):
  File "ray/_private/runtime_env/agent/runtime_env_agent.py", line 561, in _create_runtime_env_with_retry
    runtime_env_context = await asyncio.wait_for(
                          ^^^^^^^^^^^^^^^^^^^^^^^
OSError: Failed to download runtime_env file package gcs://_ray_pkg_missing.zip from the GCS to the Ray worker node.

"""


@pytest.fixture(autouse=True)
def no_address(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_without_an_address_a_local_cluster_is_started():
    assert Address.chosen(None).text is None
    assert Address.chosen("").text is None
    assert Address.chosen("local").text is None


def test_the_address_of_the_environment_is_joined_unless_one_is_given(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert Address.chosen(None) == Address("10.0.0.1:6379", "RAY_ADDRESS=10.0.0.1:6379")
    assert Address.chosen("auto").text == "auto"
    assert Address.chosen("local").text is None


def test_the_address_of_a_dashboard_is_refused(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://10.0.0.1:8265")
    with pytest.raises(InputError, match="^RAY_ADDRESS=http://10.0.0.1:8265: a dashboard.*--address local") as refused:
        Address.chosen(None)
    assert "\n" not in str(refused.value)


def test_an_address_of_the_environment_that_does_not_answer_is_named():
    with (
        pytest.raises(InputError, match="^RAY_ADDRESS=127.0.0.1:1: nothing answers there: "),
        connected(Address("127.0.0.1:1", "RAY_ADDRESS=127.0.0.1:1")),
    ):
        pass


@pytest.mark.parametrize(
    ("address", "fault"),
    [
        ("127.0.0.1:1", "--address 127.0.0.1:1: nothing answers there: "),
        (":x:1", "--address :x:1: nothing answers there: "),  # no emoji
        ("http://127.0.0.1:8265", "--address http://127.0.0.1:8265: a dashboard"),
    ],
)
def test_a_sweep_whose_cluster_does_not_answer_leaves_nothing_behind(address, fault, sweep_file, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["kdsweep", "run", str(sweep_file), "--address", address])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)  # nothing was said of the data
    assert err.startswith(fault)
    assert {path.name for path in sweep_file.parent.iterdir()} == {sweep_file.name}


def test_a_local_cluster_does_not_take_over_the_job_it_is_started_in(monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with _own_job(Address(None, "")):
        assert "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ
    assert os.environ["RAY_JOB_CONFIG_JSON_ENV_VAR"] == "{}"
    with _own_job(Address("auto", "")):
        assert os.environ["RAY_JOB_CONFIG_JSON_ENV_VAR"] == "{}"


def test_different_versions_are_one_line_with_what_to_install():
    told = version_mismatch(MISMATCH)
    assert told == (
        "the cluster runs Ray 2.60.0 on Python 3.11.7, this process Ray 2.55.1 on Python 3.11.7; they "
        "must be equal, so use here what the cluster has: pip install 'ray==2.60.0'"
    )
    other_python = MISMATCH.replace("2.55.1", "2.60.0").replace("3.11.7", "3.12.1", 1)
    assert version_mismatch(other_python).endswith("use here what the cluster has: Python 3.12.1")
    assert version_mismatch("Could not find any running Ray instance.") == ""


def test_a_runtime_environment_that_ray_cannot_make_is_told_as_such():
    told = start_failure(NO_RUNTIME_ENV)
    assert told.startswith("Ray could not set up the runtime environment of a worker: OSError: Failed to download")
    assert told.endswith("(node 192.0.2.2)")
    assert "\n" not in told


def test_only_the_last_failure_counts_and_a_lost_worker_is_none_of_these():
    later = "Failure # 3 (occurred at 2026-11-27_20-56-50)\nThe actor died unexpectedly before finishing this task."
    assert start_failure(NO_RUNTIME_ENV + later) == ""
    assert start_failure("") == ""


def test_a_worker_that_ray_cannot_place_is_told_as_such():
    log = "Failure # 1 (occurred)\nray.exceptions.ActorUnschedulableError: The actor is not schedulable: no such node\n"
    assert start_failure(log) == "Ray could not place a worker on any node: The actor is not schedulable: no such node"
