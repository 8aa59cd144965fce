"""Places: what a path or URI means, reading and writing at URIs, and what is refused."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import made_up
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import kdsweep
from kdsweep import cli
from kdsweep.errors import InputError
from kdsweep.storage import fetched
from kdsweep.storage.fetched import local_copy
from kdsweep.storage.places import Place, of_ray, shortest


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A made-up sweep without weights; tests must not change it."""
    spec = made_up.spec_of(tmp_path_factory.mktemp("places"))
    spec.save(spec.sweep_dir.spec)
    made_up.run_trials(spec, 12)
    return spec.sweep_dir.root


@pytest.fixture
def command(capfd, monkeypatch, tmp_path):
    """Run a command in an empty directory: exit code, standard output, standard error."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    def run(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kdsweep", *map(str, arguments)])
        code: object = 0
        try:
            cli.main()
        except SystemExit as stopped:
            code = stopped.code or 0
        out, err = capfd.readouterr()
        assert not list(here.glob("s3*")), "a folder named like a URI"
        return int(str(code)), out, err

    return run


@pytest.fixture
def picky(tmp_path):
    """A valid sweep file, and what changes in it."""

    def write(**changes) -> Path:
        values = {
            "dataset": {"name": "mnist_mini", "subset": 300},
            "teacher": {"model": "mnist_teacher"},
            "student": {"model": "mnist_student"},
            "space": {"method": "none"},
            "storage": str(tmp_path / "runs"),
        } | changes
        path = tmp_path / "picky.yaml"
        path.write_text(json.dumps(values))
        return path

    return write


# What a text means


def test_a_local_place_is_absolute_and_told_as_it_was_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = Place.of("runs/a.CSV")
    assert (place.text, str(place), place.suffix, place.is_remote) == (
        f"{tmp_path}/runs/a.CSV",
        "runs/a.CSV",
        ".csv",
        False,
    )
    assert Place.of(f"file://{tmp_path}/a%20b").local("") == tmp_path / "a b"
    assert (place / "x").text == f"{tmp_path}/runs/a.CSV/x"


def test_a_uri_keeps_its_slashes_and_its_query():
    place = Place.of("s3://bucket/a/")
    assert (str(place), str(place / "b"), place.name) == ("s3://bucket/a", "s3://bucket/a/b", "a")
    queried = Place.of("s3://bucket/a?endpoint_override=host") / "b.csv"
    assert (queried.text, queried.suffix) == ("s3://bucket/a/b.csv?endpoint_override=host", ".csv")


@pytest.mark.parametrize(
    ("given", "accepted"),
    [
        ("s3:/bucket/a", "two slashes"), ("s3:", "two slashes"), ("ftp://host/a", "s3://BUCKET"), ("s3://", "s3://BUCKET"),
        ("s3://key:secret@bucket/a", "without credentials"), ("S3://bucket/a", "s3://BUCKET"),
        ("gcs://bucket/a", "gs://BUCKET"), ("s3://bucket/a#b", "without '#'"),
        ("file://host/a", "file:///..., a file of this machine, not of 'host'"),
    ],
)  # fmt: skip
def test_what_is_no_place_is_refused_with_what_is_accepted(given, accepted):
    with pytest.raises(InputError, match=accepted):
        Place.of(given)
    with pytest.raises(InputError, match="two slashes"):
        Place.of(Path("s3://bucket/a"))


def test_inside_a_ray_job_paths_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shortest(tmp_path / "runs") == "runs"
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert shortest(tmp_path / "runs") == f"{tmp_path}/runs"
    assert str(Place.of("runs")) == f"{tmp_path}/runs"


# Refusals


def test_nothing_is_kept_in_folders_of_ray(command, sweep, picky, tmp_path):
    package = tmp_path / "ray/session_1/runtime_resources/working_dir_files/_ray_pkg_1"
    assert of_ray(package / "runs")
    assert not of_ray(tmp_path / "ray/runs")
    code, _, err = command("validate", picky(storage=str(package / "runs")))
    assert (code, err.count("\n")) == (2, 1)
    assert "storage: found" in err
    assert "disappears with the job" in err
    code, out, err = command("results", sweep, "--out", package / "a.csv")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "disappears with the job" in err


@pytest.mark.parametrize(
    "line",
    [
        "results {uri}", "report {uri}", "export {uri} --out students", "resume {uri}", "confirm {uri}", "doctor {uri}",
        "watch {uri}", "dashboard {uri}", "run {uri}", "validate {uri}",
    ],
)  # fmt: skip
def test_a_uri_where_nothing_is_is_one_line_with_exit_code_2(command, line, bucket):
    code, out, err = command(*line.format(uri="s3://sweeps/runs/a").split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    told = "sweep files are read from this machine" if line.startswith(("run ", "validate ")) else "no such sweep"
    assert err.startswith(f"s3://sweeps/runs/a: {told}")


@pytest.mark.parametrize("line", ["results s3://sweeps", "export s3://sweeps --out students"])
def test_a_whole_bucket_is_no_sweep(command, line, bucket):
    code, out, err = command(*line.split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(
        "s3://sweeps: no such sweep; accepted: the URI of a sweep, such as s3://bucket/runs/quickstart"
    )


def test_a_sweep_file_may_name_sweeps_at_uris(command, picky, bucket):
    code, out, _ = command("validate", picky(storage="s3://bucket/runs"))  # which is not asked for yet
    assert (code, out.splitlines()[1].split(":")[0]) == (0, "picky")
    code, _, err = command("validate", picky(search={"warm_start": ["s3://sweeps/runs/a"]}))
    assert (code, err.count("\n")) == (2, 1)
    assert "search.warm_start.0: s3://sweeps/runs/a: no such sweep" in err


# Writing


def test_results_and_the_report_are_written_to_an_object_store(command, sweep, bucket):
    code, out, err = command("results", sweep, "--out", f"{bucket.uri}/tables/trials.csv")
    assert (code, out, err) == (0, "", "s3://sweeps/tables/trials.csv: 12 rows as csv\n")
    assert len(pd.read_csv(io.BytesIO(bucket.read("tables/trials.csv")))) == 12
    code, out, _ = command("report", sweep, "--out", f"{bucket.uri}/report.html")
    assert (code, out) == (0, "s3://sweeps/report.html\n")
    assert b"made-up" in bucket.read("report.html")
    assert not (sweep / "report.html").exists()


def test_a_write_that_an_object_store_refuses_is_one_line_with_exit_code_2(command, sweep, bucket):
    code, out, err = command("results", sweep, "--out", "s3://nobody/trials.csv")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "--out s3://nobody/trials.csv: cannot be written: " in err
    assert "no such bucket" in err
    code, out, err = command("results", sweep, "--out", bucket.uri, "--format", "csv")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "it is a bucket; accepted: the URI of an object in it" in err


def test_a_folder_of_files_replaces_an_earlier_one(bucket, tmp_path):
    for folder in (Place.of(f"{bucket.uri}/student"), Place.of(tmp_path / "student")):
        assert folder.write_files({"config.json": b"1", "model.onnx": b"2"}) == []
        assert folder.write_files({"config.json": b"3"}, stale=["model.onnx", "model.pt2"]) == ["model.onnx"]
        assert local_copy(folder).joinpath("config.json").read_bytes() == b"3"
    assert [key for key in bucket.listed() if not key.endswith("/")] == ["student/config.json"]


# Reading


def png(red: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), (red, 0, 0), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_data_set_at_a_uri_is_fetched_once_and_again_when_it_changes(bucket, picky, tmp_path):
    for number in range(20):
        bucket.put(f"images/train/{'ab'[number % 2]}/{number}.png", png(number))
    section = {"name": "image_folder", "root": f"{bucket.uri}/images", "val_fraction": 0.5}
    model = {"model": "lightnn"}
    spec = kdsweep.load_spec(picky(dataset=section, student=model, teacher={"model": "tutorial_teacher"}))
    assert spec.dataset.root == "s3://sweeps/images"
    first = spec.dataset.source().root
    assert len(list(first.glob("train/*/*.png"))) == 20
    assert [folder.name for folder in (tmp_path / "cache").iterdir()] == [first.parent.name]
    stamp = (first / "train/a/0.png").stat().st_mtime_ns
    fetched._copied.cache_clear()
    assert spec.dataset.source().root == first
    assert (first / "train/a/0.png").stat().st_mtime_ns == stamp
    bucket.put("images/train/a/0.png", png(200))
    fetched._copied.cache_clear()
    assert (spec.dataset.source().root / "train/a/0.png").read_bytes() == png(200)


def test_a_missing_data_set_or_checkpoint_is_one_line(bucket, picky, command):
    code, _, err = command("validate", picky(dataset={"name": "image_folder", "root": "s3://sweeps/none"}))
    assert (code, err.count("\n")) == (2, 1)
    assert "dataset.root: s3://sweeps/none: no such data set" in err
    teacher = {"model": "mnist_teacher", "checkpoint": "s3://sweeps/none.pt"}
    code, _, err = command("validate", picky(teacher=teacher))
    assert (code, err.count("\n")) == (2, 1)
    assert "teacher.checkpoint: s3://sweeps/none.pt: no such file" in err


def test_a_checkpoint_at_a_uri_is_checked_like_a_file(bucket, picky, command):
    from kdsweep.datasets import embedded

    uri = bucket.put("teacher.safetensors", embedded.path("mnist_mini_teacher.safetensors").read_bytes())
    right, wrong = ({"model": "mnist_teacher", "width": width, "checkpoint": uri} for width in (0.25, 0.5))
    assert command("validate", picky(teacher=right))[0] == 0
    code, _, err = command("validate", picky(teacher=wrong))
    assert (code, err.count("\n")) == (2, 1)
    assert "teacher.checkpoint: checkpoint" in err


def test_the_cache_keeps_its_limit_and_what_was_used_last(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("KDSWEEP_CACHE_GB", "0.00001")  # 10 kB
    copies = []
    for number in range(3):
        path = local_copy(bucket.put(f"{number}.bin", bytes([number]) * 4000))
        copies.append(path)
        earlier = time.time() - 10_000 + number
        os.utime(path.parent.parent / ".used", (earlier, earlier))
    assert [path.exists() for path in copies] == [False, True, True]
    assert local_copy("s3://sweeps/0.bin").read_bytes() == bytes(4000)  # fetched again
    with pytest.raises(InputError, match=r"s3://sweeps/big.bin: .* do not fit into the cache .* KDSWEEP_CACHE_GB"):
        local_copy(bucket.put("big.bin", bytes(20_000)))
    monkeypatch.setenv("KDSWEEP_CACHE_GB", "much")
    with pytest.raises(InputError, match="KDSWEEP_CACHE_GB: found 'much'"):
        local_copy(bucket.put("other.bin", b"1"))


@pytest.mark.parametrize("key", ["data/../../evil", "data//evil", "data/./evil"])
def test_an_object_cannot_leave_its_folder(bucket, key):
    bucket.put(key, b"1")
    with pytest.raises(InputError, match="accepted: names that stay in their folder"):
        local_copy(f"{bucket.uri}/data")


def test_an_error_about_a_copy_names_the_uri(bucket, command):
    bucket.put("student/README.md", b"1")
    code, out, err = command("evaluate", f"{bucket.uri}/student")
    assert (code, out) == (2, "")
    assert err.startswith("s3://sweeps/student: not an exported student: config.json is missing")


def test_objects_that_stand_for_folders_are_not_copied(bucket):
    for key in ("data/", "data/a/", "data/a/b/", "data/a/b/1.bin"):
        bucket.put(key, b"1" if key.endswith("bin") else b"")
    assert [path.name for path in local_copy(f"{bucket.uri}/data").rglob("*") if path.is_file()] == ["1.bin"]


def test_the_client_of_stores_is_imported_only_for_a_uri():
    code = (
        "import sys; from kdsweep.storage.fetched import local_copy; local_copy('x'); print('obstore' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
