"""The command line: what it prints where, its exit codes, and that mistakes end in one line."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from inputs import COMMAND, WHERE, refused, refused_by_command

from kdsweep import __version__, cli, errors
from kdsweep.errors import InputError
from kdsweep.results.frames import load_results
from kdsweep.results.student_config import read_config
from kdsweep.terminal import tables

SCRIPT = Path(sys.executable).with_name("kdsweep")
LISTS = ("methods", "models", "datasets", "optimizers", "schedules", "losses", "samplers", "schedulers")
COMMANDS = (
    "init", "run", "resume", "confirm", "results", "report", "export", "push", "evaluate", "doctor", "validate",
    "submit", "jobs", "logs", "stop", *LISTS,
)  # fmt: skip


@pytest.fixture
def kdsweep(capfdbinary, monkeypatch):
    """Run a command as the console script does: its exit code, standard output and standard error."""

    def run(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kdsweep", *map(str, arguments)])
        code: object = 0
        try:
            cli.main()
        except SystemExit as stopped:
            code = stopped.code or 0
        out, err = capfdbinary.readouterr()
        return int(str(code)), out.decode(), err.decode()

    return run


def read_csv(text):
    return pd.read_csv(io.StringIO(text))


# What every command keeps


def test_help_lists_every_command(kdsweep):
    code, out, _ = kdsweep("--help")
    assert code == 0
    for command in COMMANDS:
        assert f" {command} " in out
        code, own, _ = kdsweep(command, "--help")
        assert code == 0
        assert "Usage: kdsweep " + command in own


def test_no_help_shows_a_default_that_means_something_else(kdsweep):
    for command in COMMANDS:
        _, out, _ = kdsweep(command, "--help")
        assert "default: 0]" not in out or command == "results"


def test_validate_takes_a_name_and_a_storage_like_run(kdsweep, sweep_file, tmp_path):
    code, out, _ = kdsweep("validate", sweep_file, "--name", "other", "--storage", tmp_path)
    assert (code, out.splitlines()[1].split(":")[0]) == (0, "other")
    code, _, err = kdsweep("validate", sweep_file, "--name", "../other", "--storage", "ftp://bucket")
    assert (code, err.count("\n")) == (2, 2)
    assert [line.split(": ")[0] for line in err.splitlines()] == ["--set name", "--set storage"]


def test_looking_things_up_loads_neither_torch_nor_ray(swept):
    lines = [["--help"], ["--version"], ["run", "--help"], ["methods", "kd"], *([name] for name in LISTS),
             ["results", str(swept)], ["results", str(swept), "--epochs", "--format", "csv"]]  # fmt: skip
    code = f"""
import sys
import kdsweep
print("torch" in sys.modules, "ray" in sys.modules, "pandas" in sys.modules, file=sys.stderr)
from kdsweep.cli import main
for line in {lines!r}:
    sys.argv = ["kdsweep", *line]
    try:
        main()
    except SystemExit as stopped:
        print(stopped.code, "torch" in sys.modules, "ray" in sys.modules, file=sys.stderr)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
    told = [line for line in told.splitlines() if not line.startswith("columns that do not fit")]
    assert told == ["False False False"] + ["0 False False"] * len(lines)


def test_the_script_says_its_version():
    ran = subprocess.run([SCRIPT, "--version"], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"kdsweep {__version__}\n", "")


def test_the_script_ends_a_mistake_with_exit_code_2_and_one_line(tmp_path):
    ran = subprocess.run([SCRIPT, "results", tmp_path / "gone"], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == (f"{tmp_path}/gone: no such directory; accepted: a sweep directory such as runs/quickstart\n")


def test_exit_codes_say_whose_fault_it_was():
    codes = {name: found.exit_code for name, found in vars(errors).items() if isinstance(found, type)
             and issubclass(found, errors.KdsweepError)}  # fmt: skip
    assert {name for name, code in codes.items() if code == 1} >= {"KdsweepError", "TeacherError", "SweepError"}
    assert {name for name, code in codes.items() if code == 130} == {"Interrupted"}
    assert {name for name, code in codes.items() if code == 2} >= {"InputError", "SpecError", "CheckpointError"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["results", "{dir}/gone"], "no such directory; accepted: a sweep directory such as runs/quickstart"),
        (["results", "{dir}"], "not a sweep directory: spec.yaml is missing"),
        (["resume", "{dir}/gone"], "no such directory"),
        (["export", "{dir}/gone", "--out", "{dir}/x"], "no such directory"),
        (
            ["evaluate", "{dir}"],
            "not an exported student: config.json is missing; accepted: a folder of kdsweep export",
        ),
        (["evaluate", "{dir}", "--split", "tset"], "--split 'tset': unknown split; accepted: test, val, train"),
        (["validate", "{dir}/gone.yaml"], "gone.yaml: no such file; accepted: a sweep file in YAML"),
        (["run", "{dir}/gone.yaml"], "gone.yaml: no such file"),
        (["run", "{dir}"], "is a directory; accepted: a sweep file in YAML"),
        (["methods", "kdd"], "unknown method 'kdd'; did you mean 'kd'?"),
        (["results", "{dir}", "--top", "-1"], "Invalid value for '--top': "),
        (["results", "{dir}", "--top", "many"], "Invalid value for '--top': "),
        (["resume", "{dir}", "--trials", "0"], "Invalid value for '--trials': "),
        (["validate", "{dir}/gone.yaml", "--set", "a=["], "--set a: not readable as YAML"),
    ],
)
def test_a_mistake_is_one_line_on_standard_error(arguments, message, kdsweep, tmp_path):
    code, out, err = kdsweep(*(argument.format(dir=tmp_path) for argument in arguments))
    refused_by_command(COMMAND, code, out, err)
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_resume_refuses_to_change_what_would_make_trials_incomparable(kdsweep, swept):
    code, out, err = kdsweep("resume", swept, "--set", "train.epochs=9", "--set", "confirm.top=2")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("--set train.epochs: 4 -> 9: cannot change in an existing sweep")


ODD_PATHS = [
    "",
    ".",
    "/",
    "x" * 300,
    "x/" * 3000,
    "\udcff",
    "\x1b[2J\u202e",
    "a\nb",
    "~nobody/x",
    "/dev/null",
    "/dev/zero/x",
]
DIRECTORIES = (["results"], ["resume"], ["confirm"], ["export", "--out", "x"], ["doctor"], ["evaluate"],
               ["push", "--repo", "a/b"])  # fmt: skip


@pytest.mark.parametrize("path", ODD_PATHS, ids=ascii)
@pytest.mark.parametrize("command", [*DIRECTORIES, ["validate"], ["run"]], ids=lambda command: command[0])
def test_a_path_to_nothing_is_refused_in_one_line(command, path, kdsweep, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = kdsweep(*command, "--", path)
    refused_by_command(COMMAND, code, out, err)
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["reslts"], ["results"], ["results", "x", "--format", "xml"], ["run", "--nope"],
                                       ["results", "x", "--top", "-1"], ["export", "x"]])  # fmt: skip
def test_wrong_usage_is_refused_in_one_line_that_names_the_help(arguments, kdsweep):
    code, out, err = kdsweep(*arguments)
    refused_by_command(COMMAND, code, out, err)
    assert err.count("\n") == 1
    command = "" if arguments == ["reslts"] else f" {arguments[0]}"
    assert err.endswith(f"; see: kdsweep{command} --help\n")


def test_more_students_or_seeds_than_a_sweep_file_allows_cannot_be_confirmed(kdsweep):
    for option in ("--top", "--seeds"):
        code, out, err = kdsweep("confirm", "x", option, "1000000")
        refused_by_command(COMMAND, code, out, err)
        assert option in err


def test_a_trial_and_a_number_of_students_cannot_both_be_exported(kdsweep, swept, tmp_path):
    code, out, err = kdsweep("export", swept, "--out", tmp_path / "x", "--top", "2", "--trial", "0")
    refused_by_command(COMMAND, code, out, err)
    assert err == "--top and --trial cannot be combined; use only one of them\n"
    assert not (tmp_path / "x").exists()


def test_a_report_must_end_in_html(kdsweep, swept):
    code, out, err = kdsweep("report", str(swept), "--out", "x.pdf")
    refused_by_command(COMMAND, code, out, err)
    assert err == "--out x.pdf: the report is a web page; accepted: a name that ends in .html\n"


# results


def test_results_are_the_trials_best_first_in_every_format(kdsweep, swept, tmp_path):
    expected = tables.ranked(load_results(swept))
    assert expected["val_accuracy"].is_monotonic_decreasing
    assert "config" not in expected.columns
    code, out, err = kdsweep("results", swept, "--format", "json")
    assert (code, err) == (0, "")
    records = json.loads(out)
    assert [record["trial"] for record in records] == list(expected["trial"])
    assert [record["lr"] for record in records] == pytest.approx(list(expected["lr"]), rel=1e-12)
    assert [record["temperature"] for record in records] == [
        None if pd.isna(value) else pytest.approx(value) for value in expected["temperature"]
    ]
    code, out, err = kdsweep("results", swept, "--format", "csv")
    assert (code, err) == (0, "")
    told = read_csv(out)
    assert list(told.columns) == list(expected.columns)
    pd.testing.assert_frame_equal(told.drop(columns="error"), expected.drop(columns="error"), check_dtype=False)
    code, out, err = kdsweep("results", swept, "--format", "parquet", "--out", tmp_path / "new" / "trials.parquet")
    assert (code, out, err) == (0, "", f"{tmp_path / 'new' / 'trials.parquet'}: {len(expected)} rows as parquet\n")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "new" / "trials.parquet"), expected)


def test_the_table_shows_a_line_per_trial_with_readable_numbers(kdsweep, swept):
    expected = tables.ranked(load_results(swept))
    code, out, err = kdsweep("results", swept, "--top", "3")
    assert (code, err) == (0, "")
    shown = [line for line in out.splitlines() if line.strip()[:4].isdigit()]
    assert [line.split()[0] for line in shown] == list(expected["trial"][:3])
    assert f"{expected['val_accuracy'][0]:.2%}" in shown[0]
    assert f"{expected['parameters'][0]:,}" in shown[0]
    assert "nan" not in out.lower()
    file = swept.parent / "never" / ".." / ".." / "table.txt"
    code, out, err = kdsweep("results", swept, "--top", "3", "--out", file, "--format", "table")
    assert (code, err) == (0, f"{file}: 3 rows as table\n")
    assert out == ""


def test_parquet_goes_to_standard_output_whole(kdsweep, swept, capfdbinary, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["kdsweep", "results", str(swept), "--format", "parquet"])
    with pytest.raises(SystemExit):
        cli.main()
    out, err = capfdbinary.readouterr()
    assert err == b""
    pd.testing.assert_frame_equal(pd.read_parquet(io.BytesIO(out)), tables.ranked(load_results(swept)))


def test_where_sort_and_top_choose_rows(kdsweep, swept):
    trials = load_results(swept).trials

    def keys(*options):
        code, out, _ = kdsweep("results", swept, "--format", "csv", *options)
        assert code == 0
        return list(read_csv(out)["trial"])

    kd = trials[(trials["method"] == "kd") & (trials["width"] <= 0.25)]
    assert 0 < len(kd) < len(trials)
    assert set(keys("--where", "method == 'kd' and width <= 0.25")) == set(kd["trial"])
    assert keys("--sort", "lr") == list(trials.sort_values("lr")["trial"])
    assert keys("--sort", "-lr", "--top", "2") == list(trials.sort_values("lr", ascending=False)["trial"][:2])
    dotted = trials[trials["hint.weight"] > 0]
    assert len(dotted) > 0
    for written in ("hint.weight > 0", "`hint.weight` > 0"):
        assert set(keys("--where", written)) == set(dotted["trial"])
    both = trials[(trials["hint.weight"] > 0) | (trials["state"] == "COMPLETE")]
    assert set(keys("--where", "hint.weight > 0 or state == 'COMPLETE'")) == set(both["trial"])
    assert keys("--where", "method in ['kd', 'none']", "--sort", "number") == list(
        trials[trials["method"].isin(["kd", "none"])]["trial"]
    )


def test_epochs_are_chosen_alike(kdsweep, swept):
    epochs = load_results(swept).epochs
    code, out, _ = kdsweep("results", swept, "--epochs", "--format", "csv", "--where", "epoch == 1", "--sort", "trial")
    assert code == 0
    expected = epochs[epochs["epoch"] == 1].sort_values("trial").reset_index(drop=True)
    pd.testing.assert_frame_equal(read_csv(out), expected, check_dtype=False)
    assert len(expected) == 10


def test_seeds_of_a_confirmation_are_a_number_or_auto(kdsweep, swept):
    for seeds in ("0", "three", "-1", "1001"):
        code, _, err = kdsweep("confirm", swept, "--seeds", seeds)
        assert (code, err.strip()) == (2, f"--seeds {seeds}: accepted: auto, or a number from 1 to 1000")


def test_what_was_confirmed_is_a_frame_too(kdsweep, swept):
    code, out, _ = kdsweep("results", swept, "--confirmed", "--format", "csv")
    assert code == 0
    pd.testing.assert_frame_equal(read_csv(out), load_results(swept).confirmed, check_dtype=False)
    code, out, _ = kdsweep("results", swept, "--confirmed")
    (row,) = load_results(swept).confirmed.to_dict("records")
    assert f"{row['kd_gain'] * 100:+.2f}" in out
    assert "plain_test_accuracy" in out


def test_importance_says_how_many_trials_it_is_judged_by(kdsweep, swept):
    results = load_results(swept)
    complete = int((results.trials["state"] == "COMPLETE").sum())
    code, out, err = kdsweep("results", swept, "--importance", "--format", "json")
    assert code == 0
    assert complete < 10
    assert err.splitlines() == [
        f"based on the {complete} complete trials of 10",
        "each setting needs at least 10 complete trials that drew it",
    ]
    assert json.loads(out) == results.importance().to_dict("records") == []
    code, out, err = kdsweep("results", swept, "--importance", "--epochs")
    assert (code, out) == (2, "")
    assert "use only one of them" in err


def test_no_rows_are_said_on_standard_error(kdsweep, swept):
    assert kdsweep("results", swept, "--where", "width > 100") == (
        0, "", "no rows: none of the 10 has width > 100\n"
    )  # fmt: skip
    code, out, err = kdsweep("results", swept, "--where", "width > 100", "--format", "json")
    assert (code, json.loads(out), err) == (0, [], "")


@pytest.mark.parametrize(
    "expression",
    ["widht < 1", "width", "number", "1", "True", "width = 1", "width <", "(", "method == kd", "@errors",
     "@__builtins__", "__import__('os').system('touch here')", "width.__class__", "hint.weigth > 1", "import os", "[",
     "width < 'a'", "val_accuracy.max()", "'" * 3, "lambda: 1"],
)  # fmt: skip
def test_a_wrong_condition_is_refused_in_one_line(expression, kdsweep, swept, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = kdsweep("results", swept, "--where", expression)
    assert (code, out) == (2, "")
    assert err.startswith("--where ")
    assert "accepted: " in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_column_or_file_is_refused_in_one_line(kdsweep, swept, tmp_path):
    for column in ("widht", "-widht"):
        code, out, err = kdsweep("results", swept, "--sort", column)
        assert (code, out) == (2, "")
        assert err.startswith(f"--sort {column}: no column 'widht'; did you mean 'width'? accepted: ")
        assert err.count("\n") == 1
    (tmp_path / "file").touch()
    code, out, err = kdsweep("results", swept, "--format", "csv", "--out", tmp_path / "file" / "x.csv")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "cannot be written" in err


def frame_of(**columns):
    return pd.DataFrame({name.replace("__", "."): values for name, values in columns.items()})


def test_dotted_columns_that_end_alike_are_told_apart():
    frame = frame_of(kd__weight=[1.0, 9.0, None], dkd__weight=[9.0, 1.0, 5.0], method=["kd", "kd.weight", "x"])
    for where, expected in {
        "kd.weight > 5": [1],
        "dkd.weight > 5": [0],
        "dkd.weight > 5 or kd.weight > 5": [0, 1],
        "`kd.weight` > 5": [1],
        "kd.weight+dkd.weight == 10": [0, 1],
        "method == 'kd.weight'": [1],
        "not kd.weight > 5": [0, 2],
    }.items():
        chosen = tables.select(frame.assign(row=range(3)), where=where)
        assert list(chosen["row"]) == expected, where


def test_a_missing_value_meets_no_condition():
    frame = pd.DataFrame({"parameters": pd.array([10, None, 30], dtype="Int64"), "row": range(3)})
    assert list(tables.select(frame, where="parameters > 5")["row"]) == [0, 2]
    assert list(tables.select(frame, sort="-parameters")["row"]) == [2, 0, 1]
    with refused(WHERE, InputError, match="not a condition"):
        tables.select(frame, where="parameters")


def test_a_table_that_goes_to_a_file_or_pipe_is_never_folded(capsys):
    names = [f"method{number}.some_parameter" for number in range(30)]
    row = {"trial": "0000-abcdef", "state": "COMPLETE"} | dict.fromkeys(names, 0.123456)
    tables.write(pd.DataFrame([row]), "table", None)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert len(lines) == 3
    assert lines[0].split() == ["trial", "state", *names]
    assert lines[2].split() == ["0000-abcdef", "COMPLETE", *["0.1235"] * 30]


def test_what_a_trial_says_is_no_markup(capsys):
    row = {"trial": "0000-abcdef", "state": "COMPLETE", "method": "[red]own[/red].module:M"}
    tables.write(pd.DataFrame([row]), "table", None)
    assert "[red]own[/red].module:M" in capsys.readouterr().out


def test_json_keeps_small_numbers_and_odd_texts(capfd):
    frame = pd.DataFrame({"lr": [1.2345678912345e-9], "error": ['a "quoted"/[x]\nline']})
    tables.write(frame, "json", None)
    (record,) = json.loads(capfd.readouterr().out)
    assert record["lr"] == pytest.approx(1.2345678912345e-9, rel=1e-5)
    assert record["error"] == 'a "quoted"/[x]\nline'


# export and evaluate


def test_export_prints_the_folders_and_evaluate_their_recorded_accuracy(kdsweep, swept, tmp_path):
    code, out, err = kdsweep("export", swept, "--out", tmp_path / "students", "--top", "2")
    assert (code, err) == (0, "")
    folders = [Path(line) for line in out.splitlines()]
    best = load_results(swept).distinct(2)
    assert folders == [tmp_path / "students" / f"small-{key}" for key in best["trial"]]
    code, out, err = kdsweep("evaluate", folders[0], "--split", "val")
    assert (code, err.count("\n")) == (0, 1)
    assert err.startswith("these weights are from the search, one training with seed 1")
    told = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert told["accuracy"] == f"{best['val_accuracy'][0]:.2%}" == f"{read_config(folders[0]).val_accuracy:.2%}"
    assert (told["dataset"], told["split"], told["images"]) == ("mnist_mini", "val", "600")
    code, out, _ = kdsweep("evaluate", folders[0])
    assert code == 0
    assert dict(line.split(maxsplit=1) for line in out.splitlines())["split"] == "test"
    code, out, err = kdsweep("evaluate", folders[0], "--dataset", "cifar10")
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_one_trial_is_exported_by_number(kdsweep, swept, tmp_path):
    code, out, _ = kdsweep("export", swept, "--out", tmp_path, "--trial", "0")
    assert code == 0
    assert [read_config(Path(line)).trial[:5] for line in out.splitlines()] == ["0000-"]
    code, out, err = kdsweep("export", swept, "--out", tmp_path, "--trial", "99")
    assert (code, out) == (2, "")
    assert err.startswith("trial '99': no trial matches; accepted: a key or number such as 0000-")


def test_more_students_than_were_kept_are_refused_with_their_number(kdsweep, swept, tmp_path):
    kept = tmp_path / "kept"
    shutil.copytree(swept, kept)
    order = load_results(kept).distinct(100)["trial"].tolist()
    for key in order[3:]:
        shutil.rmtree(kept / "trials" / key, ignore_errors=True)
    code, out, err = kdsweep("export", kept, "--out", tmp_path / "out", "--top", "5")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(
        "--top 5: the weights of the best 3 trials were kept (search.keep_weights: 10); accepted: --top 3 or less"
    )
    assert not (tmp_path / "out").exists()


def test_an_evaluation_says_which_training_it_measured(kdsweep, swept, tmp_path):
    _, out, _ = kdsweep("export", swept, "--out", tmp_path, "--top", "1")
    code, out, err = kdsweep("evaluate", out.strip(), "--split", "val")
    assert code == 0
    (row,) = load_results(swept).confirmed.to_dict("records")
    assert err == (
        "these weights are from the search, one training with seed 1; on 2 fresh seeds, its settings reached a mean "
        f"test accuracy of {row['test_accuracy']:.2%}\n"
    )


def test_an_empty_condition_is_refused(kdsweep, swept):
    code, out, err = kdsweep("results", swept, "--where", " ")
    assert (code, out) == (2, "")
    assert err.startswith("--where: found nothing; accepted: a condition such as ")


# validate


def test_validate_says_what_a_sweep_would_do(kdsweep, sweep_file):
    code, out, err = kdsweep("validate", sweep_file, "--set", "search.trials=7", "--set", "train.epochs=3")
    assert code == 0
    assert err == ""
    valid, told = out.splitlines()[:2]
    assert valid == f"{sweep_file}: valid"
    assert told.startswith("small: 7 trials of at most 3 epochs over kd, hint, none; searches ")
    assert not (sweep_file.parent / "runs").exists()


def test_validate_reports_every_fault_with_file_and_line(kdsweep, sweep_file):
    sweep_file.write_text(sweep_file.read_text().replace("epochs: 4", "epoks: 4").replace("[kd, hint", "[kd, hnt"))
    code, out, err = kdsweep("validate", sweep_file)
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"{sweep_file}:") for line in lines)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.trials", "--set search.trials: no '='; accepted: KEY=VALUE, such as search.trials=8"),
        ("search.trials=many", "--set search.trials: found 'many'; accepted: a whole number"),
        ("search.trails=3", "--set search.trails: unknown key 'trails'; did you mean 'trials'?"),
        ("search.trials={", "--set search.trials: not readable as YAML"),
        (
            "objective=val_accuracy",
            "--set objective: found 'val_accuracy'; accepted: {metric: NAME}, or the key objective",
        ),
        ("objective=[3, val_loss]", "--set objective.0: found 3; accepted: the NAME of a metric, or {metric: NAME}"),
        ("=3", "--set : accepted: a dotted path such as search.trials"),
    ],
)
def test_a_wrong_override_is_one_line(override, message, kdsweep, sweep_file):
    for command in ("validate", "run"):
        code, out, err = kdsweep(command, sweep_file, "--set", override)
        assert (code, out) == (2, "")
        assert err.startswith(message)
        assert err.count("\n") == 1
    assert not (sweep_file.parent / "runs").exists()


# What there is


def test_what_a_sweep_file_can_name_is_listed(kdsweep):
    from kdsweep.datasets import DATASETS
    from kdsweep.methods import METHODS
    from kdsweep.models import MODELS
    from kdsweep.search.samplers import SAMPLERS
    from kdsweep.search.stopping import STOPPING_RULES
    from kdsweep.tasks.losses import LOSSES
    from kdsweep.training.optimizers import OPTIMIZERS
    from kdsweep.training.schedules import SCHEDULES

    registries = (METHODS, MODELS, DATASETS, OPTIMIZERS, SCHEDULES, LOSSES, SAMPLERS, STOPPING_RULES)
    for command, registry in zip(LISTS, registries, strict=True):
        code, out, err = kdsweep(command)
        assert (code, err) == (0, "")
        first = {line.split()[0] for line in out.splitlines() if line.strip()}
        stored = {name for name in registry if command == "datasets" and not registry[name].nameable}
        assert set(registry) - stored <= first
        assert not stored & first
        assert bool(stored) == (command == "datasets")


def test_parts_are_listed_with_what_they_do_and_their_defaults(kdsweep):
    _, out, _ = kdsweep("optimizers")
    (sgd,) = (line for line in out.splitlines() if line.split()[:1] == ["sgd"])
    assert "Steps along the gradient, with momentum" in sgd
    assert "lr 0.001, weight_decay 0, momentum 0.9, dampening 0, nesterov false" in sgd


def test_a_method_is_described_with_an_example_that_is_a_sweep_files_space(kdsweep):
    from ruamel.yaml import YAML

    from kdsweep.search.space import SearchSpace

    code, out, err = kdsweep("methods", "dkd")
    assert (code, err) == (0, "")
    assert "arXiv:2203.08679" in out
    assert "temperature" in out
    example = YAML(typ="safe").load(out[out.index("space:") :])
    space = SearchSpace.parse(example["space"])
    assert "dkd" in space.methods()
    assert space.parameters("dkd")["dkd.beta"].written() == {"uniform": [0.5, 10]}


def test_a_sweep_that_has_only_begun_is_shown_as_empty(kdsweep, swept, tmp_path):
    shutil.copy(swept / "spec.yaml", tmp_path)
    assert kdsweep("results", tmp_path) == (0, "", "no rows\n")
    code, out, _ = kdsweep("results", tmp_path, "--format", "csv")
    assert code == 0
    assert out.startswith("trial,number,state,method,width,temperature,alpha,lr,rung.1,rung.3,epochs,val_accuracy")
    code, out, err = kdsweep("export", tmp_path, "--out", tmp_path / "students")
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_a_directory_without_a_sweep_is_refused_without_importing_ray(tmp_path):
    lines = [["resume", str(tmp_path / "nosuch")], ["confirm", str(tmp_path)], ["doctor", str(tmp_path)]]
    code = f"""
import sys
from kdsweep.cli import main
for line in {lines!r}:
    sys.argv = ["kdsweep", *line]
    try:
        main()
    except SystemExit as stopped:
        print(stopped.code, "torch" in sys.modules, "ray" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["2 False False"] * 3
    assert ran.stderr.count("\n") == 3
