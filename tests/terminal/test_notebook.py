"""Progress in a notebook: one output of the cell, replaced in place."""

from __future__ import annotations

import io

import nbformat
from nbclient import NotebookClient
from rich.console import Console

from kdsweep.terminal.live import for_console, shown
from kdsweep.terminal.progress import PlainLines, Silent

CELL = """
from kdsweep.terminal.live import shown
from kdsweep.terminal.progress import SearchStatus

with shown(True) as view:
    view.phase("data", "<b>1200</b> training images")
    for ended in range(5):
        view.search(SearchStatus(4, 1, ended, 0, 0, ended, "val_accuracy", 0.5, {"method": "kd"}, 0.9))
print(type(view).__name__)
"""


def executed(*cells):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    return NotebookClient(notebook, timeout=120, kernel_name="python3").execute().cells


def test_a_cell_has_one_output_that_ends_with_the_permanent_lines():
    (cell,) = executed(CELL)
    view, printed = cell.outputs
    assert printed.text == "NotebookView\n"
    assert view.data["text/plain"] == "data    <b>1200</b> training images\n"
    assert "&lt;b&gt;1200&lt;/b&gt; training images" in view.data["text/html"]


def test_a_running_search_is_redrawn():
    (cell,) = executed(CELL.replace("print(", "view._show(); print("))
    text = cell.outputs[0].data["text/plain"].splitlines()
    assert text[0] == "data    <b>1200</b> training images"
    assert text[1].startswith("search")
    assert "4/4 trials" in text[1]
    assert text[3].split() == ["best", "50.00%", "(teacher", "90.00%)"]


def test_progress_of_a_sweep_from_python_is_shown_unless_it_is_turned_off():
    assert isinstance(shown(True), PlainLines)  # pytest is no terminal
    assert isinstance(shown(False), Silent)
    own = Silent()
    assert shown(own) is own
    assert isinstance(for_console(Console(file=io.StringIO())), PlainLines)
