"""The live view through a whole sweep, on a clock that the test sets."""

from __future__ import annotations

import io
import math
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from kdsweep.terminal.live import LiveView, NotebookView, for_console
from kdsweep.terminal.progress import PlainLines, SearchStatus

CONFIG = {"method": "kd+hint", "width": 0.5, "temperature": 4.123456, "alpha": 0.9, "lr": 3e-3, "hint.weight": 12.5,
          "optimizer": "own_package.own_module:OwnOptimizer"}  # fmt: skip


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def status(**changes):
    values = {
        "target": 64, "running": 4, "complete": 0, "pruned": 0, "failed": 0, "epochs": 0, "objective": "val_accuracy",
        "best_value": math.nan, "best_config": {}, "teacher_value": 0.989, "workers": 4,
    }  # fmt: skip
    return SearchStatus(**values | changes)


class Screen:
    """A live view, and what it shows at a time."""

    def __init__(self, width=100):
        self.clock = Clock()
        self.console = Console(
            file=io.StringIO(), width=width, force_terminal=True, color_system=None, legacy_windows=False
        )
        self.view = LiveView(self.console, self.clock)

    def lines(self, after=0.0):
        self.clock.now += after
        with self.console.capture() as caught:
            self.console.print(self.view.view())
        return [line.rstrip() for line in caught.get().splitlines()]

    def permanent(self):
        return self.console.file.getvalue()


def test_a_whole_sweep():
    screen = Screen()
    view = screen.view
    assert screen.lines() == [""]
    view.phase("data", "mnist_mini")
    assert screen.lines(after=3) == ["data    0:03 elapsed"]
    view.phase("data", "1200 training images")
    assert screen.lines(after=2) == ["data    0:05 elapsed"]  # a message does not restart the phase

    view.phase("teacher", "mnist_teacher")
    assert screen.lines(after=1) == ["teacher 0:01 elapsed"]
    view.counted("teacher", 0, 10, "epochs")
    screen.clock.now += 16
    view.counted("teacher", 4, 10, "epochs, val accuracy 95.00%")
    (line,) = screen.lines()
    assert line.endswith("4/10 epochs, val accuracy 95.00%  0:16 elapsed, about 0:24 left")
    (later,) = screen.lines(after=1)
    assert later.endswith("0:17 elapsed, about 0:23 left")  # time passes between two epochs
    view.phase("teacher", "trained, val accuracy 98.90%")

    view.phase("search", "64 trials of 20 epochs, 4 at a time")
    view.search(status())
    first, counts, best = screen.lines()
    assert re.fullmatch(r"search +0/64 trials  0:00 elapsed", first)
    assert counts == "        4 running, 0 complete, 0 stopped early, 0 failed"
    assert best == "        no epoch yet (teacher 98.90%)"
    assert screen.lines(after=1)[0].endswith("0/64 trials  0:01 elapsed")
    found = {"best_value": 0.9612, "best_config": CONFIG, "plain_value": 0.948}
    screen.clock.now += 29
    view.search(status(complete=10, pruned=5, failed=1, running=3, waiting=2, epochs=240, busy=0.9649, **found))
    lines = screen.lines()
    assert lines[0].endswith("16/64 trials  0:30 elapsed, about 1:30 left")
    assert lines[1:] == [
        "        3 running, 10 complete, 5 stopped early, 1 failed, 2 waiting",
        "        best 96.12% (plain 94.80%, teacher 98.90%)",
        "        kd+hint, width 0.5, temperature 4.12, alpha 0.9, lr 0.003, hint.weight 12.5,",
        "        optimizer own_package.own_module:OwnOptimizer",
        "        8.0 epochs/s, 4 workers 96 % busy",
    ]
    assert screen.lines(after=10)[0].endswith("0:40 elapsed, about 1:20 left")
    assert screen.lines()[-1] == "        6.0 epochs/s, 4 workers 96 % busy"  # no news slows it down
    screen.clock.now += 300
    view.search(status(complete=20, pruned=20, running=4, epochs=600, spent=0.75, left="1.5 h", **found))
    lines = screen.lines()
    assert lines[0].endswith("40/64 trials  5:40 elapsed, about 1:53 left")  # the budget ends it first
    assert lines[-1].endswith("epochs/s, budget: 1.5 h")
    screen.clock.now += 60
    view.search(status(complete=40, pruned=24, running=0, epochs=900, **found))
    assert screen.lines()[0].endswith("64/64 trials  6:40 elapsed")

    view.phase("confirm", "retraining the best 3 and their plain students on 3 fresh seeds")
    view.counted("confirm", 0, 27, "trainings")
    screen.clock.now += 30
    view.counted("confirm", 9, 27, "trainings, workers 97 % busy")
    assert screen.lines()[0].endswith("9/27 trainings, workers 97 % busy  0:30 elapsed, about 1:00 left")
    view.phase("time", "start 9 s, search 400 s")
    permanent = screen.permanent()
    assert [line.split()[0] for line in permanent.splitlines()] == [
        "data", "data", "teacher", "teacher", "search", "confirm", "time"
    ]  # fmt: skip


def test_speed_is_that_of_the_last_minute():
    screen = Screen()
    for second in range(0, 301, 10):
        screen.view.search(status(epochs=second * (10 if second > 200 else 1), running=1))
        screen.clock.now += 10
    assert "epochs/s" in screen.lines()[-1]
    speed = float(re.search(r"([\d.]+) epochs/s", screen.lines()[-1])[1])
    assert 8 < speed < 10.1


@pytest.mark.parametrize("width", [200, 120, 80, 60, 40])
def test_no_line_is_wider_than_the_terminal_and_numbers_are_whole(width):
    screen = Screen(width)
    screen.view.search(status())
    screen.clock.now += 36_000
    found = {"best_value": 0.9612, "best_config": CONFIG, "plain_value": 0.948}
    screen.view.search(status(complete=10, pruned=5, failed=1, epochs=240, busy=0.9649, **found))
    lines = screen.lines()
    assert max(map(cell_len, lines)) <= width
    text = "\n".join(lines)
    for whole in ("16/64 trials", "10:00:00 elapsed", "96.12%", "temperature 4.12", "hint.weight 12.5", "lr 0.003"):
        assert whole in text
    if width >= 60:
        assert "about 30:00:00 left" in text
        assert "94.80%, teacher 98.90%" in text


def test_hostile_texts_are_shown_as_text():
    screen = Screen()
    screen.view.phase("data", "[bold]x[/] \x1b[2J\u202e")
    screen.view.search(status(best_value=0.5, best_config={"method": "[red]\x1b[2J"}))
    assert "[bold]x[/] \\x1b[2J\\u202e" in screen.permanent()
    assert "        [red]\\x1b[2J" in screen.lines()


def test_a_loss_is_shown_in_its_own_unit():
    screen = Screen()
    screen.view.search(status(objective="val_loss", best_value=0.12345, best_config=CONFIG, teacher_value=0.1))
    assert "        best 0.1235 (teacher 0.1)" in screen.lines()


def test_the_view_redraws_by_itself():
    """Two redraws without an event show two times."""
    screen = Screen()
    with screen.view:
        screen.view.phase("data", "x")
        for _ in range(2):
            screen.clock.now += 7
            screen.view._live.refresh()
    assert "0:07 elapsed" in screen.permanent()
    assert "0:14 elapsed" in screen.permanent()


def test_only_a_terminal_that_can_redraw_gets_the_live_view(monkeypatch):
    monkeypatch.delenv("TERM", raising=False)

    def console(**how):
        return Console(file=io.StringIO(), **how)

    assert isinstance(for_console(console(force_terminal=True)), LiveView)
    assert isinstance(for_console(console(force_terminal=False)), PlainLines)
    assert isinstance(for_console(console(force_terminal=True, _environ={"TERM": "dumb"})), PlainLines)
    assert isinstance(for_console(console(force_jupyter=True)), NotebookView)


def test_no_color_leaves_the_colours_out():
    def drawn(**environment):
        out = Console(file=io.StringIO(), force_terminal=True, color_system="standard", _environ=environment)
        with LiveView(out, Clock()) as view:
            view.phase("data", "x")
            view.search(status(complete=3))
        return out.file.getvalue()

    colour = re.compile(r"\x1b\[[\d;]*3\d[\d;]*m")
    assert colour.search(drawn(TERM="xterm"))
    assert not colour.search(drawn(TERM="xterm", NO_COLOR="1"))


def test_plain_lines_come_every_few_seconds_and_at_the_end():
    clock, out = Clock(), io.StringIO()
    lines = PlainLines(Console(file=out, width=40, force_terminal=False), clock)
    found = {"best_value": 0.9612, "best_config": CONFIG, "plain_value": 0.948, "busy": 0.5}
    for ended in range(65):
        lines.search(status(complete=ended, epochs=20 * ended, **found))
        clock.now += 1
    written = out.getvalue().splitlines()
    assert len(written) == 14
    assert written[1] == (
        "search  5/64 trials: 4 running, 5 complete, 0 stopped early, 0 failed; "
        "best 96.12% (plain 94.80%, teacher 98.90%): kd+hint, width 0.5, temperature 4.12, alpha 0.9, lr 0.003, "
        "hint.weight 12.5, optimizer own_package.own_module:OwnOptimizer; "
        "20.0 epochs/s, 4 workers 50 % busy; 0:05 elapsed"
    )
    assert written[2].endswith("0:10 elapsed, about 0:54 left")
    assert written[-1].startswith("search  64/64 trials")
    assert "left" not in written[-1]


def test_a_view_serves_the_reading_of_objects_and_then_their_sweep():
    screen = Screen()
    with screen.view as view:
        view.counted("data", 256, 512, "samples read as images")
    with screen.view as view:
        view.phase("data", "512 training images")
        view.search(status(complete=3))
        assert "3/64 trials" in "".join(screen.lines())
    assert "data    512 training images" in screen.permanent()
