"""Students and budgets in the search space."""

from __future__ import annotations

import json
from itertools import product

import optuna
import pytest
from studies import opened

from kdsweep.config.load import load_spec
from kdsweep.config.recipes import trial_recipe
from kdsweep.config.spec import SweepSpec
from kdsweep.errors import InputError, SpecError
from kdsweep.results.frames import load_results
from kdsweep.search.baseline import plain_twin, size_of
from kdsweep.search.extent import configurations
from kdsweep.search.faults import point_faults
from kdsweep.search.parsing import SpaceError
from kdsweep.search.proposer import Proposer
from kdsweep.search.section import SearchSection
from kdsweep.search.space import SearchSpace
from kdsweep.search.students import of_label
from kdsweep.search.trial import State

STUDENTS = [
    "mnist_student",
    {"model": "wrn", "options": {"depth": {"choice": [10, 16]}}, "width": {"choice": [1, 2]}},
    "torchvision/resnet18",
]
WRITTEN = {"method": ["kd", "none"], "student": {"choice": STUDENTS}, "width": [0.25, 0.5], "epochs": [2, 6]}
LABELS = ["mnist_student", "wrn(depth=10)", "wrn(depth=16)", "torchvision/resnet18"]
WIDTHS = {"mnist_student": {0.25, 0.5}, "wrn(depth=10)": {1, 2}, "wrn(depth=16)": {1, 2}, "torchvision/resnet18": {1}}
SPACE = SearchSpace.parse(WRITTEN | {"lr": {"loguniform": [1e-4, 1e-2]}})


def spec_of(root, **sections):
    return SweepSpec.model_validate({
        "name": "several",
        "dataset": {"name": "mnist_mini"},
        "teacher": {"model": "mnist_teacher"},
        "space": WRITTEN | {"student": ["mnist_student", "lightnn"]},
        "search": {"sampler": "random", "trials": 40},
        "scheduler": {"name": "asha", "grace_epochs": 1},
        "storage": str(root),
    } | sections)  # fmt: skip


def test_a_student_is_named_by_its_model_and_options():
    assert list(SPACE.students) == LABELS
    for label in [*LABELS, 'torchvision/resnet18(head_hidden=[64, 32], weights="IMAGENET1K_V1")', "my.module:net(a=1)"]:
        assert of_label(label).label == label
    assert of_label("wrn(depth=16)").options == {"depth": 16}


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_every_student_is_drawn_with_its_own_widths_and_options(sampler):
    search = SearchSection(trials=120, sampler=sampler, startup_trials=10)
    proposer = Proposer.of(search, SPACE, 0)
    seen = {label: set() for label in LABELS}
    for number in range(120):
        config = proposer.propose(number)
        assert SPACE.holds(config)
        assert not point_faults(SPACE, config)
        proposer.tell(config, optuna.trial.TrialState.COMPLETE, [0.5])
        seen[config["student"]].add(config["width"])
    assert seen == WIDTHS


def test_the_space_is_written_as_it_is_read():
    again = SearchSpace.parse(SPACE.written())
    assert (again.students, again.shared, again.written()) == (SPACE.students, SPACE.shared, SPACE.written())
    assert again.written()["student"]["choice"][1] == {
        "model": "wrn", "options": {"depth": 10}, "width": {"choice": [1, 2]}
    }  # fmt: skip


def test_the_grid_and_the_count_hold_each_student_only_with_its_widths():
    space = SearchSpace.parse(WRITTEN | {"alpha": 0.5, "temperature": 4, "kd": {"weight": 1.0}})
    grid = list(space.grid())
    assert len(grid) == configurations(space) == 2 * 2 * 7
    assert {(config["student"], config["width"]) for config in grid} == {(s, w) for s in LABELS for w in WIDTHS[s]}
    assert {len(config) for config in grid if config["method"] == "none"} == {4}


def test_constraints_leave_out_students_and_widths():
    space = SPACE.limit_width(lambda label, width: label != "torchvision/resnet18" and width < 2)
    assert list(space.students) == LABELS[:3]
    assert {label: set(width.every()) for label, width in space.widths().items()} == {
        "mnist_student": {0.25, 0.5}, "wrn(depth=10)": {1}, "wrn(depth=16)": {1}
    }  # fmt: skip
    assert SPACE.limit_width(lambda label, width: False) is None


@pytest.mark.parametrize(("student", "fault"), [
    ([], "accepted: a list of models"),
    (["resnet8x5"], "did you mean"),
    (["lightnn", {"model": "lightnn"}], "lightnn is listed twice"),
    ([{"model": "wrn", "depth": 16}], "unknown key 'depth'"),
    ([{"model": "wrn", "options": {"deep": 16}}], "no option 'deep'"),
    ([{"model": "wrn", "options": {"depth": {"uniform": [10, 16]}}}], "accepted: a value, a choice"),
    ([{"model": "lightnn", "width": {"choice": [0]}}], "found 0"),
    ([{"model": "torchvision/resnet18", "width": [0.5]}], "torchvision/resnet18 has no width to vary"),
])  # fmt: skip
def test_a_wrong_student_is_one_fault(student, fault):
    with pytest.raises(SpaceError) as caught:
        SearchSpace.parse(WRITTEN | {"student": student})
    assert len(caught.value.faults) == 1
    assert fault in str(caught.value)


def test_budgets_are_a_choice():
    with pytest.raises(SpaceError, match="accepted: a number or a choice"):
        SearchSpace.parse(WRITTEN | {"epochs": {"randint": [2, 6]}})


def test_a_recipe_has_the_student_and_the_budget_of_its_trial(tmp_path):
    spec = spec_of(tmp_path, space=WRITTEN)
    config = {"method": "none", "student": "wrn(depth=16)", "width": 2, "epochs": 6, "lr": 0.1}
    recipe = trial_recipe(spec, config, seed=0)
    assert (recipe.model, recipe.options, recipe.width) == ("wrn", {"depth": 16}, 2)
    assert recipe.optimization.epochs == 6
    assert recipe.optimization.make_schedule().multiplier(1.0, 0.0) == pytest.approx(0.0)
    assert spec.budgets == (2, 6)


def test_plain_students_are_compared_at_equal_student_width_and_budget():
    config = {"method": "kd", "student": "mnist_student", "width": 0.5, "epochs": 6, "alpha": 0.5, "lr": 0.1}
    assert plain_twin(config) == {"method": "none", **{k: config[k] for k in ("student", "width", "epochs", "lr")}}
    sizes = {size_of(SPACE, {**config, **other}) for other in ({}, {"epochs": 2}, {"student": "wrn(depth=10)"})}
    assert len(sizes) == 3


def drive(study):
    """Run every trial; the accuracy rises with the budget and the number, and differs by student."""
    while (trial := study.ask()) is not None:
        while True:
            epoch, config = len(trial.values) + 1, trial.config
            value = 0.5 + 0.01 * config["epochs"] + 0.1 * (config["student"] == "lightnn") - 0.001 * trial.number
            stop = study.report(trial.key, {
                "epoch": epoch, "train_loss": 1.0, "val_loss": 1.0, "val_accuracy": value + 1e-4 * epoch, "lr": 0.1,
                "seconds": 0.1, "parameters": 100, "size_mb": 0.1,
            })  # fmt: skip
            if stop:
                study.leave(trial.key)
                break
            if epoch == config["epochs"]:
                study.finish(trial.key, State.COMPLETE)
                break


@pytest.fixture(name="rules", params=["asha", "asha-promotion", "none"])
def search_with(request, tmp_path):
    scheduler = {"name": request.param} | ({} if request.param == "none" else {"grace_epochs": 1})
    spec = spec_of(tmp_path, scheduler=scheduler)
    spec.sweep_dir.root.mkdir(parents=True)
    spec.save(spec.sweep_dir.spec)
    study = opened(spec)
    drive(study)
    return spec, study


def test_every_group_trains_a_trial_and_a_plain_one_to_its_own_budget(rules):
    spec, study = rules
    assert study.done
    trials = load_results(spec.sweep_dir.root).trials
    complete = trials[trials["state"] == "COMPLETE"]
    assert (complete["epochs"] == complete["budget_epochs"]).all()
    assert (trials["epochs"] <= trials["budget_epochs"]).all()
    groups = ["student", "budget_epochs", "width"]
    plain = set(complete[complete["method"] == "none"].groupby(groups).groups)
    assert plain == set(product(("lightnn", "mnist_student"), (2, 6), (0.25, 0.5)))
    again = opened(spec)
    assert (again.done, again.counts) == (True, study.counts)


def test_a_trial_is_judged_only_with_trials_of_its_budget(tmp_path):
    points = [{"method": "kd", "student": "lightnn", "width": 0.5, "epochs": epochs} for epochs in (6, 6, 6, 2)]
    spec = spec_of(tmp_path, search={"sampler": "random", "trials": 4, "points": points, "plain_share": 0})
    study = opened(spec)
    stopped = []
    for value in (0.9, 0.8, 0.7, 0.1):
        metrics = {"epoch": 1, "val_accuracy": value, "seconds": 0.1}
        stopped.append(study.report(study.ask().key, metrics))
    # The trial of 2 epochs is the worst by far, and the first of its budget.
    assert stopped == [False, True, True, False]


def test_results_tell_the_student_and_compare_within_its_group(rules):
    spec, _ = rules
    results = load_results(spec.sweep_dir.root)
    assert results.group_by == ("student", "budget_epochs", "width")
    chosen = results.candidates(8)
    assert len(chosen.groupby(["student", "budget_epochs", "width"])) == 8
    row = chosen.to_dict("records")[0]
    (plain,) = results.plain(like=row).to_dict("records")
    assert all(plain[name] == row[name] for name in results.group_by)
    assert json.loads(row["config"])["epochs"] == row["budget_epochs"]
    effort = results.effort()
    assert list(effort.columns[:4]) == ["student", "budget_epochs", "width", "method"]
    assert effort["trials"].sum() == 40
    curves = results.tuning_curves(student="lightnn", budget_epochs=6, width=0.5)
    drawn = results.trials.query("student == 'lightnn' and budget_epochs == 6 and width == 0.5")
    assert curves.drop_duplicates("method")["trials"].sum() <= len(drawn)
    with pytest.raises(InputError, match="^student: found 'lightn'; did you mean 'lightnn'. accepted: lightnn, mnist"):
        results.tuning_curves(student="lightn")
    with pytest.raises(InputError, match="^budget_epochs: found 7; accepted: 2, 6$"):
        results.tuning_curves(budget_epochs=7)


FLAT = """
from torch import nn


def flat(input_shape, num_classes, width):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 8), nn.ReLU(), nn.Linear(8, num_classes))
"""


def test_validate_refuses_a_method_that_does_not_fit_a_student_in_one_line(sweep_file, tmp_path, monkeypatch):
    (tmp_path / "flat_student.py").write_text(FLAT)
    monkeypatch.chdir(tmp_path)
    sweep_file.write_text(sweep_file.read_text().replace("student: {model: mnist_student}\n", ""))
    students = {"choice": ["mnist_student", "flat_student:flat"]}
    with pytest.raises(SpecError) as caught:
        load_spec(sweep_file, {"space": {"method": ["kd", "at"], "student": students}, "search.points": []})
    assert len(caught.value.faults) == 1, caught.value.faults
    (line,) = caught.value.faults
    assert "space.method: at with flat_student:flat: " in line
    assert line.endswith("leave out the method or the student")
    assert (
        load_spec(sweep_file, {"space": {"method": ["kd", "none"], "student": students}, "search.points": []}).student
        is None
    )


def test_student_and_space_student_together_are_refused(sweep_file):
    with pytest.raises(SpecError, match=r"beside space\.student"):
        load_spec(sweep_file, {"space": {"method": ["kd"], "student": ["lightnn"]}})


def test_the_first_rung_must_lie_within_the_smallest_budget(sweep_file):
    given = {"space.epochs": [2, 9], "scheduler.grace_epochs": 3, "train": {"batch_size": 64}}
    with pytest.raises(InputError, match=r"space\.epochs \(2\)"):
        load_spec(sweep_file, given)


def test_the_budget_that_the_space_replaces_is_refused_and_limits_nothing(sweep_file):
    with pytest.raises(SpecError) as caught:
        load_spec(sweep_file, {"space.epochs": [2, 9]})
    (line,) = caught.value.faults
    assert line.endswith("train.epochs: found 4, which has no effect beside space.epochs; leave it out, or list it in "
                         "space.epochs")  # fmt: skip
    train = {"batch_size": 64, "warmup_epochs": 25.0}  # within 30 epochs, not within the default of 20
    spec = load_spec(sweep_file, {"space.epochs": [30, 40], "train": train, "scheduler": {}})
    assert spec.budgets == (30, 40)
    with pytest.raises(SpecError, match=r"train\.warmup_epochs: found 25; accepted: at most the 20 epochs"):
        load_spec(sweep_file, {"space.epochs": [20, 40], "train": train, "scheduler": {}})
