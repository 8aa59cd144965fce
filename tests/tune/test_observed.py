"""What an operator sees of a sweep: the log file, and the metrics at Ray's Prometheus endpoint."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest

import kdsweep
from kdsweep.errors import SweepError
from kdsweep.storage import driver_log
from kdsweep.storage.driver_log import LOG, log, set_level
from kdsweep.storage.paths import SweepDir
from kdsweep.tune.observed import COUNTERS, GAUGES

SCRIPT = """
import sys, threading, time, urllib.request
import ray
import kdsweep
ray.init(address="local", include_dashboard=False, num_cpus=2, log_to_driver=False)
node = ray.nodes()[0]
url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
latest, over = {}, threading.Event()
def scrape():
    while not over.wait(1):
        for line in urllib.request.urlopen(url, timeout=60).read().decode().splitlines():
            if line.startswith("ray_kdsweep_"):
                name, _, value = line.rpartition(" ")
                latest[name] = value
scraping = threading.Thread(target=scrape)
scraping.start()
try:
    kdsweep.run(kdsweep.load_spec(sys.argv[1]), progress=False)
    time.sleep(25)  # Ray exports every ten seconds
finally:
    over.set()
    scraping.join()
for name, value in latest.items():
    print(name, value)
"""


def lines_of(sweep: SweepDir) -> list[dict[str, object]]:
    return [json.loads(line) for line in sweep.driver_log.read_text().splitlines()]


def test_the_log_has_the_phases_and_the_beginning_and_end_of_every_trial(swept):
    lines = lines_of(SweepDir(swept))
    assert {"data", "teacher", "search", "confirm", "time"} <= {line.get("phase") for line in lines}
    trials = kdsweep.load_results(swept).trials.set_index("trial")
    started = [line["trial"] for line in lines if line["message"] == "trial starts"]
    assert set(started) == set(trials.index)
    complete = {line["trial"]: line for line in lines if line["message"] == "trial is complete"}
    assert set(complete) == set(trials.index[trials["state"] == "COMPLETE"])
    for key, line in complete.items():
        assert line["best"] == trials.loc[key, "val_accuracy"]
        assert line["node"] == trials.loc[key, "node"]
    assert {line["level"] for line in lines} == {"info"}


def run_out_of_space(sweep: SweepDir) -> None:
    with driver_log.driver_log(sweep):
        log(logging.DEBUG, "epoch", trial="0001-abcdef", epoch=1)
        raise SweepError("no space")


def test_the_log_takes_the_level_and_says_why_a_sweep_ended(tmp_path):
    sweep = SweepDir(tmp_path)
    try:
        set_level("debug")
        with pytest.raises(SweepError):
            run_out_of_space(sweep)
        set_level("error")
        with driver_log.driver_log(sweep):
            log(logging.WARNING, "trial failed", trial="0001-abcdef")
    finally:
        LOG.setLevel(logging.NOTSET)
    epoch, ended = lines_of(sweep)
    assert (epoch["level"], epoch["trial"], epoch["epoch"]) == ("debug", "0001-abcdef", 1)
    assert (ended["level"], ended["message"]) == ("error", "no space")
    assert LOG.handlers == []


def test_the_log_is_limited_and_never_fails_the_sweep(tmp_path, monkeypatch, capsys):
    sweep = SweepDir(tmp_path / "sweep")
    sweep.root.mkdir()
    monkeypatch.setattr(driver_log, "MOST_BYTES", 1000)
    with driver_log.driver_log(sweep):
        for number in range(100):
            log(logging.INFO, "trial starts", trial=f"{number:04}-abcdef")
    files = {path.name: path.stat().st_size for path in sweep.root.iterdir()}
    assert files.keys() == {"driver.log", "driver.log.1"}
    assert max(files.values()) <= 1000
    assert lines_of(sweep)[-1]["trial"] == "0099-abcdef"
    with driver_log.driver_log(SweepDir(tmp_path / "gone")):
        log(logging.INFO, "trial starts")
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_the_metrics_are_at_the_prometheus_endpoint_of_ray(sweep_file):
    pytest.importorskip("aiohttp_cors")  # ray[default]
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(sweep_file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("ray_kdsweep_")]
    names = {line.partition("{")[0] for line in lines}
    assert names == {f"ray_{name}" for name in GAUGES} | {f"ray_{name}_total" for name in COUNTERS}

    def value(*labels: str) -> float:
        (line,) = (line for line in lines if all(label in line for label in labels))
        return float(line.rpartition(" ")[2])

    found = kdsweep.load_results(sweep_file.parent / "runs/small")
    for state, count in found.trials["state"].value_counts().items():
        assert value("ray_kdsweep_trials{", f'state="{state.lower()}"', 'sweep="small"') == count
    assert value("ray_kdsweep_trials_target{") == 10
    assert value("ray_kdsweep_epochs_total{") == len(found.epochs)
    assert value("ray_kdsweep_best{", 'of="student"') == found.trials["val_accuracy"].max()
    assert 0 < value("ray_kdsweep_busy_ratio{") <= 1
