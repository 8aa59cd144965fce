"""Sweeps, data and tables at abfs:// URIs, on a real server of Azure's protocol."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import made_up
import pandas as pd
import pytest
from azure_store import URI

import kdsweep
from kdsweep.errors import InputError, SweepDirError
from kdsweep.search.study import Study
from kdsweep.storage import driver_lease
from kdsweep.storage.bucket import Bucket
from kdsweep.storage.driver_lease import Lease
from kdsweep.storage.driving import driving
from kdsweep.storage.fetched import local_copy
from kdsweep.storage.places import Place

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def silent(line: str) -> None:
    """Ignore a line."""


def test_objects_are_written_on_conditions_and_told_with_one_tag(container):
    store = Bucket(f"{URI}/runs")
    assert store.get("a") is None
    first = store.create("a", b"1")
    assert first is not None
    assert store.create("a", b"2") is None
    assert store.get("a") == (b"1", first)
    assert store.head("a").tag == store.listed("")["a"].tag == first
    second = store.replace("a", b"2", first)
    assert second not in (None, first)
    assert store.replace("a", b"3", first) is None
    large = bytes(range(256)) * 80_000  # 20 MB: in parts
    store.put("deep/b", large)
    assert b"".join(store.parts("deep/b", len(large))) == large
    assert list(store.listed("deep")) == ["deep/b"]
    store.delete(["a", "deep/b", "none"])
    assert store.listed("") == {}


def test_a_missing_container_is_said_at_once(container):
    uri = URI.replace("sweeps", "nobody")
    with pytest.raises(SweepDirError, match="cannot be read: no such bucket"):
        kdsweep.load_results(f"{uri}/runs/x")
    with pytest.raises(InputError, match="cannot be read: no such bucket"):
        local_copy(f"{uri}/data")


def test_one_of_two_drivers_gets_the_lease(container, monkeypatch):
    monkeypatch.setattr(driver_lease, "LOOK_SECONDS", 0.05)
    store = Bucket(f"{URI}/runs")
    first, ended = Lease(store, "made-up", "1"), threading.Event()
    first.acquire(silent)

    def renew() -> None:
        while not ended.wait(0.1):
            first.renew()

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        with pytest.raises(SweepDirError, match="another process is running this sweep"):
            Lease(store, "made-up", "2").acquire(silent)
    finally:
        ended.set()
        thread.join()
    first.release()
    Lease(store, "made-up", "3").acquire(silent)


def test_tables_and_folders_are_written_and_fetched(container, tmp_path):
    table = Place.of(f"{URI}/tables/a.csv")
    table.write_bytes(b"a,b\n1,2\n")
    assert container.download_blob("tables/a.csv").readall() == b"a,b\n1,2\n"
    assert local_copy(table).read_bytes() == b"a,b\n1,2\n"
    folder = Place.of(f"{URI}/student")
    assert folder.write_files({"config.json": b"1", "model.onnx": b"2"}) == []
    assert folder.write_files({"config.json": b"3"}, stale=["model.onnx"]) == ["model.onnx"]
    assert {path.name: path.read_bytes() for path in local_copy(folder).iterdir()} == {"config.json": b"3"}


def test_another_machine_reads_a_sweep_and_goes_on_with_it(container, tmp_path, monkeypatch):
    local, spec = (made_up.spec_of(storage) for storage in (tmp_path / "runs", f"{URI}/runs"))
    for one in (local, spec):
        with driving(one.sweep_dir, silent):
            one.save(one.sweep_dir.spec)
            made_up.run_trials(one, 12)
    monkeypatch.setenv("KDSWEEP_CACHE", str(tmp_path / "elsewhere"))
    times = ["started_at", "ended_at"]
    expected = kdsweep.load_results(local.sweep_dir.root)
    found = kdsweep.load_results(f"{URI}/runs/made-up")
    pd.testing.assert_frame_equal(found.trials.drop(columns=times), expected.trials.drop(columns=times))
    pd.testing.assert_frame_equal(found.epochs, expected.epochs)
    more = made_up.spec_of(f"{URI}/runs", search={"sampler": "random", "trials": 20})
    with driving(more.sweep_dir, silent):
        study = Study(more, more.sweep_dir, more.search_space)
        assert sum(study.counts.values()) == 12
        study.close()
        made_up.run_trials(more)
    assert len(kdsweep.load_results(f"{URI}/runs/made-up").trials) == 20


def test_a_sweep_runs_and_its_student_is_exported_without_a_shared_directory(container, tmp_path):
    spec = {
        "name": "small",
        "dataset": {"name": "mnist_mini", "subset": 300},
        "teacher": {"model": "mnist_teacher", "train": {"epochs": 1}},
        "student": {"model": "mnist_student"},
        "space": {"method": ["kd", "none"], "width": 0.25},
        "train": {"epochs": 2},
        "search": {"trials": 3, "sampler": "random"},
        "storage": f"{URI}/runs",
    }
    (tmp_path / "small.yaml").write_text(json.dumps(spec))
    environment = os.environ | {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "RAY_ADDRESS": "local"}

    def kdsweep_does(line: str) -> None:
        command = [sys.executable, "-m", "kdsweep", *line.split()]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    kdsweep_does("run small.yaml")
    kdsweep_does(f"export {URI}/runs/small --out {URI}/students")
    student = min(name for name in container.list_blob_names(name_starts_with="students")).rpartition("/")[0]
    kdsweep_does(f"evaluate {URI}/{student} --dataset mnist_mini")
    assert set(kdsweep.load_results(f"{URI}/runs/small").trials.state) <= {"COMPLETE", "PRUNED"}
    assert json.loads(container.download_blob(f"{student}/config.json").readall())["sweep"] == "small"
    assert not any("abfs" in path.name for path in tmp_path.iterdir())
