"""Sweeps in an object store: what is written there, who may write, and what faults of the store cost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager

import made_up
import pytest
from faulty_store import FaultyStore
from object_store import forget

import kdsweep
from kdsweep import cli
from kdsweep.config.spec import read_spec
from kdsweep.errors import SweepDirError, SweepError
from kdsweep.search.study import Study
from kdsweep.storage import cache, driver_lease
from kdsweep.storage.bucket import RETRY, Bucket
from kdsweep.storage.driver_lease import Lease, is_held
from kdsweep.storage.driving import driving
from kdsweep.storage.following import discard, publish
from kdsweep.storage.jsonl import LineLog
from kdsweep.storage.mirror import COPY, DRIVER
from kdsweep.storage.paths import SweepDir
from kdsweep.storage.places import Place
from kdsweep.storage.segments import SegmentWriter, read_logs
from kdsweep.storage.store_errors import StoreError

SWEEP = "s3://sweeps/runs/made-up"


def silent(line: str) -> None:
    """Ignore a line."""


@pytest.fixture
def faulty(bucket, s3_server, monkeypatch):
    """The bucket through a proxy whose faults the test sets."""
    proxy = FaultyStore(s3_server)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
    forget()
    yield proxy
    proxy.close()


@pytest.fixture
def quick_leases(monkeypatch):
    """Leases that are renewed and looked at often; one that is not renewed expires late, as on a loaded machine."""
    for name, seconds in (("RENEW_SECONDS", 0.1), ("LOOK_SECONDS", 0.05)):
        monkeypatch.setattr(driver_lease, name, seconds)
    monkeypatch.setattr("kdsweep.storage.driving.RENEW_SECONDS", 0.1)


@contextmanager
def on_another_machine(monkeypatch, tmp_path, name="elsewhere"):
    """With an empty cache, as on a machine that has not seen the sweep."""
    before = os.environ[cache.FOLDER]
    monkeypatch.setenv(cache.FOLDER, str(tmp_path / name))
    forget()
    try:
        yield tmp_path / name
    finally:
        monkeypatch.setenv(cache.FOLDER, before)
        forget()


def writer(folder, owner, bucket_uri="s3://sweeps/runs"):
    folder.mkdir(exist_ok=True)
    return SegmentWriter(Bucket(bucket_uri), "made-up", folder, owner)


def append(segments, path, text):
    with path.open("a") as file:
        file.write(text)
    segments.grown(path)


# Segments


def test_logs_are_read_as_they_were_written_over_sessions_and_bases(bucket, tmp_path):
    expected = {"a.jsonl": "", "deep/b.jsonl": ""}
    for session in range(3):
        folder = tmp_path / f"node{session}"
        segments = writer(folder, f"owner{session}")
        found = segments.take_over()
        for name, content in found.content.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        assert {name: content.decode() for name, content in found.content.items()} == (expected if session else {})
        (folder / "deep").mkdir(exist_ok=True)
        for number in range(4):
            for name in expected:
                line = f"{session} {number}\n"
                append(segments, folder / name, line)
                expected[name] += line
            segments.flush()
        if session == 1:
            segments.compact()
            assert len([key for key in bucket.listed() if "/.log/" in key]) == 1
    logs = read_logs(Bucket("s3://sweeps/runs"), "made-up")
    assert {name: content.decode() for name, content in logs.content.items()} == expected


def test_a_driver_that_was_taken_for_dead_cannot_append(bucket, tmp_path):
    first, second = writer(tmp_path / "first", "1"), writer(tmp_path / "second", "2")
    first.take_over()
    append(first, tmp_path / "first/a.jsonl", "kept\n")
    first.flush()
    logs = second.take_over()
    append(first, tmp_path / "first/a.jsonl", "too late\n")
    with pytest.raises(SweepError, match="another driver has taken over this sweep"):
        first.flush()
    with pytest.raises(SweepError, match="another driver"):
        first.grown(tmp_path / "first/a.jsonl")
    assert logs.content == read_logs(Bucket("s3://sweeps/runs"), "made-up").content == {"a.jsonl": b"kept\n"}


def test_a_log_that_was_removed_begins_anew(bucket, tmp_path):
    segments, log = writer(tmp_path / "node", "1"), tmp_path / "node/a.jsonl"
    segments.take_over()
    for text in ("old old old\n", "new\n"):
        append(segments, log, text)
        segments.flush()
        if text != "new\n":
            log.unlink()
            segments.cut(log)
    assert read_logs(Bucket("s3://sweeps/runs"), "made-up").content == {"a.jsonl": b"new\n"}


def test_a_missing_or_damaged_segment_is_told(bucket, tmp_path):
    segments = writer(tmp_path / "node", "1")
    segments.take_over()
    for number in range(3):
        append(segments, tmp_path / "node/a.jsonl", f"{number}\n")
        segments.flush()
    bucket.client().delete_object(Bucket="sweeps", Key="runs/made-up/.log/00000003")
    with pytest.raises(SweepDirError, match="00000004: damaged: segment 3 is missing"):
        read_logs(Bucket("s3://sweeps/runs"), "made-up")
    bucket.put("runs/made-up/.log/00000003", b"nonsense")
    with pytest.raises(SweepDirError, match="00000003: damaged"):
        read_logs(Bucket("s3://sweeps/runs"), "made-up")


def test_faults_of_the_store_lose_and_repeat_no_line(faulty, tmp_path):
    faulty.share = 0.4
    segments = writer(tmp_path / "node", "1")
    segments.take_over()
    for number in range(15):
        append(segments, tmp_path / "node/a.jsonl", f"{number}\n")
        segments.flush()
    segments.compact()
    logs = read_logs(Bucket("s3://sweeps/runs"), "made-up")
    assert logs.content["a.jsonl"].decode().split() == [str(number) for number in range(15)]
    assert all(faulty.count[kind] for kind in faulty.kinds), faulty.count


def test_a_store_that_stays_away_is_told_within_the_limit(faulty, monkeypatch, capsys):
    monkeypatch.setenv(RETRY, "0.5")
    faulty.down = True
    monkeypatch.setattr(sys, "argv", ["kdsweep", "results", SWEEP])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err.split("\n")[:-1] == [
        f"{SWEEP}: cannot be read: the store does not answer, tried for 0.5 s"
    ]
    faulty.down, faulty.share, faulty.kinds = False, 1.0, ("503",)
    with pytest.raises(StoreError, match="503 SlowDown, tried for 0.5 s"):
        Bucket("s3://sweeps/runs").get("x")


def test_refusals_are_not_tried_again(faulty, monkeypatch):
    with pytest.raises(SweepDirError, match="s3://none-such/x: cannot be read: no such bucket"):
        kdsweep.load_results("s3://none-such/x")
    with pytest.raises(SweepDirError, match="no such sweep"):
        kdsweep.load_results("s3://sweeps/x")
    assert faulty.requests <= 4
    monkeypatch.setenv(RETRY, "a while")
    forget()
    with pytest.raises(kdsweep.errors.InputError, match=f"{RETRY}: found 'a while'; accepted: seconds"):
        kdsweep.load_results("s3://sweeps/x")


# The lease


def test_one_of_two_drivers_gets_the_lease(bucket, quick_leases):
    store = Bucket("s3://sweeps/runs")
    first = Lease(store, "made-up", "1")
    first.acquire(silent)
    assert is_held(store, "made-up")
    ended = threading.Event()

    def renew():
        while not ended.wait(0.1):
            first.renew()

    thread = threading.Thread(target=renew)
    thread.start()
    told = []
    try:
        with pytest.raises(SweepDirError, match=rf"another process is running this sweep \(process {os.getpid()} on "):
            Lease(store, "made-up", "2").acquire(told.append)
    finally:
        ended.set()
        thread.join()
    assert len(told) == 1
    first.release()
    assert not is_held(store, "made-up")


def test_the_lease_of_a_dead_driver_expires(bucket, quick_leases, monkeypatch):
    monkeypatch.setattr(driver_lease, "EXPIRES_SECONDS", 0.3)
    store = Bucket("s3://sweeps/runs")
    dead, heir = Lease(store, "made-up", "1"), Lease(store, "made-up", "2")
    dead.acquire(silent)
    heir.acquire(silent)
    with pytest.raises(SweepError, match="another driver has taken over"):
        dead.renew()
    dead.release()  # not its own any more
    heir.renew()


def test_a_driver_that_died_on_this_machine_is_not_waited_for(bucket):
    store = Bucket("s3://sweeps/runs")
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    Lease(store, "made-up", "1").acquire(silent)
    told = json.loads(bucket.read("runs/made-up/.lease")) | {"pid": int(ended.stdout)}
    bucket.put("runs/made-up/.lease", json.dumps(told).encode())
    started = time.monotonic()
    Lease(store, "made-up", "2").acquire(silent)
    assert time.monotonic() - started < driver_lease.EXPIRES_SECONDS / 2


def test_a_store_without_conditional_writes_is_refused(faulty):
    faulty.ignored = "If-None-Match"
    with pytest.raises(SweepDirError, match=r"ignores conditional writes \(If-None-Match\)"):
        Lease(Bucket("s3://sweeps/runs"), "made-up", "1").acquire(silent)


# Sweeps


@pytest.fixture
def swept(bucket):
    """A made-up sweep in the bucket, whose driver has ended."""
    spec = made_up.spec_of("s3://sweeps/runs")
    with driving(spec.sweep_dir, silent):
        spec.save(spec.sweep_dir.spec)
        made_up.run_trials(spec, 12)
    return spec


def frames(results):
    times = ["started_at", "ended_at"]
    return results.trials.drop(columns=times).to_json(), results.epochs.to_json()


def test_results_from_a_bucket_equal_those_of_a_directory(swept, tmp_path, monkeypatch):
    local = made_up.spec_of(tmp_path / "runs")
    local.save(local.sweep_dir.spec)
    made_up.run_trials(local, 12)
    expected = frames(kdsweep.load_results(local.sweep_dir.root))
    with on_another_machine(monkeypatch, tmp_path):
        found = kdsweep.load_results(SWEEP)
        assert frames(found) == expected
        assert str(found.sweep) == SWEEP
        assert repr(found).startswith(f"Results('{SWEEP}')")


def test_a_driver_goes_on_where_another_machine_ended(swept, tmp_path, monkeypatch):
    spec = made_up.spec_of("s3://sweeps/runs", search={"sampler": "random", "trials": 20})
    with on_another_machine(monkeypatch, tmp_path), driving(spec.sweep_dir, silent):
        study = Study(spec, spec.sweep_dir, spec.search_space)
        assert sum(study.counts.values()) == 12
        study.close()
        made_up.run_trials(spec)
    # The first machine's files are stale now.
    assert len(kdsweep.load_results(SWEEP).trials) == 20
    with driving(spec.sweep_dir, silent):
        study = Study(spec, spec.sweep_dir, spec.search_space)
        assert study.done
        study.close()


def test_an_ended_trial_keeps_its_objects_until_the_logs_tell_its_end(bucket):
    sweep = SweepDir.at(SWEEP, DRIVER)
    with driving(sweep, silent):
        bucket.put("runs/made-up/trials/0000-abcdef/state.safetensors", b"x")
        with sweep.epochs_log.open("w") as log:
            log.write("{}\n")
        sweep.mirror.logs.flush = lambda: None  # the store is slow
        with closing(LineLog(sweep.epochs_log)) as log:
            log.append({})
        discard(sweep.trial("0000-abcdef").state)
        assert "runs/made-up/trials/0000-abcdef/state.safetensors" in bucket.listed()
        del sweep.mirror.logs.flush
    assert not any("/trials/" in key for key in bucket.listed())
    assert read_logs(Bucket("s3://sweeps/runs"), "made-up").content == {"epochs.jsonl": b"{}\n{}\n"}


def test_a_worker_keeps_no_states_and_gets_the_newest(bucket, tmp_path, monkeypatch):
    from kdsweep.storage.files import replacing
    from kdsweep.storage.following import fetch

    def save(content):
        with replacing(SweepDir.at(SWEEP, COPY).trial("0000-abcdef").state) as partial:
            partial.write_bytes(content)

    state = SweepDir.at(SWEEP, COPY).trial("0000-abcdef").state
    save(b"epoch 3")
    assert not state.exists()
    fetch(state)
    with on_another_machine(monkeypatch, tmp_path):
        save(b"epoch 4")
    fetch(SweepDir.at(SWEEP, COPY).trial("0000-abcdef").state)
    assert state.read_bytes() == b"epoch 4"
    bucket.client().delete_object(Bucket="sweeps", Key="runs/made-up/trials/0000-abcdef/state.safetensors")
    fetch(state)
    assert not state.exists()


def test_a_worker_is_not_misled_by_logs_that_a_reader_left_here(swept, tmp_path, monkeypatch):
    with on_another_machine(monkeypatch, tmp_path):
        kdsweep.load_results(SWEEP)
    extended = made_up.spec_of("s3://sweeps/runs", search={"sampler": "random", "trials": 50})
    with driving(extended.sweep_dir, silent):
        extended.save(extended.sweep_dir.spec)
    with on_another_machine(monkeypatch, tmp_path):
        sweep = SweepDir.at(SWEEP, COPY)
        sweep.fetch_needed()
        assert read_spec(sweep).search.trials == 50
        assert len(kdsweep.load_results(SWEEP).trials) == 12


def test_a_data_set_is_fetched_once_per_machine_and_removed_for_room(bucket, tmp_path, monkeypatch):
    from kdsweep.storage.following import fetch_folder

    sweep = SweepDir.at(SWEEP, COPY)
    for name in ("old", "new"):
        sweep.store.data(name).mkdir(parents=True)
        (sweep.store.data(name) / "images.bin").write_bytes(name.encode() * 1000)
        publish(sweep.store.data(name))
    with on_another_machine(monkeypatch, tmp_path):
        monkeypatch.setenv(cache.LIMIT, "0.000005")  # 5,000 bytes
        store = SweepDir.at(SWEEP, COPY).store
        fetch_folder(store.data("old"))
        read = (store.data("old") / "images.bin").stat()
        fetch_folder(store.data("old"))
        assert (store.data("old") / "images.bin").stat() == read
        long_ago = time.time() - 2 * cache.IN_USE_SECONDS
        os.utime(store.data("old") / ".used", (long_ago, long_ago))
        fetch_folder(store.data("new"))
        assert not store.data("old").exists()
        assert (store.data("new") / "images.bin").read_bytes() == b"new" * 1000


def test_a_large_object_comes_in_parts(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr("kdsweep.storage.bucket.PART_BYTES", 1000)
    content = os.urandom(3500)
    bucket.put("runs/large", content)
    assert Bucket("s3://sweeps/runs").download("large", len(content), tmp_path / "large")
    assert (tmp_path / "large").read_bytes() == content


def test_a_second_driver_is_refused_in_one_line(swept, quick_leases, monkeypatch, tmp_path, capsys):
    with driving(swept.sweep_dir, silent), on_another_machine(monkeypatch, tmp_path):
        monkeypatch.setattr(sys, "argv", ["kdsweep", "resume", SWEEP])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == 2
    lines = capsys.readouterr().err.strip().split("\n")
    assert lines[-1].startswith(f"{SWEEP}: another process is running this sweep (process {os.getpid()} on ")
    assert len(lines) == 2, lines  # the other one tells that it waited


def test_a_driver_that_lost_its_lease_stops(swept, quick_leases):
    with pytest.raises(SweepError, match="another driver has taken over"), driving(swept.sweep_dir, silent):  # noqa: PT012
        Lease(Bucket("s3://sweeps/runs"), "made-up", "thief")._bucket.delete(["made-up/.lease"])
        with closing(LineLog(swept.sweep_dir.search_time)) as log:
            for _ in range(500):
                log.append({"seconds": 0})
                time.sleep(0.02)


def test_a_uri_is_a_place_of_sweeps(swept, tmp_path):
    assert Place.of(SWEEP) == swept.sweep_dir.place
    assert swept.sweep_dir.storage == "s3://sweeps/runs"
    assert swept.sweep_dir.name == "made-up"
    assert SweepDir.at(tmp_path / "x").root == tmp_path / "x"
