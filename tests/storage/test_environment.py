"""environment.json: one record per start and worker, and a resume without work that hides nothing."""

from __future__ import annotations

import json

from kdsweep.storage.environment import EnvironmentFile, describe_environment, describe_process


def start(path, command, seconds, trained, workers=1):
    file = EnvironmentFile(path, describe_environment([command]))
    for number in range(workers):
        file.add_worker({"node": f"10.0.0.{number}", "device": "cpu"})
    file.write({"workers": workers, "end": seconds}, trained)
    return json.loads(path.read_text())


def test_every_start_and_worker_is_recorded(tmp_path):
    path = tmp_path / "environment.json"
    start(path, "run", 10, trained=True, workers=2)
    found = start(path, "resume", 20, trained=True)
    assert [one["command"] for one in found["starts"]] == [["run"], ["resume"]]
    assert [one["timeline"]["end"] for one in found["starts"]] == [10, 20]
    assert [(one["start"], one["node"]) for one in found["workers"]] == [
        (0, "10.0.0.0"),
        (0, "10.0.0.1"),
        (1, "10.0.0.0"),
    ]
    assert (found["command"], found["timeline"]["end"]) == (["resume"], 20)
    assert set(describe_process()) <= set(found["starts"][0])


def test_a_resume_without_work_keeps_the_timeline_that_the_report_draws(tmp_path):
    path = tmp_path / "environment.json"
    start(path, "run", 10, trained=True)
    found = start(path, "resume", 1, trained=False)
    assert (found["command"], found["timeline"]["end"]) == (["run"], 10)
    assert len(found["starts"]) == 2
    assert start(path, "again", 30, trained=True)["timeline"]["end"] == 30


def test_a_file_of_version_0_1_0_becomes_the_first_start(tmp_path):
    path = tmp_path / "environment.json"
    path.write_text(json.dumps({"command": ["run"], "timeline": {"stages": {"prepare": {}, "search": {}}, "end": 5}}))
    found = start(path, "resume", 1, trained=False)
    assert [one["command"] for one in found["starts"]] == [["run"], ["resume"]]
    assert found["timeline"]["end"] == 5


def test_a_damaged_file_is_begun_again(tmp_path):
    path = tmp_path / "environment.json"
    path.write_text("{")
    assert len(start(path, "run", 1, trained=False)["starts"]) == 1
