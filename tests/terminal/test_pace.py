"""The time left: it counts down between two steps, and is left out once it was too low."""

from __future__ import annotations

import math

import pytest

from kdsweep.terminal.progress import Pace


def test_the_estimate_counts_down_until_the_next_step_and_is_made_again_there():
    now = [100.0]
    pace = Pace(lambda: now[0])
    pace.note(0.0)
    assert math.isnan(pace.left)
    now[0] = 109.0  # most of it for the start of the workers
    pace.note(0.2)
    assert pace.times() == "0:09 elapsed"
    now[0] = 110.0
    pace.note(0.25)
    assert pace.left == pytest.approx(30)
    now[0] = 115.0
    pace.note(0.25)  # a report without progress
    assert pace.left == pytest.approx(25)
    assert pace.times() == "0:15 elapsed, about 0:25 left"
    now[0] = 120.0
    pace.note(0.5)
    assert pace.left == pytest.approx(20)
    now[0] = 139.0
    assert pace.left == pytest.approx(1)
    now[0] = 145.0
    assert math.isnan(pace.left)
    assert pace.times() == "0:45 elapsed"
    now[0] = 150.0
    pace.note(0.75)
    assert pace.left == pytest.approx(50 / 3)
