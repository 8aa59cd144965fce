"""What each teacher gave: the frame, its verdicts, and what the summary and the report say."""

from __future__ import annotations

import json

import made_up
import numpy as np
import pytest

from kdsweep.config.spec import SweepSpec
from kdsweep.results.confirmed import confirmed_frame
from kdsweep.results.designs import FixedSeeds
from kdsweep.results.frames import load_results, write_frame
from kdsweep.results.gains import judge_all
from kdsweep.results.report.page import render
from kdsweep.results.taught import taught_lines
from kdsweep.search.trial import State
from kdsweep.seeds import derived_seed, run_name
from kdsweep.terminal.summary import print_summary
from kdsweep.tune.confirm import chosen_of

SEEDS = 6
# How much better than plain students those of each teacher are, and the spread over seeds.
GIVES = {"big": (0.05, 0.001), "small": (0.01, 0.001), "big+small": (0.049, 0.02), None: (0.0, 0.001)}


def spec_of(root):
    values = made_up.spec_of(root).model_dump()
    model = {"model": "mnist_teacher"}
    del values["teacher"]
    return SweepSpec.model_validate(values | {
        "teachers": {"big": model | {"width": 2.0}, "small": model},
        "space": {"method": ["kd", "none"], "teacher": ["big", "small", "big+small"], "width": [0.25, 0.5]},
        "search": {"sampler": "random", "trials": 60},
        "scheduler": {"name": "none"},
        "confirm": {"top": 6, "seeds": SEEDS},
    })  # fmt: skip


def accuracy(config, seed):
    gain, spread = GIVES[config.get("teacher")]
    noise = np.random.default_rng([seed, len(config.get("teacher", "")), int(100 * config["width"])]).normal()
    return 0.8 + 0.1 * config["width"] + gain + spread * noise


@pytest.fixture(scope="module", name="found")
def confirmed_sweep(tmp_path_factory):
    spec = spec_of(tmp_path_factory.mktemp("taught"))
    sweep = spec.sweep_dir
    sweep.root.mkdir(parents=True)
    spec.save(sweep.spec)
    for name, parameters in (("big", 100_000), ("small", 10_000)):
        folder = sweep.of_teacher(name)
        folder.teacher.mkdir(parents=True)
        folder.teacher_card.write_text(json.dumps({
            "model": f"{name}_model", "origin": "trained", "parameters": parameters, "size_mb": parameters / 1e5,
            "epochs": 5, "val_accuracy": 0.9 if name == "small" else 0.98, "val_loss": 0.1,
        }))  # fmt: skip
        folder.teacher_test.write_text(json.dumps({"test_accuracy": 0.97}))
    teachers = {"big": {"latency_ms": 2.0, "flops": 5}, "small": {"latency_ms": 0.5, "flops": 1}}
    sweep.costs.write_text(json.dumps({"students": [], "teachers": teachers, "device": "cpu", "threads": 1}))
    study = searched(spec)
    results = load_results(sweep.root)
    chosen = chosen_of(results, spec.confirm.top)
    seeds = [derived_seed(spec.seed, "confirm", number) % 2**31 for number in range(SEEDS)]
    design, measured = FixedSeeds(chosen, seeds), {}
    for config, seed in design.wanted({}):
        value = accuracy(config, seed)
        measured[run_name(config, seed)] = {
            "parameters": 100, "size_mb": 0.1, "first_layer_norm": 1.0, "val_accuracy": value, "test_accuracy": value,
        } | ({"test_agreement": 0.9} if "teacher" in config else {})  # fmt: skip
        if "+" in config.get("teacher", ""):
            measured[run_name(config, seed)]["teacher_val_accuracy"] = 0.93
        folder = sweep.confirmation(run_name(config, seed))
        folder.root.mkdir(parents=True, exist_ok=True)
        folder.result.write_text(json.dumps(measured[run_name(config, seed)]))
    write_frame(confirmed_frame(design, measured, spec.goal, spec.gain_margin()), sweep.confirmed_frame)
    assert study.done
    return load_results(sweep.root)


def searched(spec):
    from kdsweep.search.study import Study

    study = Study(spec, spec.sweep_dir, spec.search_space)
    while (trial := study.ask()) is not None:
        for epoch in range(1, 7):
            study.report(trial.key, {
                "epoch": epoch, "train_loss": 1.0, "val_loss": 0.1, "lr": 0.1, "seconds": 0.1, "parameters": 100,
                "val_accuracy": accuracy(trial.config, trial.number) - 0.1 / epoch, "size_mb": 0.1,
            })  # fmt: skip
        study.finish(trial.key, State.COMPLETE)
    study.close()
    return study


def test_the_best_student_of_every_teacher_is_confirmed_at_every_size(found):
    assert found.taught_by == ("teacher",)
    pairs = list(zip(found.confirmed["width"], found.confirmed["teacher"], strict=True))
    assert sorted(pairs) == [(width, name) for width in (0.25, 0.5) for name in ("big", "big+small", "small")]
    assert found.confirmed["kd_gain_tuned"].notna().all()


def test_the_summary_shows_every_confirmed_student(found, capsys):
    print_summary(found)
    table = capsys.readouterr().out.split("trials (")[0]
    assert all(trial in table for trial in found.confirmed["trial"])


def test_each_teacher_is_compared_with_the_best_of_its_size_by_seed_and_holm(found):
    frame = found.taught
    assert list(frame["width"]) == [0.25] * 3 + [0.5] * 3
    differences, expected = {}, {}
    seeds = [derived_seed(found.spec.seed, "confirm", number) % 2**31 for number in range(SEEDS)]
    for _, rows in frame.groupby("width"):
        leader = rows.loc[rows["val_accuracy"].idxmax()]
        assert set(rows["versus"]) == {leader["teacher"]}
        assert leader["versus_verdict"] == ""
        for row in rows[rows["trial"] != leader["trial"]].to_dict("records"):
            pair = [[accuracy(found.config(key), seed) for seed in seeds] for key in (row["trial"], leader["trial"])]
            differences[row["trial"]] = np.subtract(*pair)
            expected[row["trial"]] = row
    verdicts = judge_all(differences, margin=found.spec.gain_margin())
    for trial, row in expected.items():
        assert row["versus_gain"] == pytest.approx(differences[trial].mean())
        assert row["versus_p"] == pytest.approx(verdicts[trial].p)
        assert row["versus_verdict"] == verdicts[trial].verdict
        assert row["versus_low"] <= row["versus_gain"] <= row["versus_high"]
    small = frame[frame["teacher"] == "small"]
    assert (small["versus_verdict"] == "loss").all()
    assert (small["verdict_tuned"] == "gain").all()


def test_the_costs_of_an_ensemble_are_those_of_its_teachers(found):
    costs = found.taught.drop_duplicates("teacher").set_index("teacher")
    assert costs["teacher_parameters"].to_dict() == {"big": 100_000, "small": 10_000, "big+small": 110_000}
    assert costs["teacher_latency_ms"].to_dict() == {"big": 2.0, "small": 0.5, "big+small": 2.5}
    assert costs.loc["big", "teacher_test_accuracy"] == 0.97
    assert np.isnan(costs.loc["big+small", "teacher_test_accuracy"])
    assert costs["teacher_val_accuracy"].to_dict() == {"big": 0.98, "small": 0.9, "big+small": 0.93}
    assert (costs["test_agreement"] == 0.9).all()
    assert found.teacher["model"] == "big_model"
    assert list(found.teachers) == ["big", "small"]


def test_the_summary_and_the_report_say_what_each_teacher_gave(found):
    lines = taught_lines(found, found.taught)
    assert len(lines) == 6
    assert sum("against" in line for line in lines) == 4
    assert all("over the tuned plain student" in line and "agrees with its teacher on 90.00%" in line for line in lines)
    page = render(found, running=False)
    assert "What each teacher gave" in page
    assert page.count('<td class="key">big+small</td>') == 2
    assert page.count('<td class="number">93.00%</td>') == 2
