"""Tables of frames at several widths: columns are left out, and no key or number is broken."""

from __future__ import annotations

import re

import pandas as pd
import pytest
from rich.cells import cell_len

from kdsweep.results.frames import load_results
from kdsweep.terminal import tables


def shown(frame, width, monkeypatch, capsys, keep=""):
    monkeypatch.setenv("COLUMNS", str(width))
    tables.write(frame, "table", None, keep)
    return capsys.readouterr()


def cells(out):
    """The words of the table, without its heading."""
    return set(out.partition("─\n")[2].split())


@pytest.mark.parametrize("width", [80, 120, 200, 40])
@pytest.mark.parametrize("what", ["trials", "epochs", "confirmed"])
def test_lines_fit_and_cells_are_whole(made_up, what, width, monkeypatch, capsys):
    results = load_results(made_up.root)
    frame = tables.ranked(results) if what == "trials" else getattr(results, what)
    narrow = shown(frame, width, monkeypatch, capsys)
    wide = shown(frame, 3000, monkeypatch, capsys)
    assert max(map(cell_len, narrow.out.splitlines())) <= width
    assert cells(narrow.out) <= cells(wide.out)
    assert set(frame["trial"]) <= cells(narrow.out)
    assert "do not fit" not in wide.err
    assert ("do not fit" in narrow.err) == (len(narrow.out.splitlines()[0]) < len(wide.out.splitlines()[0]))


def test_the_most_important_columns_are_kept_longest(made_up, monkeypatch, capsys):
    results = load_results(made_up.root)
    heads = [
        shown(tables.ranked(results), width, monkeypatch, capsys).out.splitlines()[0] for width in (80, 60, 45, 25, 20)
    ]
    assert [head.split() for head in heads] == [
        ["trial", "state", "method", "width", "lr", "val_accuracy", "parameters"],
        ["trial", "state", "method", "width", "val_accuracy"],
        ["trial", "state", "method", "val_accuracy"],
        ["trial", "val_accuracy"],
        ["trial"],
    ]  # fmt: skip
    (head, *_) = shown(results.confirmed, 60, monkeypatch, capsys).out.splitlines()
    assert {"trial", "test_accuracy", "kd_gain", "verdict"} <= set(head.split())
    (head, *_) = shown(results.epochs, 60, monkeypatch, capsys).out.splitlines()
    assert head.split()[:2] == ["trial", "epoch"]
    assert {"val_loss", "val_accuracy"} <= set(head.split())


def test_at_80_columns_a_confirmed_gain_has_its_interval(made_up, monkeypatch, capsys):
    (head, *_) = shown(load_results(made_up.root).confirmed, 80, monkeypatch, capsys).out.splitlines()
    assert {"trial", "test_accuracy", "kd_gain", "kd_gain_low", "kd_gain_high", "verdict"} <= set(head.split())


def test_what_students_cost_is_shown_where_there_is_room_and_the_rest_is_counted(made_up, monkeypatch, capsys):
    frame = tables.ranked(load_results(made_up.root)).assign(
        flops=1_234_567, latency_ms=0.1, latency_iqr_ms=0.01, throughput=28238.9
    )
    wide = shown(frame, 200, monkeypatch, capsys)
    head = wide.out.splitlines()[0].split()
    assert {"size_mb", "flops", "latency_ms", "latency_iqr_ms", "throughput"} <= set(head)
    assert {"1,234,567", "28,239"} <= cells(wide.out)
    assert f"{len(frame.columns) - len(head)} more columns: --format csv has all" in wide.err
    narrow = shown(frame, 120, monkeypatch, capsys)
    assert "columns that do not fit: " in narrow.err


def test_the_column_that_a_table_is_sorted_by_is_kept(made_up, monkeypatch, capsys):
    frame = tables.select(tables.ranked(load_results(made_up.root)), sort="train_seconds")
    assert "train_seconds" in shown(frame, 60, monkeypatch, capsys, "train_seconds").out
    assert "train_seconds" not in shown(frame, 60, monkeypatch, capsys).out


def test_without_a_terminal_all_columns_are_there(made_up, monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    results = load_results(made_up.root)
    tables.write(results.epochs, "table", None)
    out = capsys.readouterr()
    assert out.out.splitlines()[0].split() == list(results.epochs.columns)
    assert "do not fit" not in out.err


def test_prose_is_broken_between_words(monkeypatch, capsys):
    frame = pd.DataFrame({"model": ["a_very_long_model_name/and_more"], "description": ["words " * 30]})
    out = shown(frame, 60, monkeypatch, capsys).out
    assert "a_very_long_model_name/and_more" in out
    assert max(map(cell_len, out.splitlines())) <= 60
    assert set(re.findall(r"\S*word\S*", out)) == {"words"}


def test_markup_and_control_characters_have_no_effect(monkeypatch, capsys):
    frame = pd.DataFrame({"trial": ["0000-aaaaaa"], "method": ["[bold]\x1b[2J\u202e"]})
    assert "[bold]\\x1b[2J\\u202e" in shown(frame, 80, monkeypatch, capsys).out


def test_without_labels_nothing_is_shown_of_plain_students(made_up, monkeypatch, capsys):
    results = load_results(made_up.root)
    assert tables.confirmed(results) is results.confirmed
    data = results.spec.dataset.model_copy(update={"name": "unlabelled_folder"})
    results.__dict__["spec"] = results.spec.replaced(dataset=data)
    frame = tables.confirmed(results)
    assert not [name for name in frame.columns if "plain" in name or "gain" in name or "verdict" in name]
    assert not {"margin", "level", "more_seeds", "failed_seeds", "judged_seeds"} & set(frame.columns)
    head = shown(frame, 3000, monkeypatch, capsys).out.splitlines()[0].split()
    assert {"trial", "method", "width", "seeds", "test_accuracy", "test_accuracy_std"} <= set(head)
