"""The report: what it says, that it runs no code from the sweep, and that it is made of whatever there is."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from filelock import FileLock
from made_up import EVIL, begin, confirm, run_trials, spec_of

from kdsweep import cli
from kdsweep.errors import InputError, printable
from kdsweep.results.frames import load_results
from kdsweep.results.report import answer
from kdsweep.results.report.charts import settings, size
from kdsweep.results.report.charts.style import log_ticks
from kdsweep.results.report.page import render, write_report

SECTIONS = ["leaderboard", "size", "gains", "tuning", "learning", "settings", "response", "importance", "classes",
            "confusions", "disagreements", "reliability", "failures", "workers", "repeat"]  # fmt: skip
PLOTS = ("pareto", "gains", "tuning_curves", "learning_curves", "parallel", "response", "importance", "per_class",
         "confusion", "reliability")  # fmt: skip


class Page(HTMLParser):
    """A parsed page: the text of every element by tag, every tag, and the attributes of every tag."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self._open = [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br", "input", "link"):
            self._open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        for tag in set(self._open):
            self.texts[tag][-1] += data

    def attributes(self, tag):
        return [found for name, found in self.tags if name == tag]


@pytest.fixture(scope="session")
def page(made_up):
    return Page(render(load_results(made_up.root), running=False))


def rendered(spec, running=False):
    return Page(render(load_results(spec.sweep_dir.root), running))


# What it says


def test_sections_come_in_order(page):
    assert [found["id"] for found in page.attributes("section")] == SECTIONS


def test_the_answer_names_the_best_student_its_verdict_and_its_size(page, made_up):
    best = load_results(made_up.root).best().iloc[0]
    told = next(text for text in page.texts["p"] if text.startswith("The best student"))
    assert told.startswith(f"The best student, {best['trial']} ({best['method']}, width 1), reaches a test accuracy of")
    assert "91.00% ± 1.00 over 3 fresh seeds (teacher 97.00%)" in told
    verdict = "undecided (corrected p 0.098): about 1 more seed (95 % interval +0.52 to +5.48)"
    assert f"; compared with the same student without the teacher: {verdict}." in told
    assert "It has 16,000 parameters (0.16 MiB), 90.0% smaller than the teacher" in told


def test_the_answer_compares_with_both_plain_students():
    judged = {"seeds": 3, "margin": 0.005}
    for suffix, mean in (("", 0.025), ("_tuned", -0.02)):
        judged |= {
            f"kd_gain{suffix}": mean, f"kd_gain{suffix}_std": 0.003, f"kd_gain{suffix}_low": mean - 0.01,
            f"kd_gain{suffix}_high": mean + 0.01, f"kd_gain{suffix}_p": 0.01, f"more_seeds{suffix}": 0,
            f"failed_seeds{suffix}": 0, f"verdict{suffix}": "gain" if mean > 0 else "loss",
        }  # fmt: skip
    assert answer._gained(judged, "accuracy") == (
        "it is 2.50 points (95 % interval +1.50 to +3.50) better than the same student without the teacher; "
        "it is 2.00 points (95 % interval -3.00 to -1.00) worse than the tuned plain student"
    )


def test_a_tuning_curve_ends_where_its_random_trials_end(made_up):
    results = load_results(made_up.root)
    expected = results.tuning_curves(32).set_index("method")["trials"].to_dict()
    curves = [trace for trace in results.plot_tuning_curves().data if trace.fill is None]
    assert len(curves) > 1
    for trace in curves:
        trials = expected["none" if trace.name == "plain" else trace.name]
        assert list(trace.x) == list(range(1, min(32, trials) + 1))


def test_the_leaderboard_has_a_row_per_trial_in_the_order_of_best_and_failed_ones_last(page, made_up):
    results = load_results(made_up.root)
    rows = [found for found in page.attributes("tr") if "data-trial" in found]
    best = results.best(100)["trial"].tolist()
    assert [row["data-trial"] for row in rows[: len(best)]] == best
    assert {row["data-state"] for row in rows[len(best) :]} == {"failed"}
    assert len(rows) == 40


def test_only_students_with_weights_have_an_export_command(tmp_path):
    spec = spec_of(tmp_path)
    begin(spec)
    run_trials(spec, 3)
    keys = load_results(spec.sweep_dir.root).trials["trial"].tolist()
    folder = spec.sweep_dir.trial(keys[1])
    folder.root.mkdir(parents=True)
    folder.best.touch()
    commands = [text for text in rendered(spec).texts["code"] if "--trial" in text]
    command = f"kdsweep export made-up --out students --trial {keys[1]}"
    assert commands == [command, f"{command} --onnx"]


def test_every_chart_has_a_sentence_with_its_numbers(page):
    described = {found["aria-describedby"] for found in page.attributes("div") if found.get("role") == "img"}
    captions = {found["id"] for found in page.attributes("figcaption")}
    assert described == captions
    assert len(captions) == 14
    assert all(re.search(r"\d", text) for text in page.texts["figcaption"])


def test_gains_have_a_point_per_seed(made_up):
    figure = load_results(made_up.root).plot_gains()
    seeds, means = figure.data
    assert sorted(seeds.x) == pytest.approx([2, 2, 3, 3, 4, 4])
    assert means.x == pytest.approx([3, 3])
    assert means.error_x.array == pytest.approx([2.484, 2.484], abs=0.01)  # 4.303 / sqrt(3): Student's t, 2 degrees


def test_the_front_is_that_of_the_frame(made_up):
    results = load_results(made_up.root)
    front = size.front_of(results.best(100), "parameters", results.goal)
    assert front["trial"].tolist() == results.pareto()["trial"].tolist()


def test_latency_is_a_chart_and_a_column_if_it_was_measured(made_up):
    results = load_results(made_up.root)
    results.trials = results.trials.assign(latency_ms=2.5)
    results.__dict__["teacher"] = results.teacher | {"latency_ms": 10.0}
    page = Page(render(results, running=False))
    assert "chart-size-latency_ms" in {found.get("id") for found in page.attributes("div")}
    assert "latency (ms)" in page.texts["th"]
    assert "takes 2.5 ms per sample instead of 10 ms" in page.texts["p"][1]


def test_lines_of_the_parallel_coordinates_are_trials_and_unused_settings_are_marked(made_up):
    results = load_results(made_up.root)
    figure = results.plot_parallel()
    lines = [key for trace in figure.data[:-1] for key in trace.meta["lines"]]
    measured = results.best(100)
    assert sorted(lines) == sorted(measured["trial"])
    keys = figure.data[-1].meta["trials"]
    axes = {axis["name"]: dict(zip(keys, axis["heights"], strict=True)) for axis in figure.data[-1].meta["axes"]}
    assert list(axes) == ["method", "width", "temperature", "alpha", "dkd.beta", "val_accuracy"]
    plain = set(measured.loc[measured["method"] == "none", "trial"])
    assert {key for key, height in axes["temperature"].items() if height == settings.UNUSED} == plain
    assert axes["val_accuracy"][measured.loc[measured["val_accuracy"].idxmax(), "trial"]] == 1


def test_every_plot_is_a_figure_with_data(made_up):
    results = load_results(made_up.root)
    for name in PLOTS:
        assert getattr(results, f"plot_{name}")().data, name


# What it must not do


def test_the_policy_allows_only_the_scripts_and_styles_of_the_page(page):
    policy = next(found["content"] for found in page.attributes("meta") if "http-equiv" in found)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["img-src"] == "data:"
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert "unsafe" not in policy
    assert "http" not in policy

    def hashed(text):
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    kinds = [found.get("type") for found in page.attributes("script")]
    assert kinds == ["application/json", None, None]
    assert rules["script-src"].split() == [hashed(text) for text in page.texts["script"][1:]]
    assert hashed(page.texts["style"][0]) in rules["style-src-elem"].split()


def test_nothing_is_loaded_from_elsewhere(page):
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base"), attributes
        assert attributes.get("src", "data:image/").startswith("data:image/")
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        assert attributes.get("href", "#").startswith("#")


def test_texts_of_a_sweep_are_shown_as_text(page):
    shown = printable(EVIL)
    assert any(text == shown for text in page.texts["td"])  # the reason of the failures
    assert any(shown in text for text in page.texts["dd"])  # a class, and the teacher
    assert not page.attributes("b")
    assert "\u202e" not in "".join(page.texts["body"])


def test_labels_of_figures_are_no_markup(made_up):
    results = load_results(made_up.root)
    results.trials = results.trials.assign(method=results.trials["method"].replace("kd", EVIL))
    results.__dict__["confirmed"] = results.confirmed.assign(method=EVIL)
    figures = json.loads(Page(render(results, running=False)).texts["script"][0])
    written = json.dumps(figures)
    assert "&lt;b&gt;bold" in written
    assert "<b>" not in written
    assert "<img" not in written
    assert {"gains", "parallel", "size-parameters", "tuning", "response-alpha"} <= figures.keys()


# Whatever there is


def test_before_the_first_trial_the_report_says_so(tmp_path):
    spec = spec_of(tmp_path)
    spec.sweep_dir.root.mkdir()
    spec.save(spec.sweep_dir.spec)
    page = rendered(spec)
    assert "No trial has finished an epoch yet, so there is no student." in page.texts["p"]
    without = [name for name in SECTIONS if name not in ("confusions", "disagreements", "reliability")]
    assert [found["id"] for found in page.attributes("section")] == without
    assert json.loads(page.texts["script"][0]) == {}
    for name in PLOTS:
        assert not getattr(load_results(spec.sweep_dir.root), f"plot_{name}")().data


def test_a_sweep_whose_trials_all_failed_says_why(tmp_path):
    spec = spec_of(tmp_path, search={"sampler": "random", "trials": 2})
    begin(spec)
    run_trials(spec, 0)
    from kdsweep.search.study import Study
    from kdsweep.search.trial import State

    study = Study(spec, spec.sweep_dir, spec.search_space)
    while (trial := study.ask()) is not None:
        study.finish(trial.key, State.FAILED, "out of memory")
    study.close()
    page = rendered(spec)
    assert "All 2 trials failed, so there is no student." in page.texts["p"]
    assert "out of memory" in page.texts["td"]


def test_an_unconfirmed_sweep_of_one_method_that_was_interrupted(tmp_path):
    spec = spec_of(tmp_path, space={"method": "kd", "temperature": {"uniform": [2, 8]}, "width": 1})
    begin(spec)
    run_trials(spec, 4)
    page = rendered(spec)
    texts = " ".join(page.texts["p"])
    assert "measured on the one seed of the search and not confirmed" in texts
    assert "The sweep stopped after 4 of 40 trials. To continue it: kdsweep resume made-up" in texts
    assert "No student has been confirmed on fresh seeds." in texts


def test_a_running_sweep_is_recognised_by_its_lock(tmp_path):
    spec = spec_of(tmp_path)
    begin(spec)
    run_trials(spec, 4)
    results = load_results(spec.sweep_dir.root)
    with FileLock(spec.sweep_dir.lock):
        running = write_report(results).read_text()
    assert "The sweep is still running: 4 of 40 trials had ended at 20" in running
    assert "still running" not in write_report(results).read_text()


def test_a_plain_winner_is_called_plain(tmp_path):
    spec = spec_of(tmp_path, space={"method": "none", "width": {"choice": [0.25, 0.5, 1]}})
    begin(spec)
    run_trials(spec, 4)
    assert "(plain, width" in rendered(spec).texts["p"][2]


def test_a_thousand_trials_stay_far_below_the_limit(page, made_up):
    size_now = write_report(load_results(made_up.root), made_up.root / "again.html").stat().st_size
    data = len(page.texts["script"][0])
    assert size_now < 5.2e6
    assert data * 1000 / 40 < 2.5e6


def test_the_report_is_replaced_whole_or_not_at_all(made_up, tmp_path):
    with pytest.raises(InputError, match="report cannot be written"):
        write_report(load_results(made_up.root), tmp_path)
    assert list(tmp_path.iterdir()) == []


# From the command line, and in notebooks


def test_the_command_prints_the_file(made_up, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        sys, "argv", ["kdsweep", "report", str(made_up.root), "--out", str(tmp_path / "new" / "r.html")]
    )
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    out = capsys.readouterr().out.strip()
    assert out == str(tmp_path / "new" / "r.html")
    assert Page((tmp_path / "new" / "r.html").read_text()).texts["h1"] == ["made-up"]


def test_a_notebook_shows_a_short_table_with_texts_as_text(made_up):
    results = load_results(made_up.root)
    results.trials = results.trials.assign(method=EVIL)
    page = Page(results._repr_html_())
    assert len(page.attributes("tr")) == 6
    assert not page.attributes("b")
    assert "made-up: the best 5 of 40 trials" in page.texts["p"]


def test_only_the_report_imports_plotly_and_jinja(made_up):
    code = f"""
import sys
import kdsweep.cli
from kdsweep.results.frames import load_results
results = load_results({str(made_up.root)!r})
results.best(5); results.importance(); results._repr_html_()
print([name for name in ("plotly", "jinja2", "torch", "ray") if name in sys.modules])
results.plot_pareto()
from kdsweep.results.report.page import write_report
write_report(results, running=False)
print([name for name in ("plotly", "jinja2", "torch", "ray") if name in sys.modules])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["[]", "['plotly', 'jinja2']"]


def test_confirmation_from_before_there_were_verdicts(tmp_path):
    spec = spec_of(tmp_path)
    begin(spec)
    run_trials(spec, 20)
    confirm(spec)
    results = load_results(spec.sweep_dir.root)
    results.__dict__["confirmed"] = results.confirmed.assign(verdict="", kd_gain_low=float("nan"))
    assert "its gain has no verdict" in " ".join(Page(render(results, running=False)).texts["p"])


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.208, 0.253, 0.432], ["0.2", "0.3", "0.4", "0.5"]),
        ([4000, 20000, 137000], ["10,000", "30,000", "100,000"]),
        ([1, 1e6], ["1", "10", "100", "1,000", "10,000", "100,000", "1,000,000"]),
        ([7.0], ["6", "6.5", "7", "7.5", "8", "8.5"]),
    ],
)
def test_ticks_of_a_logarithmic_axis_are_whole_numbers_not_digits(values, ticks):
    assert log_ticks(values)["ticktext"] == ticks


def test_plots_of_columns_without_numbers_are_refused(made_up):
    results = load_results(made_up.root)
    for plot in (results.plot_pareto, results.plot_response):
        for column in ("method", "paramters"):
            with pytest.raises(InputError, match=f"no column of numbers '{column}'"):
                plot(column)
