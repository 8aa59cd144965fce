"""What a lane reports when the code that it runs fails. Nothing here starts Ray."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import ray
from ray import cloudpickle

from kdsweep.tune.trainable import Lane
from kdsweep.tune.work import Work


class Calls(Work):
    """Calls a function in its first step."""

    name = "calls"

    def __init__(self, function):
        self._function = function

    def steps(self):
        yield self._function()


def step(function):
    lane = Lane.__new__(Lane)
    lane._begin(Calls(function))
    return lane.step()


def test_code_that_calls_sys_exit_is_reported_as_that():
    line = sys._getframe().f_lineno + 2
    report = step(
        lambda: sys.exit("enough")
    )  # fmt: skip
    assert report["failure"] == f"the code called sys.exit(enough) (test_lane.py:{line})"


class Gone:
    """A class that the worker does not find."""


def test_an_object_that_cannot_be_loaded_is_named_in_one_line(monkeypatch):
    content = cloudpickle.dumps(Gone())
    monkeypatch.delattr(sys.modules[__name__], "Gone")
    lane = Lane.__new__(Lane)
    lane._objects = cloudpickle.dumps(([], {"object:Gone_1": ("student", content)}))
    lane._begin(Calls(lambda: None))
    failure = lane.step()["failure"]
    assert failure.startswith("student: workers cannot load it: AttributeError: Can't get attribute 'Gone'")
    assert "\n" not in failure


def test_a_stop_that_ray_asks_for_is_passed_on():
    handler = compile("import sys\nsys.exit(1)", str(Path(ray.__file__).parent / "_private" / "worker.py"), "exec")
    with pytest.raises(SystemExit):
        step(lambda: exec(handler))
