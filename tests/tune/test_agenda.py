"""The stages of a sweep run in order, and their times are recorded."""

from __future__ import annotations

import pytest

from kdsweep.errors import DeviceError, SweepError
from kdsweep.tune import timeline
from kdsweep.tune.agenda import MOST_BROKEN, Agenda, End
from kdsweep.tune.timeline import Timeline
from kdsweep.tune.work import Wait, Work


class Piece(Work):
    def __init__(self, name):
        self.name = name


class Listed:
    """A stage with given pieces of work, each done after one report."""

    def __init__(self, name, *pieces):
        self.name = name
        self.waiting = [Piece(piece) for piece in pieces]
        self.left = set(pieces)
        self.calls = []

    @property
    def done(self):
        return not self.left

    def begin(self):
        self.calls.append("begin")

    def next(self):
        return self.waiting.pop(0) if self.waiting else None

    def on_report(self, work, report):
        self.left.discard(work.name)
        return False

    def give_back(self, work):
        self.waiting.append(work)

    def on_lost(self, work):
        raise SweepError(f"{work.name} lost")

    def close(self):
        self.calls.append("close")


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    now = [100.0]
    monkeypatch.setattr(timeline.time, "monotonic", lambda: now[0])
    return now


def agenda_of(*stages, lanes=2):
    return Agenda(stages, lanes, 1, Timeline(lanes))


def reported(seconds=1.0, **values):
    return {"seconds": seconds, **values}


def test_a_stage_begins_when_the_one_before_is_done_and_lanes_wait_in_between():
    first, second = Listed("prepare", "a"), Listed("search", "b", "c")
    agenda = agenda_of(first, second)
    work, idle = agenda.next(), agenda.next()
    assert (work.name, type(idle)) == ("a", Wait)
    assert agenda.on_report(idle, reported()) is True
    assert second.calls == []
    assert agenda.on_report(work, reported()) is False
    assert agenda.on_report(idle, reported()) is False  # there is work now
    assert (first.calls, second.calls) == (["begin", "close"], ["begin"])
    assert [agenda.next().name, agenda.next().name] == ["b", "c"]


def test_it_ends_when_every_stage_is_done_and_counts_as_interrupted_before():
    stage = Listed("search", "a")
    agenda = agenda_of(stage)
    work = agenda.next()
    assert agenda.outcome.end is End.INTERRUPTED
    agenda.on_report(work, reported())
    assert agenda.next() is None
    assert agenda.outcome.end is End.ENDED
    assert stage.calls == ["begin", "close"]


def test_work_whose_lane_was_lost_is_handed_out_again():
    agenda = agenda_of(Listed("search", "a", "b"))
    work = agenda.next()
    agenda.give_back(work)
    assert [agenda.next().name, agenda.next()] == ["b", work]
    with pytest.raises(SweepError, match="a lost"):
        agenda.on_lost(work)


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        ({"storage": "No space left on device: /runs"}, "storage error: No space left on device: /runs"),
        ({"failure": "no GPU", "error": DeviceError("PyTorch sees no GPU")}, "PyTorch sees no GPU"),
    ],
)
def test_a_fault_of_the_storage_or_a_device_aborts_the_sweep(report, reason):
    agenda = agenda_of(Listed("search", "a", "b"))
    assert agenda.on_report(agenda.next(), reported(**report)) is False
    assert agenda.aborted
    agenda.abort(SweepError("a later reason"))
    assert (agenda.outcome.end, str(agenda.outcome.reason)) == (End.ABORTED, reason)
    assert agenda.on_report(agenda.next(), reported()) is False


def test_the_timeline_tells_where_the_time_went(clock):
    agenda = agenda_of(Listed("prepare", "p"), Listed("search", "a", "b"), Listed("confirm", "c"))
    times = agenda._timeline
    clock[0] = 104.0
    prepare = agenda.next()
    clock[0] = 110.0
    agenda.on_report(prepare, reported(5.0))
    first, second = agenda.next(), agenda.next()
    clock[0] = 113.0
    agenda.on_report(first, reported(2.0, epochs=[{}]))
    clock[0] = 120.0
    agenda.on_report(second, reported(10.0, epochs=[{}]))
    last, idle = agenda.next(), agenda.next()
    clock[0] = 123.0
    agenda.on_report(idle, reported(3.0))
    clock[0] = 125.0
    agenda.on_report(last, reported(4.0, epochs=[{}]))
    assert agenda.next() is None
    assert times.described() == {
        "workers": 2,
        "first_epoch": 13.0,
        "end": 25.0,
        "stages": {
            "prepare": {"begin": 4.0, "first_step": 5.0, "end": 10.0, "busy": 5.0},
            "search": {"begin": 10.0, "first_step": 11.0, "end": 20.0, "busy": 12.0},
            "confirm": {"begin": 20.0, "first_step": 21.0, "end": 25.0, "busy": 4.0},
        },
    }
    # 16 of 2 x 15 seconds were spent on work.
    assert times.text() == "start 10 s, search 10 s, confirm 5 s, idle workers 47 %"


def test_a_run_that_ends_before_its_search_has_only_a_start(clock):
    times = Timeline(2)
    clock[0] = 107.0
    assert times.text() == "start 7 s"
    assert times.described() == {"workers": 2, "first_epoch": None, "end": 7.0, "stages": {}}


def test_work_that_ran_out_of_gpu_memory_is_repeated_while_nothing_else_runs():
    stage = Listed("search", "a", "b", "c")
    agenda = agenda_of(stage)
    first, second = agenda.next(), agenda.next()
    assert agenda.on_report(first, reported(failure="out of GPU memory", out_of_memory=True)) is False
    third = agenda.next()
    assert (third.name, third.alone) == ("c", False)
    agenda.on_report(second, reported())
    assert isinstance(agenda.next(), Wait)  # c still runs
    agenda.on_report(third, reported())
    again = agenda.next()
    assert (again.name, again.alone) == ("a", True)
    stage.waiting.append(Piece("d"))
    stage.left.add("d")
    assert isinstance(agenda.next(), Wait)  # nothing else runs meanwhile
    assert stage.left == {"a", "d"}
    agenda.on_report(again, reported(failure="out of GPU memory", out_of_memory=True))
    assert stage.left == {"d"}  # now the stage is told
    assert agenda.next().name == "d"


def test_work_whose_gpu_broke_goes_on_elsewhere_and_is_given_up_only_if_it_breaks_one_gpu_after_another():
    stage = Listed("search", "a")
    agenda = agenda_of(stage)
    report = reported(failure="RuntimeError: CUDA error", broken="CUDA error: an illegal memory access")
    work = agenda.next()
    for _ in range(MOST_BROKEN):
        assert agenda.on_report(work, report) is True
        assert stage.left == {"a"}
    assert agenda.on_report(work, report) is False
    assert stage.left == set()
