"""Lists of transforms in sweep files and search spaces: what is accepted, refused and noted."""

from __future__ import annotations

import pytest
from inputs import SPEC, refused
from typer.testing import CliRunner

from kdsweep.cli import app
from kdsweep.config.load import load_spec, notes
from kdsweep.config.recipes import teacher_recipe, trial_recipe
from kdsweep.errors import SpecError
from kdsweep.search.baseline import plain_twin
from kdsweep.search.proposer import Proposer
from kdsweep.search.space import SearchSpace
from kdsweep.teacher.extent import views_line

MIXED = ["crop", "flip", {"mixup": {"alpha": {"uniform": [0.1, 1.0]}}}]


def values(augment="none", space=None, **sections):
    return {
        "name": "views",
        "dataset": {"name": "mnist_mini", "subset": 2000, "augment": augment} | sections.pop("dataset", {}),
        "teacher": {"model": "mnist_teacher", "width": 0.25, "checkpoint": "kdsweep:mnist_mini_teacher"},
        "student": {"model": "lightnn"},
        "space": {"method": ["kd", "none"], "width": [0.5, 1.0]} | (space or {}),
        "train": {"epochs": 4},
    } | sections


def faults(**given):
    with refused(SPEC, SpecError) as found:
        load_spec(values(**given))
    return list(found.value.faults)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"augment": ["crop", "flop"]}, "dataset.augment.1: unknown transform 'flop'; did you mean 'flip'?"),
        ({"augment": {"mixup": {"alpha": 1}}}, "dataset.augment: found {mixup: {alpha: 1}}; accepted: a list of"),
        ({"augment": "spin"}, "dataset.augment: unknown transform 'spin'"),
        (
            {"augment": ["crop", {"mixup": {"alpha": 0}}]},
            "dataset.augment.1.mixup.alpha: found 0; accepted: a number from 0.01 to 100",
        ),
        (
            {"augment": [{"mixup": {"alpha": {"uniform": [0.1, 1]}}}]},
            "dataset.augment.0.mixup.alpha: found {'uniform': [0.1, 1]}; accepted: a number",
        ),
        (
            {"space": {"augment": {"choice": ["none", [{"cutmix": {"alpha": [0.5, 1000]}}]]}}},
            "space.augment.choice.1.0.cutmix.alpha: found 1000; accepted: a number from 0.01 to 100",
        ),
        (
            {"space": {"augment": [["flip", {"rand_augment": {"magnitude": {"uniform": [1, 9]}}}]]}},
            "space.augment.0.1.rand_augment.magnitude: found {'uniform': [1, 9]}; accepted: a choice, randint or",
        ),
        ({"augment": ["none", "crop"]}, "dataset.augment.0: found none beside transforms; accepted: none"),
        (
            {"space": {"augment": {"choice": ["none", ["crop", "none"]]}}},
            "space.augment.choice.1.1: found none beside transforms; accepted: none alone, or the transforms without",
        ),
        ({"space": {"augment": ["crop_flip", ["crop", "flip"]]}}, "space.augment.1: crop_flip is listed twice"),
        (
            {"space": {"augment": {"choice": [MIXED, [{"mixup": {"alpha": {"uniform": [1, 2]}}}]]}}},
            "space.augment.choice.1: mixup.alpha has two distributions; accepted: the same in every list",
        ),
        ({"space": {"augment": {"uniform": [0, 1]}}}, "space.augment: found {'uniform': [0, 1]}; accepted: a"),
        (
            {"augment": "mixup", "train": {"task_loss": "multi_margin"}},
            "dataset.augment: found mixup, whose mixed labels task_loss multi_margin does not take; accepted:",
        ),
        (
            {"space": {"augment": ["none", ["flip", "cutmix"]], "task_loss": ["cross_entropy", "multi_margin"]}},
            "space.augment: found cutmix, whose mixed labels task_loss multi_margin does not take",
        ),
        ({"dataset": {"views": 3}}, "dataset.views: found 3, which has no effect without augmentation; accepted: 0"),
        (
            {"augment": "flip", "dataset": {"views": 5}},
            "dataset.views: found 5, more than the 4 epochs of a trial, which then never repeats a view; accepted: at",
        ),
        (
            {"augment": "flip", "space": {"augment": ["none", "crop"]}},
            "dataset.augment: found flip, which has no effect beside space.augment, because no teacher is trained here",
        ),
        ({"dataset": {"views": -1}}, "dataset.views: found -1; accepted: at least 0"),
    ],
)  # fmt: skip
def test_a_fault_is_one_line_with_the_path_of_the_key(given, fault):
    (found,) = (line for line in faults(**given) if "\n" not in line)
    assert found.startswith(fault)


def test_a_teacher_that_is_trained_here_is_trained_with_the_augmentation_of_the_data_set():
    trained = {"model": "mnist_teacher", "width": 0.25}
    spec = load_spec(values(augment="flip", space={"augment": ["none", "crop"]}, teacher=trained))
    assert teacher_recipe(spec).augment == "flip"


def test_trials_draw_a_list_and_only_the_numbers_that_it_leaves_open():
    spec = load_spec(values(space={"augment": {"choice": ["none", MIXED, ["crop", "mixup"]]}}, search={"trials": 40}))
    proposer = Proposer.of(spec.search, spec.search_space, 0)
    configs = [proposer.propose(number) for number in range(30)]
    assert {config["augment"] for config in configs} == {"none", "crop+flip+mixup", "crop+mixup"}
    for config in configs:
        assert ("mixup.alpha" in config) is (config["augment"] == "crop+flip+mixup")
        assert spec.search_space.holds(config)
        assert spec.search_space.holds(plain_twin(config))
        recipe = trial_recipe(spec, config, 0)
        if "mixup.alpha" in config:
            assert recipe.augment.startswith("crop+flip+mixup(alpha=0.")
            assert plain_twin(config)["mixup.alpha"] == config["mixup.alpha"]
        else:
            assert recipe.augment == config["augment"]
    assert teacher_recipe(spec).augment == "none"


def test_a_resolved_space_reads_back_as_it_was():
    spec = load_spec(values(space={"augment": {"choice": ["crop_flip", MIXED]}}))
    again = SearchSpace.parse(spec.search_space.written())
    assert again.written() == spec.search_space.written()
    assert again.parameters("kd") == spec.search_space.parameters("kd")


def test_points_name_a_list_by_its_text():
    space = {"augment": {"choice": ["none", MIXED]}}
    given = {"method": "kd", "augment": "crop+flip+mixup", "mixup.alpha": 0.3}
    spec = load_spec(values(space=space, search={"points": [given]}))
    assert given.items() <= Proposer.of(spec.search, spec.search_space, 0).propose(0).items()
    (found,) = faults(space=space, search={"points": [{"method": "kd", "augment": "none", "mixup.alpha": 0.3}]})
    assert found.startswith("search.points.0.mixup.alpha: 'mixup.alpha' has no effect with the point's other values")


def test_a_list_that_leaves_a_range_open_is_noted_because_its_teacher_outputs_are_not_shared():
    wide = load_spec(values(space={"augment": {"choice": ["none", MIXED]}}))
    (note,) = (line for line in notes(wide) if "augment" in line)
    assert note.startswith(
        "space.augment: mixup.alpha: drawn from a range, so each trial has views of its own, and the"
    )
    stepped = [{"mixup": {"alpha": {"quniform": [0.2, 1.0, 0.4]}}}]
    narrow = load_spec(values(space={"augment": {"choice": ["none", stepped]}}))
    assert not any("augment" in line for line in notes(narrow))
    assert narrow.view_sets.texts == ("none", "mixup(alpha=0.2)", "mixup(alpha=0.6)", "mixup")


def test_validate_counts_the_view_sets_and_the_bytes_of_their_outputs(tmp_path):
    # 1800 images x 10 logits of 4 bytes, in one view and in three sets of four views.
    space = {"augment": {"choice": ["none", "crop_flip", [{"mixup": {"alpha": [0.2, 1.0]}}]]}}
    line = views_line(load_spec(values(space=space)))
    assert line.startswith(
        "4 view sets (none, crop_flip, mixup(alpha=0.2), mixup), 13 views in all: at most 0.94 MB of"
    )
    pool = values(space=space, dataset={"views": 2})
    assert ", 7 views in all: at most 0.5 MB of teacher outputs (teacher.cache_gb: 8)" in views_line(load_spec(pool))
    pool["teacher"]["keep_logits"] = 2  # 10 bytes instead of 40
    assert ", 7 views in all: at most 0.13 MB of teacher outputs" in views_line(load_spec(pool))
    path = tmp_path / "views.yaml"
    path.write_text("{dataset: {name: mnist_mini, augment: [crop, mixup]}, teacher: {model: mnist_teacher}, "
                    "student: {model: lightnn}, space: {method: [none]}}")  # fmt: skip
    said = CliRunner().invoke(app, ["validate", str(path)])
    assert "1 view set (crop+mixup): no teacher outputs to store" in said.output.replace("\n", " ")


def test_the_outputs_of_several_teachers_are_added():
    # Two teachers, 10 logits of 4 bytes, 2,000 images.
    assert "at most 0.16 MB of teacher outputs (teacher.cache_gb" in views_line(load_spec("two_teachers"))
