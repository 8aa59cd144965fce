"""The live report over HTTP: it follows the logs of a sweep, and compares the sweeps of a storage directory."""

from __future__ import annotations

import asyncio
import re
import shutil
import threading

import pytest
from made_up import EVIL, begin, confirm, run_trials, spec_of
from plotly.offline import get_plotlyjs
from served import served, wait_for

from kdsweep.errors import SweepDirError
from kdsweep.results.frames import load_results
from kdsweep.results.report.compare import summary_of
from kdsweep.serving import pages
from kdsweep.serving.pages import Followed
from kdsweep.serving.watch import watch_app


@pytest.fixture
def quick(monkeypatch):
    """Pages may be rebuilt at once."""
    monkeypatch.setattr(pages, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(pages, "REST", 0.0)


def version_of(html):
    return re.search(r'<meta name="kdsweep-version" content="(\w+)">', html)[1]


def test_the_report_of_a_sweep_follows_its_logs(tmp_path, quick):
    spec = spec_of(tmp_path)
    begin(spec)
    run_trials(spec, trials=3)
    with served(watch_app(spec.sweep_dir.root)) as client:
        status, headers, page = client.get("/")
        assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert "3 of 40 trials" in page
        assert get_plotlyjs() in page
        seen = version_of(page)
        assert client.json(f"/update?have={seen}")["html"] == ""
        run_trials(spec, trials=4)
        found = wait_for(lambda: client.json(f"/update?have={seen}"), lambda found: found["html"])
    assert "7 of 40 trials" in found["html"]
    assert found["version"] == version_of(found["html"]) != seen
    assert found["problem"] == ""
    assert get_plotlyjs() not in found["html"]
    assert len(found["html"]) < 300_000


def test_a_confirmation_and_a_teacher_update_the_page(tmp_path, quick):
    spec = spec_of(tmp_path)
    spec.sweep_dir.root.mkdir(parents=True)
    spec.save(spec.sweep_dir.spec)
    with served(watch_app(spec.sweep_dir.root)) as client:
        assert "No trial has begun" in client.get("/")[2]
        shutil.rmtree(spec.sweep_dir.root)
        begin(spec)
        run_trials(spec, trials=12)
        wait_for(lambda: client.get("/")[2], lambda page: "160,000" in page)
        confirm(spec)
        wait_for(lambda: client.get("/")[2], lambda page: "over 3 fresh seeds" in page)


def test_the_page_may_connect_only_to_its_server(made_up):
    with served(watch_app(made_up.root)) as client:
        page = client.get("/")[2]
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1].replace("&#39;", "'")
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert "unsafe" not in policy
    assert EVIL not in page


def test_a_damaged_log_is_told_and_the_last_page_is_kept(tmp_path, quick):
    spec = spec_of(tmp_path)
    begin(spec)
    run_trials(spec, trials=3)
    log = spec.sweep_dir.epochs_log
    whole = log.read_bytes()
    with served(watch_app(spec.sweep_dir.root)) as client:
        seen = version_of(client.get("/")[2])
        log.write_bytes(b"not json\n" + whole)
        found = wait_for(lambda: client.json(f"/update?have={seen}"), lambda found: found["problem"])
        assert "epochs.jsonl" in found["problem"]
        assert found["html"] == ""
        assert "3 of 40 trials" in client.get("/")[2]
        log.write_bytes(whole)
        wait_for(lambda: client.json(f"/update?have={seen}"), lambda found: found["html"] and not found["problem"])


def test_a_sweep_that_cannot_be_read_at_all_is_told_in_one_line(tmp_path):
    spec = spec_of(tmp_path)
    begin(spec)
    spec.sweep_dir.epochs_log.write_text("not json\n")
    with served(watch_app(spec.sweep_dir.root)) as client:
        status, _, body = client.get("/")
    assert status == 503
    assert body.count("\n") == 1
    assert "epochs.jsonl" in body


def test_all_sweeps_of_a_storage_are_compared(tmp_path, quick):
    specs = [spec_of(tmp_path, name=name) for name in ("first", "second")]
    for spec in specs:
        begin(spec)
    run_trials(specs[0], trials=8)
    with served(watch_app(tmp_path)) as client:
        status, _, page = client.get("/")
        assert status == 200
        assert re.findall(r'data-sweep="([^"]+)"', page) == ["first", "second"]
        assert "8 of 40" in page
        link = re.findall(r'<a href="(sweeps/[^"]+)">', page)[1]
        assert "0 of 40 trials" in client.get(f"/{link}")[2]
        seen = version_of(page)
        run_trials(specs[1], trials=6)
        confirm(specs[1])
        found = wait_for(lambda: client.json(f"/update?have={seen}"), lambda found: "6 of 40" in found["html"])
        assert "validation accuracy" in found["html"]
        assert "first: " in re.search(r'id="text-progress-0">([^<]+)', found["html"])[1]
        assert "second: " in re.search(r'id="text-front-0">([^<]+)', found["html"])[1]
        assert "in first" in re.search(r'id="text-methods-0">([^<]+)', found["html"])[1]
        third = spec_of(tmp_path, name="third")
        begin(third)
        moved = third.sweep_dir.root.rename(tmp_path / "the <third> & last")  # a folder may have any name
        page = wait_for(lambda: client.get("/")[2], lambda page: 'data-sweep="the &lt;third&gt; &amp; last"' in page)
        link = re.findall(r'<a href="(sweeps/[^"]+)">', page)[2]
        assert "0 of 40 trials" in client.get(f"/{link}")[2]
        (moved / "epochs.jsonl").write_text("not json\n")
        page = wait_for(lambda: client.get("/")[2], lambda page: "cannot be read" in page)
        assert "8 of 40" in page


def test_the_comparison_says_which_sweeps_are_finished(made_up, tmp_path):
    def state_of(found, running=False):
        return summary_of(found, "", running).state

    results = load_results(made_up.root)
    assert state_of(results) == "finished"
    assert state_of(results, running=True) == "running"
    for sections, state in (
        ({}, "stopped"),
        ({"search": {"sampler": "random", "trials": 40, "max_hours": 1}}, "ended"),
    ):
        spec = spec_of(tmp_path / state, **sections)
        begin(spec)
        run_trials(spec, trials=3)
        assert state_of(load_results(spec.sweep_dir.root)) == state
    (spec.sweep_dir.root / "epochs.jsonl").write_text("not json\n")
    assert state_of(load_results(spec.sweep_dir.root)) == ""


@pytest.mark.parametrize(
    "path", ["/sweeps/none/", "/sweeps/..%2Ffirst/", "/sweeps/..%2f..%2fetc/", "/sweeps/.cache/update"]
)
def test_names_of_no_sweep_are_not_found(tmp_path, path):
    spec = spec_of(tmp_path / "in", name="first")
    begin(spec)
    with served(watch_app(tmp_path / "in")) as client:
        assert client.get(path)[0] == 404


def test_a_directory_without_sweeps_is_refused(tmp_path):
    with pytest.raises(SweepDirError, match="neither a sweep directory nor a storage directory with sweeps"):
        watch_app(tmp_path)
    with pytest.raises(SweepDirError, match="no such directory"):
        watch_app(tmp_path / "none")
    with pytest.raises(SweepDirError, match="no such directory"):
        watch_app(tmp_path / ("n" * 300))


def test_a_slow_build_does_not_delay_readers_and_is_followed_by_a_rest():
    """Readers get the page before, while the next one is built; then the sources may change without a build."""
    state, clock, go, built = ["a"], [0.0], threading.Event(), []

    def build(version):
        built.append(state[0])
        if state[0] == "b":
            go.wait(60)
            clock[0] += 5.0
        return f"page of {state[0]}"

    async def read():
        page = Followed(lambda: state[0], build, lambda: clock[0])
        assert (await page.latest()).value == "page of a"
        clock[0], state[0] = 10.0, "b"
        assert (await page.latest()).value == "page of a"
        assert (await page.latest()).value == "page of a"
        go.set()
        while (found := await page.latest()).value != "page of b":
            await asyncio.sleep(0.01)
        state[0] = "c"
        for second in (15.1, 59.9):
            clock[0] = second
            assert (await page.latest()).version == found.version
        clock[0] = 60.0
        while (await page.latest()).value != "page of c":
            await asyncio.sleep(0.01)

    asyncio.run(read())
    assert built == ["a", "b", "c"]
