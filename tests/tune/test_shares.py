"""How many trials run at a time, and on which share of a GPU. Nothing here starts Ray."""

from __future__ import annotations

import math

import pytest
from test_agenda import Listed

from kdsweep.config.spec import ResourcesSection
from kdsweep.errors import InputError
from kdsweep.tune import autoscaler, cluster, growth
from kdsweep.tune.agenda import Agenda
from kdsweep.tune.cluster import UNLIMITED, Share, share
from kdsweep.tune.growth import AHEAD, IDLE_SECONDS, lanes_of
from kdsweep.tune.timeline import Timeline
from kdsweep.tune.work import Wait

HEAD, CPUS, GPUS = {"CPU": 0.0}, {"CPU": 4.0}, {"CPU": 8.0, "GPU": 2.0}


@pytest.fixture
def found(monkeypatch):
    """Let a test say which nodes there are, and which the autoscaler would start."""

    def there(*nodes, starts=None):
        alive = list(nodes)

        def started(bundle):
            fits = [node for node in starts if all(node.get(kind, 0) >= count for kind, count in bundle.items())]
            alive.extend(fits[:1])
            return bool(fits)

        monkeypatch.setattr(cluster, "_nodes", lambda: alive)
        monkeypatch.setattr(autoscaler, "adds_nodes", lambda: starts is not None)
        monkeypatch.setattr(autoscaler, "started", started)

    return there


def share_of(can_grow=True, per_gpu=1, told=None, **resources):
    tell = (lambda line: None) if told is None else told.append
    return share(ResourcesSection(**resources), can_grow, tell, per_gpu)


@pytest.mark.parametrize(("nodes", "per_gpu", "expected"), [
    ([CPUS, CPUS], 1, Share(1, 0, 8, 8)),
    ([HEAD, GPUS], 3, Share(1, 0.3333, 6, 6)),
    ([HEAD, GPUS], 9, Share(1, 0.25, 8, 8)),  # as many as the cores allow
])  # fmt: skip
def test_without_an_autoscaler_auto_counts_the_nodes(found, nodes, per_gpu, expected):
    found(*nodes)
    assert share_of(per_gpu=per_gpu) == share_of(can_grow=False, per_gpu=per_gpu) == expected


@pytest.mark.parametrize("number", range(1, 40))
def test_a_gpu_has_as_many_places_as_its_parts(found, number):
    found({"CPU": 64, "GPU": 2})
    assert share_of(can_grow=False, gpus_per_trial=1 / number).slots == min(64, 2 * number)
    assert share_of(can_grow=False, gpus_per_trial=math.floor(1e4 / number) / 1e4).slots == min(64, 2 * number)
    assert share_of(can_grow=False, per_gpu=number).slots == min(64, 2 * number)


@pytest.mark.parametrize("starts", [None, [GPUS]])
def test_two_numbers_are_used_as_given_whatever_runs(found, starts):
    found(HEAD, starts=starts)
    assert share_of(max_concurrent=32, gpus_per_trial=0.25) == Share(1, 0.25, 32, 32)


def test_without_an_autoscaler_nothing_is_waited_for(found):
    found(HEAD)
    with pytest.raises(InputError, match="can fit a trial of 1 CPU and 0 GPUs; .* version 1 of Ray's autoscaler"):
        share_of()
    with pytest.raises(InputError, match="'auto' cannot be combined with a number"):
        share_of(max_concurrent=3)


def test_the_first_node_comes_from_the_autoscaler_and_says_how_many_trials_fit(found):
    told = []
    found(HEAD, starts=[CPUS, GPUS])
    assert share_of(per_gpu=3, told=told) == Share(1, 0.3333, 6, UNLIMITED)
    assert told == ["asking the autoscaler for a node with CPU: 1, GPU: 1"]
    assert share_of(per_gpu=3, told=told, max_concurrent=5) == Share(1, 0.3333, 5, 5)
    assert len(told) == 1  # it runs


def test_a_cluster_that_has_no_gpus_is_found_out_by_asking(found):
    told = []
    found(CPUS, starts=[CPUS])
    assert share_of(told=told, cpus_per_trial=2) == Share(2, 0, 2, UNLIMITED)
    assert told == ["asking the autoscaler for a node with CPU: 2, GPU: 1"]
    assert share_of(gpus_per_trial=0, told=told) == Share(1, 0, 4, UNLIMITED)
    assert len(told) == 1
    with pytest.raises(InputError, match="1 CPU and 0.5 GPUs; the cluster has 4 CPUs and 0 GPUs; none that its"):
        share_of(gpus_per_trial=0.5)


def test_at_most_as_many_lanes_as_there_is_work():
    assert Share(1, 0, 8, UNLIMITED).at_most(20) == Share(1, 0, 8, 20)
    assert Share(1, 0, 8, UNLIMITED).at_most(5) == Share(1, 0, 5, 5)


class Cluster:
    """Plays Ray Tune on a cluster with room for a number of lanes."""

    def __init__(self, agenda, part, room):
        self.agenda, self.lanes, self.room = agenda, lanes_of(agenda, part), room
        self.running, self.pending, self.names, self.idle = {}, {}, 0, 0

    def step(self):
        """Ask for work, place it, and let lanes that wait report. Return how many lanes are not needed."""
        while self.lanes.may_begin():
            self.names += 1
            work = self.lanes.begin(str(self.names))
            if work is None:
                break
            self.pending[str(self.names)] = work
        for name in sorted(self.pending, key=lambda name: isinstance(self.pending[name], Wait)):
            if len(self.running) < self.room:
                self.running[name] = self.pending.pop(name)
        needless = self.lanes.look(dict(self.running), list(self.pending))
        for name, work in list(self.running.items()):
            if isinstance(work, Wait) and not self.agenda.on_report(work, {}):
                self.end(name)  # the lane gets that work in the next step
                break
        return needless

    def end(self, name, lost=False):
        del self.running[name]
        self.lanes.end(name, lost)

    @property
    def trials(self):
        return sum(not isinstance(work, Wait) for work in self.running.values())


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(growth.time, "monotonic", lambda: now[0])
    return now


def made(pieces, part, room):
    stage = Listed("search", *(f"t{number}" for number in range(pieces)))
    return Cluster(Agenda([stage], part.slots, 1, Timeline(part.slots)), part, room)


def test_lanes_are_asked_for_while_all_have_work_and_get_trials_only_when_they_run():
    cluster = made(40, Share(1, 0, 1, 20), room=1)
    cluster.step()
    assert (cluster.trials, len(cluster.pending)) == (0, 0)  # the first one waited until it ran
    for room, asked in ((1, AHEAD), (4, AHEAD), (15, 5), (30, 0)):
        cluster.room = room
        for _ in range(60):
            assert cluster.step() == 0
        assert cluster.trials == min(room, 20)  # at most as many lanes as there is work
        assert [type(work) for work in cluster.pending.values()] == [Wait] * asked
    assert cluster.agenda._timeline.workers == 20


def test_a_cluster_with_more_lanes_than_that_may_double_at_once():
    cluster = made(400, Share(1, 0, 50, 400), room=50)
    for _ in range(200):
        cluster.step()
    assert (cluster.trials, len(cluster.pending)) == (50, 50)


def test_lanes_without_a_place_are_given_up_when_others_have_been_idle_for_a_while(clock):
    cluster = made(2, Share(1, 0, 1, 20), room=3)
    for _ in range(60):
        assert cluster.step() == 0
    assert (cluster.trials, len(cluster.running), len(cluster.pending)) == (2, 3, 6)
    clock[0] += IDLE_SECONDS + 1
    assert cluster.step() == 6


def test_work_of_a_lost_lane_is_not_replaced_by_other_work(clock):
    cluster = made(9, Share(1, 0, 1, 20), room=2)
    for _ in range(60):
        cluster.step()
    cluster.room = 1
    cluster.end(next(iter(cluster.running)), lost=True)
    cluster.step()
    assert cluster.trials == 1
    assert all(isinstance(work, Wait) for work in cluster.pending.values())


def test_two_numbers_hand_out_trials_at_once_as_before():
    cluster = made(40, Share(1, 0, 8, 8), room=0)
    cluster.step()
    assert [work.name for work in cluster.pending.values()] == [f"t{number}" for number in range(8)]
