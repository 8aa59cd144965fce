"""Steps of a command: lines in a log, one line in place on a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from kdsweep.terminal.steps import steps


@pytest.mark.parametrize("terminal", [False, True])
def test_steps_are_lines_in_a_log_and_leave_nothing_on_a_terminal(terminal):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=60, color_system=None, legacy_windows=False)
    with steps(console, "export") as tell:
        tell("converting [b]one[/b]\x07")
        tell("comparing")
    if terminal:
        assert "\x1b[2K" in out.getvalue()  # the line is erased at the end
        assert "\x07" not in out.getvalue()
    else:
        assert out.getvalue() == "converting [b]one[/b]\\x07\ncomparing\n"
