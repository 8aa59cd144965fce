"""Parts of the report: the leaderboard's gains, the workers' timeline, tuning curves of few trials, paths."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from made_up import begin, confirm, predict, run_trials, spec_of

from kdsweep.errors import InputError
from kdsweep.results.frames import load_results
from kdsweep.results.report import answer, places
from kdsweep.results.report.charts import curves
from kdsweep.results.report.charts.workers import utilisation
from kdsweep.results.report.page import render

STAGES = {
    "search": {"begin": 2.0, "first_step": 3.0, "end": 12.0, "busy": 15.0},
    "confirm": {"begin": 12.0, "first_step": 12.5, "end": None, "busy": 4.0},
}
WORKED = {"timeline": {"workers": 2, "first_epoch": 4.0, "end": 16.0, "stages": STAGES}}
PREPARED = {"prepare": {"begin": 0.0, "first_step": 0.1, "end": 4.0, "busy": 4.0}}
UNUSED = {"search": {"begin": 4.0, "first_step": None, "end": 5.0, "busy": 0.0}}
IDLE = {"timeline": {"workers": 2, "first_epoch": None, "end": 1.0, "stages": PREPARED | UNUSED}}


@pytest.fixture(scope="module")
def unconfirmed(tmp_path_factory):
    spec = spec_of(tmp_path_factory.mktemp("unconfirmed"), search={"sampler": "tpe", "trials": 12, "startup_trials": 6})
    begin(spec)
    run_trials(spec)
    return spec.sweep_dir


# The leaderboard


def test_the_leaderboard_has_both_gains_with_their_intervals(made_up):
    results = load_results(made_up.root)
    judged = results.confirmed.iloc[0].to_dict()
    results.__dict__["confirmed"] = results.confirmed.assign(
        kd_gain_tuned=-0.01, kd_gain_tuned_low=-0.013, kd_gain_tuned_high=-0.007, verdict_tuned="loss",
        more_seeds_tuned=0, kd_gain_tuned_p=0.01, failed_seeds_tuned=0,
    )  # fmt: skip
    board = answer.leaderboard(results, "runs/made-up", 5)
    assert board.gains == ["gain over the plain twin", "gain over the tuned plain student"]
    (row,) = (row for row in board.rows if row.trial == judged["trial"])
    twin = f"{100 * judged['kd_gain_low']:+.2f} to {100 * judged['kd_gain_high']:+.2f}"
    assert row.gains == [
        answer.Gain("+3.00", twin, judged["verdict"]), answer.Gain("-1.00", "-1.30 to -0.70", "loss")
    ]  # fmt: skip


def test_accuracy_stands_before_state_and_settings(made_up, unconfirmed):
    def headings(sweep):
        return re.findall(r"<th[^>]*>([^<]*)</th>", render(load_results(sweep.root), running=False))[:20]

    own = headings(made_up)
    assert own[:4] == ["#", "trial", "validation accuracy", "test accuracy"]
    assert (
        own.index("gain over the tuned plain student")
        < own.index("settings")
        < own.index("parameters")
        < own.index("state")
    )
    without = headings(unconfirmed)
    assert without[:4] == ["#", "trial", "validation accuracy", "method"]
    assert not [name for name in without if name.startswith("gain")]


# The timeline of the workers


def test_every_stage_is_drawn_with_the_share_of_time_that_its_workers_worked():
    chart = utilisation(WORKED)
    busy, idle = chart.figure.data
    assert list(busy.y) == ["search", "confirm"]
    assert (list(busy.base), list(busy.x)) == ([2.0, 12.0], [7.5, 2.0])
    assert (list(idle.base), list(idle.x)) == ([9.5, 14.0], [2.5, 2.0])
    assert list(idle.text) == ["75%", "50%"]
    assert chart.text == "One run with 2 workers: search 10 s, 75% busy; confirm 4 s, 50% busy."


def test_a_resume_that_had_nothing_to_do_leaves_the_runs_before_it():
    chart = utilisation({"starts": [WORKED, IDLE], "workers": [{"start": 0, "node": "a"}], **WORKED})
    assert chart.text == utilisation(WORKED).text
    chart = utilisation({"runs": [WORKED, IDLE, WORKED | {"host": "b"}], **IDLE})
    assert chart.text == utilisation(WORKED).text  # one record twice is one run
    later = {"timeline": WORKED["timeline"] | {"workers": 1, "end": 15.0}}
    chart = utilisation({"runs": [WORKED, IDLE], **later})
    assert list(chart.figure.data[0].y) == ["search (run 1)", "confirm (run 1)", "search (run 2)", "confirm (run 2)"]
    assert list(chart.figure.data[0].base) == [2.0, 12.0, 18.0, 28.0]
    assert chart.text.endswith("Run 2 with 1 worker: search 10 s, 100% busy; confirm 3 s, 100% busy.")


def test_while_a_sweep_prepares_its_preparation_is_shown():
    assert utilisation(IDLE).text == "One run with 2 workers: prepare 4 s, 50% busy."


@pytest.mark.parametrize("environment", [{}, {"timeline": None}, {"timeline": {"workers": "2"}}, {"runs": [1]}])
def test_without_a_recorded_run_the_timeline_says_so(environment):
    chart = utilisation(environment)
    assert chart.empty
    assert chart.text == "No run has recorded the times of its workers."


def test_only_the_latest_of_very_many_runs_are_drawn():
    runs = [{"timeline": WORKED["timeline"] | {"first_epoch": number}} for number in range(100)]
    names = utilisation({"runs": runs}).figure.data[0].y
    assert len(names) == 40
    assert names[-1] == "confirm (run 100)"


def test_the_workers_are_in_the_navigation(made_up):
    assert '<a href="#workers">Workers</a>' in render(load_results(made_up.root), running=False)


def test_texts_on_which_teacher_and_student_disagree_are_shown(tmp_path):
    spec = spec_of(tmp_path)
    begin(spec)
    run_trials(spec)
    confirm(spec)
    predict(spec)
    results = load_results(spec.sweep_dir.root)
    told = [None if image is None else f"<b>text {place}</b> ".encode() * 40
            for place, image in enumerate(results.predictions["image"])]  # fmt: skip
    results.predictions = results.predictions.assign(image=told)
    shown = [place for place, text in enumerate(told) if text]
    page = render(results, running=False)
    assert shown
    for place in shown:
        assert f"<blockquote>&lt;b&gt;text {place}&lt;/b&gt; &lt;b&gt;" in page
    assert page.count("…</blockquote>") == len(shown)
    assert "data:image/" not in page.partition('id="disagreements"')[2].partition("</section>")[0]


# Tuning curves


def test_methods_with_few_random_trials_share_a_curve_and_are_counted(tmp_path):
    methods = ["kd", "dkd", "dist", "nkd", "none"]
    space = {"method": methods, "width": 1, "alpha": {"uniform": [0.1, 0.9]}, "temperature": {"uniform": [1, 9]}}
    spec = spec_of(tmp_path, space=space, search={"sampler": "tpe", "trials": 30, "startup_trials": 14})
    begin(spec)
    run_trials(spec)
    results = load_results(spec.sweep_dir.root)
    counts = results.tuning_curves(4).groupby("method")["trials"].first()
    few = [name for name in methods if counts.get(name, 0) < 3]
    assert few
    chart = curves.tuning(results)
    names = [trace.name for trace in chart.figure.data if trace.fill is None]
    assert set(names) == {"plain" if name == "none" else name for name in methods if name not in few} | {"any method"}
    together = results.tuning_curves(4, pooled=True).groupby("method")["trials"].first()
    assert together["any method"] == counts.drop("none").sum()
    assert together["none"] == counts["none"]
    for name in few:
        assert f"{'plain' if name == 'none' else name} {counts.get(name, 0)}" in chart.text.split("Too few: ")[1]
    assert "a larger search.startup_trials draws more" in chart.text


def test_students_and_budgets_have_tuning_curves_of_their_own(tmp_path):
    space = {"method": ["kd", "none"], "width": 1, "alpha": 0.5, "temperature": {"uniform": [1, 9]},
             "student": ["lightnn", "mnist_student"], "epochs": [3, 6]}  # fmt: skip
    spec = spec_of(tmp_path, student=None, space=space, search={"sampler": "random", "trials": 60},
                   scheduler={"name": "none"})  # fmt: skip
    begin(spec)
    run_trials(spec)
    results = load_results(spec.sweep_dir.root)
    charts = curves.tunings(results)
    groups = [(student, epochs) for student in ("lightnn", "mnist_student") for epochs in (3, 6)]
    assert [chart.text.partition(":")[0] for chart in charts.values()] == [f"{one}, {n} epochs" for one, n in groups]
    for (student, epochs), chart in zip(groups, charts.values(), strict=True):
        expected = results.tuning_curves(32, student=student, budget_epochs=epochs)
        kd = expected[(expected["method"] == "kd") & (expected["n"] <= expected["trials"])]
        (drawn,) = [trace for trace in chart.figure.data if trace.name == "kd" and trace.fill is None]
        assert list(drawn.y) == pytest.approx(kd["expected_best"].tolist(), rel=1e-4)
        own = results.plot_tuning_curves(60, student=student, budget_epochs=epochs)
        assert len(own.data) == len(chart.figure.data)
    page = render(results, running=False)
    assert all(f'id="chart-{name}"' in page for name in charts)
    assert 'id="chart-tuning"' not in page


def test_the_length_and_the_width_of_tuning_curves_are_chosen(made_up):
    results = load_results(made_up.root)
    (longest,) = {max(trace.x) for trace in results.plot_tuning_curves(n=2).data}
    assert longest == 2
    wide = results.plot_tuning_curves(width=1)
    assert {trace.y for trace in wide.data} != {trace.y for trace in results.plot_tuning_curves().data}
    with pytest.raises(InputError, match="^width: found 0.3; accepted: 0.25, 0.5, 1$"):
        results.plot_tuning_curves(width=0.3)
    for wrong in (0, 2.5, "many", True):
        with pytest.raises(InputError, match="accepted: a whole number above 0"):
            results.plot_tuning_curves(n=wrong)


# Paths


def test_the_report_has_no_absolute_path_of_this_machine(tmp_path):
    spec = spec_of(tmp_path / "a folder")
    begin(spec)
    run_trials(spec, 20)
    confirm(spec)
    page = render(load_results(spec.sweep_dir.root), running=False)
    assert str(tmp_path) not in page
    assert "Run the commands where <code>made-up</code> is found" in page
    assert "kdsweep run made-up/spec.yaml --name made-up-again" in page


def test_paths_in_the_current_directory_are_relative_to_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep = tmp_path / "runs" / "my sweep"
    assert places.shortest(sweep) == "'runs/my sweep'"
    assert places.of_file(sweep / "spec.yaml") == "'runs/my sweep/spec.yaml'"
    assert places.shortest(tmp_path.parent / "other") == "other"
    assert places.shortest(places.Path("../x")) == "../x"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("storage: /home/me/runs", "storage: .../runs"),
        ("dataset: {name: x, root: /home/me/data, resize: 0}", "dataset: {name: x, root: .../data, resize: 0}"),
        ("  checkpoint: '/a b/c d.safetensors'", "  checkpoint: '.../c d.safetensors'"),
        ("mlflow: sqlite:////home/me/ml.db", "mlflow: sqlite://.../ml.db"),
        ("mlflow: https://host:5000/path", "mlflow: https://host:5000/path"),
        ("storage: runs/of/mine", "storage: runs/of/mine"),
        ("ratio: 1/2 # a / b", "ratio: 1/2 # a / b"),
    ],
)
def test_absolute_paths_in_a_sweep_file_are_shortened(written, shown):
    assert places.shortened(written) == shown


# Importance


def test_the_report_and_the_dashboard_say_why_their_importances_differ(made_up):
    from kdsweep.results.importance import VERSUS_DASHBOARD
    from kdsweep.serving.dashboard import _note_of_sweep

    results = load_results(made_up.root)
    from optuna.importance import PedAnovaImportanceEvaluator

    from kdsweep.results.importance import BEST_SHARE

    default = inspect.signature(PedAnovaImportanceEvaluator).parameters["target_quantile"].default
    assert (default, BEST_SHARE) == (0.1, 0.25)  # "the best tenth", "the best quarter"
    optuna_dashboard = pytest.importorskip("optuna_dashboard")
    source = (Path(optuna_dashboard.__file__).parent / "_importance.py").read_text()
    assert "evaluator=PedAnovaImportanceEvaluator()," in source
    assert VERSUS_DASHBOARD.replace("'", "&#39;") in render(results, running=False)
    assert VERSUS_DASHBOARD in _note_of_sweep(results)
