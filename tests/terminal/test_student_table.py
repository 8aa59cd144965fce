"""The summary at several widths: nothing that one reads off or copies is broken."""

from __future__ import annotations

import json
import re
from itertools import takewhile

import pandas as pd
import pytest
from made_up import EVIL
from rich.cells import cell_len

from kdsweep.errors import printable
from kdsweep.results.frames import load_results
from kdsweep.terminal.summary import _shown, print_summary

WIDTHS = (80, 120, 200)
LONG = {
    "temperature": 11.0987, "alpha": 0.70123, "lr": 0.00123456, "weight_decay": 5e-4, "kd.weight": 12.5,
    "dkd.beta": 5.25, "optimizer": "own_package.own_module:OwnOptimizerWithALongName", "schedule": "[bold]cosine[/]",
}  # fmt: skip
VERDICTS = [
    ("gain", 0, 0, "gain"),
    ("undecided", 12, 0, "undecided: about 12 more seeds"),
    ("undecided", 100, 2, "undecided: 100 or more seeds would be needed (2 of 5 seeds failed)"),
    ("same", 0, 0, "no difference larger than 0.5 points"),
    ("loss", 0, 0, "loss"),
]


def judged(trial, config, place):
    verdict, more, failed, _ = VERDICTS[place]
    gain = 0.02 - 0.01 * place
    row = {
        "trial": trial, **config, "seeds": 5, "judged_seeds": 5, "level": 0.05, "margin": 0.005,
        "parameters": 1_234_567, "size_mb": 4.709, "first_layer_norm": 1.2345, "val_accuracy": 0.95 - place / 1000,
        "test_accuracy": 0.9412, "test_accuracy_std": 0.0123, "plain_test_accuracy": 0.9212,
        "plain_test_accuracy_std": 0.0211, "tuned_plain_test_accuracy": 0.9311, "tuned_plain_test_accuracy_std": 0.0137,
    }  # fmt: skip
    for suffix, shift in (("", 0.0), ("_tuned", -0.005)):
        mean = gain + shift
        row |= {
            f"kd_gain{suffix}": mean, f"kd_gain{suffix}_std": 0.01, f"kd_gain{suffix}_low": mean - 0.0031,
            f"kd_gain{suffix}_high": mean + 0.0042, f"kd_gain{suffix}_p": 0.01, f"verdict{suffix}": verdict,
            f"more_seeds{suffix}": more, f"failed_seeds{suffix}": failed,
        }  # fmt: skip
    return row


@pytest.fixture(scope="module")
def results(made_up):
    """Five confirmed students with long settings and every kind of verdict, hostile texts included."""
    results = load_results(made_up.root)
    best = results.best(100)
    keys = best[best["method"] != "none"].drop_duplicates("config")["trial"].head(5).tolist()
    trials, rows = results.trials.copy(), []
    for place, key in enumerate(keys):
        method = EVIL if place == 4 else "kd+hint"
        config = {"method": method, "width": 0.5, **LONG, "temperature": 11.0987 + place}
        trials.loc[trials["trial"] == key, "config"] = json.dumps(config)
        rows.append(judged(key, {"method": method, "width": 0.5}, place))
    results.trials, results.confirmed = trials, pd.DataFrame(rows)
    return results


def printed(results, width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    print_summary(results)
    return capsys.readouterr().out


def table_of(out):
    return out.partition(" trials (")[0].rpartition("\n")[0]


def words(text):
    return " ".join(text.split())


def numbers(text):
    return re.findall(r"[+-]?\d[\d,]*(?:\.\d+)?%?", text)


@pytest.mark.parametrize("width", [*WIDTHS, 60, 40])
def test_no_line_is_wider_than_the_terminal(results, width, monkeypatch, capsys):
    out = printed(results, width, monkeypatch, capsys)
    # What is copied is left to the terminal to wrap.
    lines = [line for line in out.splitlines() if str(results.path) not in line]
    assert max(map(cell_len, lines)) <= width


@pytest.mark.parametrize("width", [*WIDTHS, 60])
def test_keys_numbers_and_verdicts_are_whole(results, width, monkeypatch, capsys):
    out = printed(results, width, monkeypatch, capsys)
    everything = numbers(printed(results, 2000, monkeypatch, capsys))
    assert set(numbers(out)) <= set(everything)
    lines = table_of(out).splitlines()
    for place, row in enumerate(results.confirmed.to_dict("records")):
        (first,) = [number for number, line in enumerate(lines) if line.startswith(row["trial"])]
        after = takewhile(lambda line: line.startswith(" "), lines[first + 1 :])
        own = [lines[first], *after]
        block = words("\n".join(own))
        assert "94.12% ± 1.23" in block
        gain, tuned = 2 - place, 1.5 - place
        for ends in (f"{gain:+.2f} ({gain - 0.31:+.2f} to {gain + 0.42:+.2f})",
                     f"{tuned:+.2f} ({tuned - 0.31:+.2f} to {tuned + 0.42:+.2f})"):  # fmt: skip
            assert any(ends in line for line in own), ends
            assert f"{ends}, {VERDICTS[place][3]}" in block
        for setting in (
            "width 0.5",
            f"temperature {11.0987 + place:.3g}",
            "alpha 0.701",
            "lr 0.00123",
            "dkd.beta 5.25",
        ):
            assert any(setting in line for line in own), setting
    teacher = next(line for line in lines if line.startswith("teacher"))
    assert "98.00%" in teacher
    assert "97.00%" in teacher


@pytest.mark.parametrize("width", WIDTHS)
def test_hostile_texts_are_shown_as_text(results, width, monkeypatch, capsys):
    out = printed(results, width, monkeypatch, capsys)
    assert "\u202e" not in out
    # Parts that are wider than the terminal are broken; without white space they are whole.
    assert "".join(printable(EVIL).split()) in "".join(out.split())
    assert "schedule [bold]cosine[/]" in words(out)


def test_a_student_takes_one_line_where_it_fits(results, swept, monkeypatch, capsys):
    short = load_results(swept)
    out = table_of(printed(short, 400, monkeypatch, capsys)).splitlines()
    rows = out[next(number for number, line in enumerate(out) if line.startswith("─")) + 1 :]
    labels = [*_shown(short)["trial"], *["best plain"] * len(short.plain()), "teacher"]
    assert [line[: len(label)] for line, label in zip(filter(None, rows), labels, strict=True)] == labels
    row = next(line for line in rows if line.startswith(short.confirmed["trial"][0]))
    assert ", lr " in row
    assert re.search(r"[+-]\d\.\d\d \([+-]\d\.\d\d to [+-]\d\.\d\d\)", row)
    wide = table_of(printed(results, 2000, monkeypatch, capsys)).splitlines()
    assert not any(line.startswith(" ") for line in wide[wide.index("") + 3 :])


@pytest.mark.slow
def test_columns_are_left_out_in_turn(results, monkeypatch, capsys):
    titles = ["parameters", "MiB", "smaller", "epochs"]
    seen = []
    for width in range(110, 40, -1):
        out = printed(results, width, monkeypatch, capsys)
        shown = [title for title in titles if title in out.split("─")[0]]
        if not seen or seen[-1] != shown:
            seen.append(shown)
    assert seen == [titles[:4], titles[:3], titles[:2], titles[:1], []]
