"""`--where`: the rows that a condition selects, and that nothing but a condition is accepted."""

from __future__ import annotations

import json
import operator

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inputs import COMMAND, RANDOM, WHERE, accepted, either, refused

from kdsweep.errors import InputError
from kdsweep.terminal import tables
from kdsweep.terminal.conditions import matching

FRAME = pd.DataFrame({
    "trial": ["0000-a", "0001-b", "0002-c", "0003-d"],
    "method": ["kd", "dkd", "none", "kd"],
    "width": [0.25, 0.5, 0.5, 1.0],
    "dkd.beta": [None, 2.0, None, None],
    "kd.weight": [1.0, None, None, 9.0],
    "rung.1": [0.5, 0.6, 0.7, None],
    "rung.10": [0.9, 0.1, 0.2, None],
    "own.module:M.gain": [1.0, 2.0, 3.0, 4.0],
    "parameters": pd.array([10, 20, None, 40], dtype="Int64"),
    "error": ["", "@", "a 'quote' and rung.1", ""],
    "good": [True, False, True, False],
    "nothing": [None, None, None, None],
})  # fmt: skip

CHOSEN = {
    "width <= 0.5": [0, 1, 2],
    "0.25 < width <= 0.5": [1, 2],
    "width == 0.5 and method == 'dkd'": [1],
    "method == 'kd' or width == 0.5 and method == 'none'": [0, 2, 3],
    "not (width < 1 or method == 'x')": [3],
    "(width < 1) & (method == 'kd') | ~good & (width == 1)": [0, 3],
    "method in ['kd', 'none']": [0, 2, 3],
    "method not in ('kd', 'none')": [1],
    "width in {1, 0.25}": [0, 3],
    "dkd.beta.isna()": [0, 2, 3],
    "dkd.beta.notna() and dkd.beta > 1": [1],
    "`dkd.beta`.isna()": [0, 2, 3],
    "parameters.isna()": [2],
    "parameters > 15": [1, 3],
    "parameters != 10": [1, 2, 3],
    "not parameters > 15": [0, 2],
    "nothing != 3 and nothing != 'x'": [0, 1, 2, 3],
    "nothing.isna()": [0, 1, 2, 3],
    "nothing > 3": [],
    "error == '@'": [1],
    "error == \"a 'quote' and rung.1\"": [2],
    "error == ''": [0, 3],
    "rung.1 > 0.55": [1, 2],
    "rung.10>0.55": [0],
    "rung.1 - rung.10 == 0.5": [1],
    "own.module:M.gain * 2 >= 6": [2, 3],
    "`own.module:M.gain` % 2 == 0": [1, 3],
    "width ** 2 == 0.25": [1, 2],
    "-width < -0.5": [3],
    "1 / (width - 1) < -1.5": [1, 2],
    "width / 0 > 1e300": [0, 1, 2, 3],
    "width == width": [0, 1, 2, 3],
    "trial >= '0002'": [2, 3],
    "good": [0, 2],
    "good == True": [0, 2],
    "not good": [1, 3],
    "kd.weight+rung.1 == 1.5": [0],
    "  width == 1  ": [3],
}


@pytest.mark.parametrize("where", CHOSEN)
def test_a_condition_selects_rows(where):
    with accepted(WHERE):
        assert list(matching(FRAME, where).index) == CHOSEN[where]


REFUSED = [
    # executed by pandas' eval and query
    "width.to_csv('here.csv')", "width.to_pickle('here')", "(width > 0).to_sql('t', 'sqlite:///here')",
    "width.pipe(print) > 0", "method.str.len() > 1", "@pd.io.common.os.system('touch here') == 0",
    "9**9**9 > width", "width < 9 ** (9 ** 9)", "(width ** 99) ** 99 > 1", "width ** -(2 ** 9) > 0",
    # not conditions
    "", " ", "#", "width", "1", "True", "1 < 2", "'kd'", "width + 1", "not width", "width and good", "None", "...",
    "width = 1", "width := 1", "(w := 1) == 1", "width <", "(", "width; width", "width\nwidth", "\x00", "\udcff", "`",
    "``", "lambda: 1", "[width]", "width[0] == 1", "{}", "f'{width}' == ''", "b'' == error",
    "width if good else width",
    "[x for x in width]", "width.isna", "width.isna(1)", "isna(width)", "1.isna()", "(width < 1).isna()", "width is 1",
    "width == None", "width == 1j", "await width", "yield", "*width", "width @ width", "width << 1 > 0",
    "width ^ 1 > 0",
    # incompatible kinds, and unknown names
    "width < 'a'", "width == 'a'", "method > 1", "method == kd", "method + 'x' == 'kdx'", "good < True", "-method == 1",
    "width in method", "'k' in method", "width in ['a']", "width in 1", "method * 3 == 'kd'", "dkd.bta > 1", "dkd > 1",
    "width.__class__", "__import__('os').system('touch here')", "import os", "@errors", "dkd.beta.real > 1",
    # sizes
    "width > 1e999", "width > " + "9" * 400, "width > " + "9" * 1900, "width > 1 " + "+ 1" * 700,
    "width" + "+1" * 900, "good" + " == good" * 200 + "<",
]  # fmt: skip


NESTED = ["(" * 900 + "good" + ")" * 900, "not " * 490 + "good", "-" * 1900 + "width > 1", "~" * 1900 + "good"]


def rows(where):
    return list(matching(FRAME, where).index)


@pytest.mark.parametrize("where", REFUSED)
def test_anything_else_is_refused_in_one_line_and_does_nothing(where, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with refused(WHERE) as caught:
        rows(where)
    line = str(caught.value)
    assert line[:8] == "--where "
    assert "accepted: " in line
    assert len(line) < 700
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", NESTED)
def test_deep_nesting_is_evaluated_or_refused_in_one_line(where):
    error = either(WHERE, lambda: rows(where), lambda found: found in ([0, 2], []))
    assert error is None or (str(error).startswith("--where ") and "accepted: " in str(error))


TEXT = st.lists(st.sampled_from([*"0123456789.*/+-<>=!()[]'\"`@ _,", *FRAME.columns, " and ", " or ", " not ",
                                         " in ", ".isna()", "**", "'kd'"]), max_size=40).map("".join)  # fmt: skip


@settings(RANDOM, max_examples=300)
@given(TEXT)
def test_any_text_is_a_condition_or_refused_in_one_line(where):
    either(WHERE, lambda: rows(where), lambda found: set(found) <= set(FRAME.index))


NUMBERS = ("width", "dkd.beta", "rung.1", "rung.10", "own.module:M.gain", "parameters")
OPERATORS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq}


def is_missing(column):
    return lambda row: row[column] is None


def compared(column, name, value):
    return lambda row: row[column] is not None and OPERATORS[name](row[column], value)


# Pairs of a condition and a function that decides it for one row, written without pandas.
COMPARISON = st.builds(
    lambda column, name, value: (f"{column} {name} {value!r}", compared(column, name, value)),
    st.sampled_from(NUMBERS), st.sampled_from(sorted(OPERATORS)), st.sampled_from([-1, 0, 0.25, 0.5, 1.0, 2, 15, 40]),
)  # fmt: skip
MISSING = st.sampled_from([*NUMBERS, "nothing"]).map(lambda column: (f"{column}.isna()", is_missing(column)))
TEXTS = st.sampled_from(["kd", "none", "x"]).map(
    lambda text: (f"method == {text!r}", lambda row: row["method"] == text)
)
CONDITION = st.recursive(
    COMPARISON | MISSING | TEXTS,
    lambda inner: (
        inner.map(lambda one: (f"not ({one[0]})", lambda row: not one[1](row)))
        | st.tuples(inner, inner).map(
            lambda two: (f"({two[0][0]}) and {two[1][0]}", lambda row: two[0][1](row) and two[1][1](row))
        )
        | st.tuples(inner, inner).map(
            lambda two: (f"({two[0][0]}) | ({two[1][0]})", lambda row: two[0][1](row) or two[1][1](row))
        )
    ),
    max_leaves=6,
)


@settings(RANDOM, max_examples=150)
@given(CONDITION)
def test_any_condition_selects_the_rows_that_satisfy_it(condition):
    where, holds = condition
    records = FRAME.astype(object).where(FRAME.notna(), None).to_dict("records")
    with accepted(WHERE):
        assert rows(where) == [index for index, row in enumerate(records) if holds(row)]


def test_the_closest_column_is_suggested():
    with refused(WHERE, InputError, match="no column 'dkd.bta' .*did you mean 'dkd.beta'"):
        matching(FRAME, "dkd.bta > 1")


def test_a_condition_on_a_frame_without_rows_selects_none():
    assert matching(FRAME.iloc[:0], "width > 1 and method == 'kd' and dkd.beta.isna()").empty


# Output formats


@pytest.mark.parametrize(
    ("asked", "name", "expected"),
    [
        ("", "x.csv", "csv"), ("", "x.JSON", "json"), ("", "x.parquet", "parquet"), ("table", "x.txt", "table"),
        ("", None, "table"), ("csv", None, "csv"), ("csv", "x.csv", "csv"), ("json", "x.log", "json"),
    ],
)  # fmt: skip
def test_the_file_ending_selects_the_format(asked, name, expected, tmp_path):
    assert tables.format_of(asked, tmp_path / name if name else None) == expected


def test_a_format_that_contradicts_the_file_ending_is_refused(tmp_path):
    for asked in ("table", "json", "parquet"):
        with refused(COMMAND, InputError, match=rf"--format {asked} contradicts --out .*x\.csv; "):
            tables.format_of(asked, tmp_path / "x.csv")


@pytest.mark.parametrize("name", ["x.txt", "x", "x.csv.gz", "x.xlsx", ".csv"])
def test_an_unknown_file_ending_needs_a_format(name, tmp_path):
    with refused(COMMAND, InputError, match=r"--out .*: no known file ending; accepted: \.csv, \.json, \.parquet, or"):
        tables.format_of("", tmp_path / name)


def test_the_command_writes_the_format_of_the_ending(tmp_path, monkeypatch, capsys):
    import shutil
    import sys
    from pathlib import Path

    from kdsweep import cli

    sweep = shutil.copytree(Path(__file__).parents[1] / "data" / "finished_0.1.0", tmp_path / "sweep")
    for name in ("x.csv", "x.json", "x.parquet"):
        monkeypatch.setattr(sys, "argv", ["kdsweep", "results", str(sweep), "--out", str(tmp_path / name)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == 0
    keys = list(pd.read_csv(tmp_path / "x.csv")["trial"])
    assert len(keys) == 6
    assert [row["trial"] for row in json.loads((tmp_path / "x.json").read_text())] == keys
    assert list(pd.read_parquet(tmp_path / "x.parquet")["trial"]) == keys
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines()[0] == f"{tmp_path / 'x.csv'}: 6 rows as csv"
