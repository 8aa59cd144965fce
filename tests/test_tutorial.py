"""docs/tutorial.ipynb runs from top to bottom."""

from __future__ import annotations

import ast
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial.ipynb"


@pytest.fixture
def notebook():
    return nbformat.read(TUTORIAL, as_version=4)


def test_the_notebook_is_kept_without_outputs(notebook):
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)


@pytest.mark.slow  # a sweep of its own
def test_the_notebook_ends_with_a_chart_and_an_exported_student(notebook, tmp_path):
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    *_, search, trials, confirmed, chart, student = (
        cell.outputs for cell in notebook.cells if cell.cell_type == "code"
    )
    (progress,) = search
    assert "report  " in progress.data["text/plain"]
    assert "tutorial" in progress.data["text/html"]
    assert trials[0].data["text/html"].count("<tr") == 9
    assert "plain_test_accuracy" in confirmed[0].data["text/html"]
    assert chart[0].data["application/vnd.plotly.v1+json"]["data"]
    files, accuracy = ast.literal_eval(student[-1].data["text/plain"])
    assert files == ["README.md", "config.json", "model.safetensors"]
    assert accuracy > 0.85
    assert (tmp_path / "runs" / "tutorial" / "report.html").is_file()
