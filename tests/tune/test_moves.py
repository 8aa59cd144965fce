"""Work moves from slow lanes to faster ones that have nothing to do."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from test_agenda import Listed, Piece, agenda_of

from kdsweep.tune import moves
from kdsweep.tune.moves import COST_SECONDS, SAVE_SECONDS, TAKE_SECONDS
from kdsweep.tune.work import Wait

FAST = {"node": "a", "device": "quick", "process": "p1"}
SLOW = {"node": "b", "device": "lame", "process": "p2"}
EPOCHS = 30


class Trial(Piece):
    """Ends with its last epoch."""

    def __init__(self, name, method="kd"):
        super().__init__(name)
        self.lasting(EPOCHS, {"method": method})


class Stage(Listed):
    def __init__(self, *trials):
        super().__init__("search", *(trial.name for trial in trials))
        self.waiting = list(trials)
        self.given_back = []

    def on_report(self, work, report):
        ended = report["epochs"][-1]["epoch"] == work.epochs
        if ended:
            self.left.discard(work.name)
        return not ended

    def give_back(self, work):
        self.given_back.append((work.name, work.moving))
        super().give_back(work)


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(moves.time, "monotonic", lambda: now[0])
    return now


def trained(agenda, work, where, epoch, seconds):
    return agenda.on_report(work, {"seconds": 1.0, "epochs": [{"epoch": epoch, "seconds": seconds}], **where})


def waited(agenda, lane, where):
    return agenda.on_report(lane, {"seconds": 1.0, **where})


def at_the_end(*, seconds=4.0, epoch=10, method="kd"):
    """A slow lane is in the middle of the last trial, while a fast one that has trained another waits."""
    agenda = agenda_of(stage := Stage(Trial("first", method), Trial("last")))
    first, last = agenda.next(), agenda.next()
    trained(agenda, last, SLOW, epoch, seconds)
    assert trained(agenda, first, FAST, EPOCHS, 1.0) is False
    idle = agenda.next()
    assert isinstance(idle, Wait)
    assert waited(agenda, idle, FAST) is True
    return agenda, stage, last, idle


def test_the_last_trial_of_a_slow_lane_is_taken_over_by_a_fast_one_once_its_state_is_saved(clock):
    agenda, stage, last, idle = at_the_end()
    assert trained(agenda, last, SLOW, 11, 4.0) is False  # it leaves
    assert stage.given_back == []
    left = agenda.next()  # what the slow lane does now
    assert isinstance(left, Wait)
    assert waited(agenda, idle, FAST) is True  # the state may not be saved yet
    assert waited(agenda, left, SLOW) is True  # now it is
    assert waited(agenda, left, SLOW) is True  # and not for the slow lane
    assert waited(agenda, idle, FAST) is False
    assert stage.given_back == [("last", True)]
    assert agenda.next() is last
    assert waited(agenda, left, SLOW) is True
    trained(agenda, last, FAST, 12, 1.0)
    assert waited(agenda, left, SLOW) is True
    assert trained(agenda, last, FAST, EPOCHS, 1.0) is False
    assert agenda.next() is None


@pytest.mark.parametrize("state", [
    {"seconds": 1.4},  # hardly slower
    {"epoch": EPOCHS - int(COST_SECONDS / 3) - 1},  # nearly done
    {"method": "at"},  # nothing says how fast the idle lane is with such a trial
])  # fmt: skip
def test_a_trial_that_would_not_end_earlier_stays(clock, state):
    agenda, stage, last, idle = at_the_end(**state)
    assert trained(agenda, last, SLOW, state.get("epoch", 10) + 1, 4.0) is True
    assert waited(agenda, idle, FAST) is True
    assert stage.given_back == []


def test_a_trial_moves_once_and_one_at_a_time(clock):
    agenda = agenda_of(Stage(*(Trial(name) for name in ("first", "second", "third"))), lanes=3)
    first, second, third = agenda.next(), agenda.next(), agenda.next()
    for work, epoch in ((second, 20), (third, 10)):
        trained(agenda, work, SLOW, epoch, 4.0)
    trained(agenda, first, FAST, EPOCHS, 1.0)
    idle = agenda.next()
    waited(agenda, idle, FAST)
    waited(agenda, idle, FAST)
    assert trained(agenda, second, SLOW, 21, 4.0) is True
    assert trained(agenda, third, SLOW, 11, 4.0) is False  # which has the longest way to go
    waited(agenda, agenda.next(), SLOW)
    assert waited(agenda, idle, FAST) is False
    assert agenda.next() is third
    trained(agenda, third, SLOW | {"node": "c"}, 12, 9.0)
    waited(agenda, agenda.next(), FAST)
    assert trained(agenda, third, SLOW | {"node": "c"}, 13, 9.0) is True


def test_any_lane_takes_a_trial_whose_move_went_wrong(clock):
    agenda, stage, last, _ = at_the_end()
    trained(agenda, last, SLOW, 11, 4.0)
    left = agenda.next()
    clock[0] += SAVE_SECONDS + 1
    assert waited(agenda, left, SLOW | {"process": "p3"}) is False
    assert stage.given_back == [("last", True)]
    assert agenda.next() is last


def test_a_trial_whose_taker_got_other_work_waits_for_another_lane_only_for_seconds(clock):
    agenda, stage, last, idle = at_the_end()
    assert trained(agenda, last, SLOW, 11, 4.0) is False
    left = agenda.next()
    assert waited(agenda, left, SLOW) is True  # its state is saved
    stage.waiting.append(Trial("promoted"))
    stage.left.add("promoted")
    assert waited(agenda, idle, FAST | {"node": "c"}) is False  # the idle lane gets it
    assert agenda.next().name == "promoted"
    assert waited(agenda, left, SLOW) is True
    clock[0] += TAKE_SECONDS + 1
    assert agenda.next() is last  # any lane that is free
    assert stage.given_back == [("last", True)]


def test_a_lane_that_waits_anew_takes_what_it_has_asked_for(clock):
    agenda, _, last, idle = at_the_end()
    assert trained(agenda, last, SLOW, 11, 4.0) is False
    left = agenda.next()
    agenda.leave(idle)  # the scheduler has ended it
    anew = agenda.next()
    assert waited(agenda, left, SLOW) is True
    assert waited(agenda, anew, FAST) is False
    assert agenda.next() is last


def test_a_trial_stays_if_its_lane_turns_out_to_be_as_fast(clock):
    agenda, _, last, _ = at_the_end()
    assert trained(agenda, last, SLOW, 11, 1.0) is True


def test_a_trial_is_not_promised_to_a_lane_that_waits_no_more(clock):
    agenda, _, last, idle = at_the_end()
    agenda.leave(idle)
    assert trained(agenda, last, SLOW, 11, 4.0) is True


OWN = """
import time
from pathlib import Path
import ray
from kdsweep.methods import Method

class Paced(Method):
    formula = "0"
    source = "this test"
    needs = frozenset({"logits"})

    def term(self, student, teacher, labels):
        node = ray.util.get_node_ip_address()
        folder = Path(__file__).parent / "nodes"
        folder.mkdir(exist_ok=True)
        (folder / node).touch()
        until = time.monotonic() + 180
        while len(list(folder.iterdir())) < 2:  # both nodes begin together
            assert time.monotonic() < until, "no second node"
            time.sleep(0.1)
        time.sleep(0.4 if node == "127.0.0.2" else 0.02)
        return student.logits.sum() * 0
"""
RUN = """
import sys
from ray.cluster_utils import Cluster
import kdsweep
from kdsweep.tune import moves
moves.COST_SECONDS = 0
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1, node_ip_address="127.0.0.2")
results = kdsweep.run(kdsweep.load_spec(sys.argv[1]), address=cluster.address)
print(results.epochs.to_json(orient="records"))
cluster.shutdown()
"""


@pytest.mark.cluster
def test_a_trial_goes_on_from_its_state_on_a_faster_node(tmp_path):
    (tmp_path / "own_paced.py").write_text(OWN)
    (tmp_path / "sweep.yaml").write_text(json.dumps({
        "name": "paced",
        "dataset": {"name": "mnist_mini", "subset": 400, "val_fraction": 0.5},
        "teacher": {"model": "mnist_teacher", "width": 0.25, "checkpoint": "kdsweep:mnist_mini_teacher"},
        "student": {"model": "mnist_student"},
        "space": {"method": ["own_paced:Paced"], "width": 0.25, "alpha": 0.5,
                  "lr": {"choice": [1e-3, 2e-3, 3e-3]}, "own_paced:Paced": {"weight": 1}},
        "train": {"epochs": 10, "batch_size": 64},
        "search": {"trials": 3, "sampler": "grid"},
        "scheduler": {"name": "none"}, "confirm": {"top": 0}, "storage": str(tmp_path / "runs"),
    }))  # fmt: skip
    words = [sys.executable, "-c", RUN, tmp_path / "sweep.yaml"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    epochs = json.loads(done.stdout.strip().splitlines()[-1])
    nodes = {}
    for epoch in epochs:
        nodes.setdefault(epoch["trial"], []).append(epoch["node"])
    assert {len(where) for where in nodes.values()} == {10}  # none is lost, none twice
    (moved,) = (where for where in nodes.values() if where[0] == "127.0.0.2")
    assert moved == sorted(moved, key=lambda node: node != "127.0.0.2")
    assert moved[-1] != "127.0.0.2"
    assert '"trial moves to a faster worker"' in (tmp_path / "runs/paced/driver.log").read_text()
