"""Sweeps with several objectives, through the real study and the real frames, on synthetic values."""

from __future__ import annotations

import optuna
import pandas as pd
import pytest
from optuna.storages.journal import JournalFileBackend
from studies import opened

from kdsweep.config.changes import changed_spec
from kdsweep.config.load import load_spec
from kdsweep.config.spec import read_spec
from kdsweep.errors import InputError, SpecError
from kdsweep.results.confirmed import GAIN_COLUMNS, upgraded
from kdsweep.results.frames import load_results, write_frames
from kdsweep.results.report.page import write_report
from kdsweep.search.trial import State
from kdsweep.terminal.summary import print_summary
from kdsweep.terminal.tables import ranked
from kdsweep.tune.driver import confirm

SPACE = {"method": ["kd", "none"], "width": [0.25, 0.5, 1.0], "alpha": {"uniform": [0.1, 0.9]},
         "lr": {"loguniform": [1e-3, 1e-2]}}  # fmt: skip
BASE = {"space": SPACE, "train.epochs": 9, "search.points": [], "scheduler.grace_epochs": 1}
# Accuracy, latency: the front is 0, 3 and 4; 1 and 5 are behind it, 2 behind those.
STORY = [(0.9, 3.0), (0.85, 3.0), (0.8, 3.5), (0.7, 1.0), (0.8, 2.0), (0.65, 1.5)]


def spec_of(sweep_file, **changes):
    spec = load_spec(sweep_file, {**BASE, "objective": ["val_accuracy", "latency_ms"], **changes})
    spec.sweep_dir.root.mkdir(parents=True, exist_ok=True)
    spec.save(spec.sweep_dir.spec)
    return spec


def metrics(epoch, accuracy, latency, parameters=100):
    return {"epoch": epoch, "train_loss": 1.0, "val_loss": 1.0, "val_accuracy": accuracy, "lr": 0.1, "seconds": 0.5,
            "parameters": parameters, "size_mb": 1.0, "latency_ms": latency}  # fmt: skip


def of(config):
    """Accuracy and latency by the configuration alone: wide students are slow and good."""
    near = 1 - abs(config.get("alpha", 0.2) - 0.6) - abs(config["lr"] - 3e-3) * 10
    return 0.5 * near + 0.3 * config["width"], 1 + 4 * config["width"]


def drive(study, limit=10**6):
    """Run trials one at a time for at most `limit` epochs; says whether all ended."""
    done = 0
    while (trial := study.ask()) is not None:
        accuracy, latency = of(trial.config)
        for epoch in range(len(trial.values) + 1, study.spec.train.epochs + 1):
            if done == limit:
                return False
            done += 1
            if study.report(trial.key, metrics(epoch, accuracy * epoch / 9, latency)):
                study.finish(trial.key, State.PRUNED)
                break
        else:
            study.finish(trial.key, State.COMPLETE)
    return True


@pytest.fixture
def told(sweep_file):
    spec = spec_of(sweep_file, **{"scheduler.name": "none", "train.epochs": 2, "search.trials": len(STORY)})
    study = opened(spec)
    for accuracy, latency in STORY:
        trial = study.ask()
        study.report(trial.key, metrics(1, accuracy, latency))
        study.report(trial.key, metrics(2, accuracy - 0.05, latency))
        study.finish(trial.key, State.COMPLETE)
    study.close()
    write_frames(spec.sweep_dir)
    return study


def journal(study):
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(study.sweep.journal)))
    return optuna.load_study(storage=storage, study_name=None)


def test_the_sweep_file_is_resolved_and_read_again(sweep_file):
    spec = spec_of(sweep_file, objective=["val_loss", {"metric": "parameters", "mode": "min"}])
    assert [(goal.column, goal.mode) for goal in spec.goals] == [("val_loss", "min"), ("parameters", "min")]
    assert read_spec(spec.sweep_dir).goals == spec.goals


def test_optuna_sees_both_directions_and_the_values_of_the_best_epoch(told):
    study = journal(told)
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert [trial.values for trial in study.trials] == [list(values) for values in STORY]
    assert sorted(trial.number for trial in study.best_trials) == [0, 3, 4]


def test_results_know_the_front_and_are_ordered_by_rank_then_by_the_first_objective(told):
    results = load_results(told.sweep.root)
    assert list(results.pareto()["number"]) == [0, 4, 3]
    assert list(results.best(9)["number"]) == list(ranked(results)["number"]) == [0, 4, 3, 1, 5, 2]
    assert list(results.trials["latency_ms"]) == [latency for _, latency in STORY]
    columns = list(results.trials.columns)
    assert columns[columns.index("parameters") :][:4] == ["parameters", "size_mb", "flops", "latency_ms"]
    assert list(results.epochs.columns)[-6:] == [*columns[columns.index("parameters") :][:4], "node", "device"]
    assert list(results.candidates(2)["number"]) == [0, 3]
    assert list(results.candidates(9)["number"]) == [0, 4, 3]
    assert results.importance().empty  # of too few trials, and without an error


def test_the_hypervolume_by_hand(told):
    results = load_results(told.sweep.root)
    # From (0.65, 3.5): 0.05 x 2.5 under the fastest, 0.1 x 1.5 under the next, 0.1 x 0.5 under the best.
    assert results.hypervolume() == pytest.approx(0.05 * 2.5 + 0.1 * 1.5 + 0.1 * 0.5)
    assert results.hypervolume({"val_accuracy": 0.0, "latency_ms": 4.0}) == pytest.approx(0.7 * 3 + 0.1 * 2 + 0.1 * 1)
    with pytest.raises(InputError, match="unknown objective 'size_mb'; accepted: latency_ms, val_accuracy"):
        results.hypervolume({"size_mb": 1.0})


def test_the_summary_shows_the_front(told, capsys):
    print_summary(load_results(told.sweep.root))
    out = capsys.readouterr().out
    assert "the Pareto front of val accuracy and latency ms" in out
    assert "3 trials on the front; its hypervolume from the worst value of each objective is 0.325." in out
    keys = [trial.key for trial in sorted(told._kept.trials, key=lambda trial: trial.number)]
    table = out.split("best plain")[0] if "best plain" in out else out
    assert [key in table for key in keys] == [True, False, False, True, True, False]


def test_a_confirmed_student_is_shown_in_its_place_and_its_group_is_not_named(told, capsys):
    results = load_results(told.sweep.root)
    fast = results.trials["trial"][3]
    frame = pd.DataFrame([{"trial": fast, "method": "none", "width": 0.25, "seeds": 1, "judged_seeds": 0,
                           "val_accuracy": 0.95, "test_accuracy": 0.5, "test_accuracy_std": 0.1,
                           "plain_test_accuracy": float("nan"), "tuned_plain_test_accuracy": float("nan"),
                           "first_layer_norm": 1.0}])  # fmt: skip
    frame = frame.reindex(columns=[*frame.columns, *GAIN_COLUMNS])
    results.confirmed = upgraded(frame.assign(verdict="", verdict_tuned=""))
    assert list(results.best(9)["number"]) == [0, 4, 3, 1, 5, 2]
    print_summary(results)
    out = capsys.readouterr().out
    assert fast in out
    assert "50.00% ± 10.00" in out
    assert "Best confirmed student by group" not in out


def test_the_report_and_the_plots_refer_to_the_first_objective(told):
    results = load_results(told.sweep.root)
    text = write_report(results).read_text()
    key = results.trials["trial"][0]
    assert f"The best student by validation accuracy on the Pareto front, {key} (" in text
    assert "latency (ms)" in text
    front = next(trace for trace in results.plot_pareto("latency_ms").data if trace.name == "Pareto front")
    assert (list(front.x), list(front.y)) == ([1.0, 2.0, 3.0], [0.7, 0.8, 0.9])
    assert "latency_ms" in results._repr_html_()


def test_a_spent_budget_pauses_trials_that_a_larger_one_continues(sweep_file):
    changes = {"scheduler.name": "none", "search.trials": 4, "search.max_epochs": 4, "search.plain_share": 0.0,
               "space": {**SPACE, "method": "kd"}}  # fmt: skip
    study = opened(spec_of(sweep_file, **changes))
    first = study.ask()
    for epoch in range(1, 5):
        assert not study.report(first.key, metrics(epoch, epoch / 10, 1.0))
    assert study.over_budget(first.key)
    study.give_back(first.key)
    assert study.done
    study.close()
    write_frames(study.sweep)
    results = load_results(study.sweep.root)
    assert list(results.candidates(3)["trial"]) == [first.key]
    again = opened(spec_of(sweep_file, **{**changes, "search.max_epochs": 99}))
    assert again.ask().key == first.key
    assert again.running[first.key].scores[-1] == (0.4, -1.0)


def test_weights_of_the_whole_front_are_kept_however_long_it_is(sweep_file):
    spec = spec_of(sweep_file, **{"scheduler.name": "none", "train.epochs": 1, "search.trials": 30})
    study = opened(spec)
    for number in range(30):
        trial = study.ask()
        # Every second trial is on the front.
        study.report(trial.key, metrics(1, number / 40 - 0.5 * (number % 2), 1.0 + number))
        study.finish(trial.key, State.COMPLETE)
    assert sorted(trial.number for trial in study._kept.trials) == list(range(0, 30, 2))
    study.close()
    again = opened(spec)
    assert sorted(trial.number for trial in again._kept.trials) == list(range(0, 30, 2))
    again.close()


def test_rungs_stop_those_behind_the_front_and_in_crowded_places(sweep_file):
    spec = spec_of(sweep_file, **{"scheduler.group_by": [], "scheduler.reduction_factor": 2, "search.trials": 9,
                                  "space": {**SPACE, "method": "kd"}})  # fmt: skip
    study = opened(spec)
    stopped = []
    for accuracy, latency in [(0.5, 2.0), (0.4, 3.0), (0.3, 1.0), (0.6, 4.0), (0.2, 3.9)]:
        trial = study.ask()
        stopped.append(study.report(trial.key, metrics(1, accuracy, latency)))
    # Only a trial that half of the others beat is stopped: the second and the last.
    assert stopped == [False, True, False, False, True]
    study.close()


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
@pytest.mark.parametrize("stop_after", [1, 17])
def test_a_study_interrupted_anywhere_goes_on_as_if_it_had_not_been(sampler, stop_after, sweep_file, tmp_path):
    changes = {"search.trials": 30, "search.sampler": sampler, "search.startup_trials": 6}
    if sampler == "nsga2":
        changes["search.sampler"] = {"name": "nsga2", "population": 6}
    whole = opened(spec_of(sweep_file, storage=str(tmp_path / "whole"), **changes))
    assert drive(whole)
    parts = spec_of(sweep_file, storage=str(tmp_path / "parts"), **changes)
    study = opened(parts)
    while not drive(study, limit=stop_after * 4):
        study = opened(parts)  # the one before is not closed, as after SIGKILL
    told = [[(t.number, t.state, t.params, t.values) for t in one._study.get_trials()] for one in (whole, study)]
    assert told[0] == told[1]
    assert [t.number for t in study._kept.trials] == [t.number for t in whole._kept.trials]
    assert whole.counts[State.PRUNED] > 3
    whole.close()
    study.close()


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_samplers_of_several_objectives_do_better_than_random_draws(sampler, sweep_file, tmp_path):
    def volume(name):
        total = 0.0
        for seed in range(3):
            spec = spec_of(sweep_file, **{
                "storage": str(tmp_path / f"{name}{seed}"), "search.sampler": name, "search.trials": 60, "seed": seed,
                "search.startup_trials": 12, "scheduler.name": "none", "train.epochs": 1, "search.plain_share": 0,
                "space": {**SPACE, "method": "kd"},
            })  # fmt: skip
            study = opened(spec)
            while (trial := study.ask()) is not None:
                study.report(trial.key, metrics(1, *of(trial.config)))
                study.finish(trial.key, State.COMPLETE)
            study.close()
            write_frames(spec.sweep_dir)
            total += load_results(spec.sweep_dir.root).hypervolume({"val_accuracy": 0.5, "latency_ms": 5.0})
        return total

    assert volume(sampler) > volume("random")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"objective": ["val_accuracy", "latency"]},
            r"objective\.1\.metric: unknown metric 'latency'; .*, or a cost: .*, latency_ms",
        ),
        (
            {"objective": ["val_accuracy", "val_accuracy"]},
            r"objective\.1\.metric: found 'val_accuracy' twice; accepted: d",
        ),
        (
            {"objective": ["val_accuracy", {"metric": "size_mb", "mode": "max"}]},
            r"objective\.1\.mode: found 'max'; accepted: 'min', which is best for size_mb",
        ),
        (
            {"objective": ["latency_ms", "val_accuracy"]},
            r"objective\.0\.metric: found 'latency_ms'; accepted: a metric on",
        ),
        (
            {"objective": {"metric": "parameters"}},
            r"objective\.metric: found 'parameters'; accepted: a metric on the val",
        ),
        ({"objective": ["val_accuracy"]}, r"objective: found 1 in a list; accepted: 2 to 3 objectives; a single one"),
        (
            {"objective": [{"metrc": "val_accuracy"}, "size_mb"]},
            r"objective\.0\.metrc: unknown key 'metrc'; did you mean",
        ),
        ({"objective": {"metrc": "val_accuracy"}}, r"objective\.metrc: unknown key 'metrc'; did you mean 'metric'"),
        ({"objective": [1, "size_mb"]}, r"objective\.0: found 1; accepted: the NAME of a metric, or \{metric: NAME\}"),
        (
            {"objective": ["val_accuracy", "size_mb"], "search.sampler": "kdsweep.search.samplers.base:Sampler"},
            r"search\.sampler: found 'kdsweep.*', which handles one objective; accepted with several objectives: grid,",
        ),
    ],
)
def test_objectives_that_make_no_sense_are_refused_in_one_line(changes, message, sweep_file):
    with pytest.raises(SpecError, match=message) as caught:
        load_spec(sweep_file, changes)
    assert len(str(caught.value).splitlines()) == 1


WHOLE = {"objective": ["val_accuracy", "size_mb"]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"scheduler.name": "asha-promotion"},
            r"scheduler\.name: found 'asha-promotion', which handles one objective; .*: asha, none, or",
        ),
        (
            {"scheduler.name": {"name": "asha", "pooled": True}},
            r"scheduler\.name\.pooled: found true, which compares .* one objective; .*: false; or group_by: \[\]",
        ),
        (
            {"space.width": {"uniform": [0.25, 1.0]}},
            r"scheduler\.group_by: found 'width', drawn from a range, .*: \[\], or a finite width",
        ),
        (
            {"search.balance": "width"},
            r"search\.balance: found 'width', which compares values of one objective; .*: none",
        ),
        ({"confirm.seeds": "auto"}, r"confirm\.seeds: found 'auto', which selects students by one .*: a number"),
    ],
)
def test_settings_that_handle_one_objective_are_refused_in_one_line(changes, message, sweep_file):
    with pytest.raises(SpecError, match=message) as caught:
        load_spec(sweep_file, {**WHOLE, **changes})
    assert len(str(caught.value).splitlines()) == 1
    load_spec(sweep_file, changes)  # accepted with one objective


def test_a_width_from_a_range_is_accepted_if_it_makes_no_groups(sweep_file):
    changes = {**WHOLE, "space.width": {"uniform": [0.25, 1.0]}}
    load_spec(sweep_file, {**changes, "scheduler.group_by": []})
    load_spec(sweep_file, {**changes, "scheduler.name": "none"})


def test_sweeps_with_several_objectives_take_nothing_from_others_and_give_nothing(told, sweep_file):
    there = {"search.warm_start": [str(told.sweep.root)], "name": "new"}
    with pytest.raises(SpecError, match=r"warm_start: found 1 directories, .*several objectives: \[\]") as caught:
        load_spec(sweep_file, {**WHOLE, **there})
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(SpecError, match=r"whose objective is val_accuracy and latency_ms; accepted: sweeps with val_a"):
        load_spec(sweep_file, there)


def test_a_sweep_with_several_objectives_cannot_be_changed_into_what_is_refused(told):
    with pytest.raises(SpecError, match=r"--set confirm\.seeds: found 'auto', which selects"):
        changed_spec(told.sweep, {"confirm.seeds": "auto"})
    with pytest.raises(InputError, match="--seeds: found 'auto', which selects students by one objective"):
        confirm(told.sweep.root, seeds="auto")


def test_a_space_cannot_be_changed_into_one_whose_widths_make_no_groups(sweep_file):
    spec = spec_of(sweep_file)
    with pytest.raises(SpecError, match=r"scheduler\.group_by: found 'width', drawn from a range"):
        changed_spec(spec.sweep_dir, {"space.width": {"uniform": [0.25, 1.0]}})
    assert changed_spec(spec.sweep_dir, {"space.width": [0.25, 0.5]}).search_space.shared["width"].size == 2


def test_one_objective_writes_the_same_journal_and_columns_as_ever(sweep_file):
    spec = spec_of(sweep_file, objective={"metric": "val_accuracy"})
    study = opened(spec)
    trial = study.ask()
    for epoch in range(1, 10):
        entry = metrics(epoch, epoch / 10, 1.0)
        del entry["latency_ms"]
        study.report(trial.key, entry)
    study.finish(trial.key, State.COMPLETE)
    study.close()
    (first,) = journal(study).trials
    assert (first.value, len(first.intermediate_values)) == (0.9, 9)
    write_frames(spec.sweep_dir)
    results = load_results(spec.sweep_dir.root)
    assert "latency_ms" not in results.epochs.columns
    assert results.trials["latency_ms"].isna().all()  # not measured yet
    assert isinstance(results.trials["parameters"].dtype, pd.Int64Dtype)
    with pytest.raises(InputError, match="hypervolume: the sweep has one objective, val_accuracy; accepted"):
        results.hypervolume()
