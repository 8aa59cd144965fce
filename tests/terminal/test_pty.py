"""A real sweep on a real terminal: the live view moves, and the table at the end fits."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest
from rich.cells import cell_len

COLUMNS = 80


def on_terminal(command, environment):
    """Run a command on a terminal. Return its exit code and what it wrote."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, close_fds=True)
    os.close(theirs)
    written = b""
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # the other side is closed
            break
        if not data:
            break
        written += data
    os.close(ours)
    return process.wait(), written.decode()


def plain(text):
    """The text without escape sequences."""
    return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", text).replace("\r", "")


SEARCH = """
import sys, time
from rich.console import Console
from kdsweep.terminal.live import for_console
from kdsweep.terminal.progress import SearchStatus
with for_console(Console(stderr=True)) as view:
    view.phase("search", "64 trials")
    view.search(SearchStatus(64, 4, 3, 0, 0, 60, "val_accuracy", 0.9, {"method": "kd"}, 0.98, workers=4, busy=0.5))
    time.sleep(2.6)
"""


def test_times_move_on_a_terminal_without_any_event():
    code, written = on_terminal([sys.executable, "-c", SEARCH], {**os.environ, "TERM": "xterm-256color"})
    assert code == 0, written
    times = re.findall(r"3/64 trials  (\d+:\d\d) elapsed", plain(written))
    assert len(set(times)) >= 3
    assert "best 90.00% (teacher 98.00%)" in plain(written)


@pytest.mark.slow
@pytest.mark.parametrize("no_color", [False, True])
def test_the_live_view_of_a_sweep_moves_and_its_table_fits(sweep_file, tmp_path, no_color):
    environment = {**os.environ, "TERM": "xterm-256color"} | ({"NO_COLOR": "1"} if no_color else {})
    environment.pop("COLUMNS", None)
    command = [sys.executable, "-m", "kdsweep", "run", str(sweep_file), "--set", "train.epochs=24"]
    code, written = on_terminal(command, environment)
    assert code == 0, written
    assert len(set(re.findall(r"search .*?(\d+)/10 trials  \d+:\d\d elapsed", plain(written)))) >= 3
    assert re.search(r"data +\d+:\d\d elapsed", plain(written))
    assert re.search(r"best \d\d\.\d\d% \((plain \d\d\.\d\d%, )?teacher \d\d\.\d\d%\)", plain(written))
    assert re.search(r"\d epochs/s, \d+ workers? \d+ % busy", plain(written))
    assert re.search(r"confirm .*?/\d+ trainings, workers \d+ % busy", plain(written))
    assert bool(re.search(r"\x1b\[[\d;]*3[0-7]m", written)) != no_color
    table = plain(written).rpartition("small: the best students")[2].partition("trials (")[0]
    assert "teacher" in table
    assert max(map(cell_len, table.splitlines())) <= COLUMNS
