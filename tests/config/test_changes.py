"""The spec of an existing sweep: edits are detected, and only some settings can change."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import corpus
import pytest
from inputs import SET, SWEEP, refused
from PIL import Image

from kdsweep.config.changes import changeable, changed_spec
from kdsweep.config.load import load_spec
from kdsweep.config.spec import differences, read_spec
from kdsweep.errors import SpecError, SweepDirError
from kdsweep.results.frames import load_results
from kdsweep.storage.paths import SweepDir
from kdsweep.tune.driver import resume

ROOT = Path(__file__).parents[2]
FINISHED = ROOT / "tests" / "data" / "finished_0.1.0"


@pytest.fixture
def sweep(sweep_file):
    """A sweep directory with a saved spec of 10 trials."""
    spec = load_spec(sweep_file)
    spec.save(spec.sweep_dir.spec)
    return spec.sweep_dir


def edit(sweep, old, new):
    text = sweep.spec.read_text()
    assert text.count(old) == 1
    sweep.spec.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        ("epochs: 4\n", "epochs: 2\n", "train.epochs: 4 -> 2"),
        (" trials: 10\n", " trials: 5\n", "search.trials: 10 -> 5"),
        ("metric: val_accuracy", "metric: val_loss", "objective.metric: val_accuracy -> val_loss"),
        ("  grace_epochs: 1\n", "", "scheduler.grace_epochs: 1 -> None"),
        ("choice: [0.25, 0.5]", "choice: [0.25]", "space.width.choice: [0.25, 0.5] -> [0.25]"),
        ("\nstudent:\n", "\nextra: 1\nstudent:\n", "extra: None -> 1"),
    ],
)
def test_an_edited_spec_is_refused_and_the_difference_shown(old, new, change, sweep):
    edit(sweep, old, new)
    for use in (read_spec, lambda at: load_results(at.root).trials, lambda at: resume(at.root, trials=20)):
        with refused(SWEEP, SpecError) as caught:
            use(sweep)
        assert f"spec.yaml:1: edited since the sweep began ({change}); undo the edit" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_edits_that_change_no_value_are_accepted(sweep):
    spec = read_spec(sweep)
    edit(sweep, "storage: ", "# a comment\n\nstorage: /elsewhere # ")
    edit(sweep, "lr: 0.003", "lr: 3e-3")
    edit(sweep, "seed: 0\n", "")
    sweep.spec.write_text(sweep.spec.read_text() + "seed: 0\n")
    assert read_spec(sweep).replaced(storage=spec.storage) == spec


@pytest.mark.parametrize("path", sorted((ROOT / "search_spaces").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_sweep_file_reads_back_unedited(path, tmp_path):
    for split, name, number in itertools.product(("train", "test"), "ab", range(5)):
        (tmp_path / "images" / split / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64)).save(tmp_path / "images" / split / name / f"{number}.png")
    own = {"image_folder": tmp_path / "images", "text": corpus.write(tmp_path / "texts")}
    root = {"dataset.root": str(own[path.stem])} if path.stem in own else {}
    spec = load_spec(path, {"storage": str(tmp_path)} | root)
    spec.save(spec.sweep_dir.spec)
    assert differences(read_spec(spec.sweep_dir).comparable(), spec.comparable()) == []


def test_a_spec_that_was_logged_but_not_yet_written_leaves_the_sweep_readable(sweep):
    before = sweep.spec.read_bytes()
    changed_spec(sweep, {"search.trials": 20}).save(sweep.spec)
    assert read_spec(sweep).search.trials == 20
    sweep.spec.write_bytes(before)  # as if the process had been killed before the file was replaced
    assert read_spec(sweep).search.trials == 10
    changed_spec(sweep, {}).save(sweep.spec)
    assert read_spec(sweep).search.trials == 10


def test_a_sweep_of_version_0_1_0_has_no_log_and_gets_one_when_it_is_resumed(tmp_path):
    sweep = SweepDir(shutil.copytree(FINISHED, tmp_path / "old"))
    spec = changed_spec(sweep, {"search.trials": 50})
    spec.save(sweep.spec)
    edit(sweep, "trials: 50\n", "trials: 40\n")
    with refused(SWEEP, SpecError, match="search.trials: 50 -> 40"):
        read_spec(sweep)


def test_settings_that_leave_trials_comparable_can_change(sweep, tmp_path):
    spec = changed_spec(
        sweep,
        {
            "search.trials": 12, "confirm.top": 2, "confirm": {"top": 3, "seeds": 5}, "resources.max_concurrent": 1,
            "dataset.root": str(tmp_path), "teacher.cache_gb": 1.5, "train.epochs": 4, "search.plain_share": 0.5,
            "confirm.margin": 0.01, "train.cohort": 4,
        },
    )  # fmt: skip
    changes = differences(read_spec(sweep).comparable(), spec.comparable())
    assert changes == [
        "confirm.margin: auto -> 0.01", "confirm.seeds: 2 -> 5", "confirm.top: 1 -> 3",
        f"dataset.root: {ROOT / 'data'} -> {tmp_path}",
        "resources.max_concurrent: auto -> 1", "search.plain_share: 1.0 -> 0.5",
        "search.trials: 10 -> 12", "teacher.cache_gb: 8.0 -> 1.5", "train.cohort: 1 -> 4",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            {"train.epochs": 8},
            "--set train.epochs: 4 -> 8: cannot change in an existing sweep, because schedule cosine spans the budget "
            "in every trial; run a new sweep with another --name and search.warm_start",
        ),
        ({"train.epochs": 2}, "--set train.epochs: 4 -> 2: cannot change in an existing sweep"),
        ({"train": {"epochs": 2, "batch_size": 64}}, "--set train.epochs: 4 -> 2: cannot change"),
        ({"space.width": ["x"]}, "--set space.width: found 'x'; accepted: a number from 0.001 to 100"),
        ({"space.method": ["kd", "hnt"]}, "--set space.method: unknown method 'hnt'; did you mean 'hint'?"),
        ({"space.lrr": 1}, "--set space.lrr: unknown key 'lrr'; did you mean 'lr'?"),
        ({"space.lr": 0.5}, "search.points.0.lr: found 0.003, outside the space; accepted: 0.5"),
        ({"search.points": [{"method": "none"}]}, "; accepted: [], which drops the points that were not tried yet"),
        ({"seed": 1}, "--set seed: 0 -> 1: cannot change"),
        ({"name": "other"}, "--set name: small -> other: cannot change"),
        ({"dataset.subset": 100}, "--set dataset.subset: 1200 -> 100: cannot change"),
        ({"objective.metric": "val_loss"}, "--set objective.metric: val_accuracy -> val_loss: cannot change"),
        ({"search.trials": 9}, "--set search.trials: found 9; accepted: from 10, the present total, to 1000000"),
        ({"search.trials": 10**7}, "--set search.trials: found 10000000; accepted: from 10"),
        ({"search.trials": "many"}, "--set search.trials: found 'many'; accepted: a whole number"),
        ({"confirm.tops": 1}, "--set confirm.tops: unknown key 'tops'; did you mean 'top'?"),
    ],
)
def test_other_settings_and_wrong_values_are_refused_in_one_line(overrides, line, sweep):
    before = sweep.spec.read_bytes(), sweep.specs.read_bytes()
    with refused(SET, SpecError) as caught:
        resume(sweep.root, overrides=overrides)
    assert line in str(caught.value)
    assert len(caught.value.faults) <= 2
    assert (sweep.spec.read_bytes(), sweep.specs.read_bytes()) == before


def test_what_a_call_changes_in_the_sweep_that_it_continues(sweep_file):
    before = load_spec(sweep_file)
    assert changeable(before, load_spec(sweep_file), {}) == {}
    after = load_spec(sweep_file, {"search.trials": 12, "confirm.top": 2, "space.width": {"choice": [0.25, 0.5, 1.0]}})
    expected = {"search.trials": 12, "confirm.top": 2, "space": after.search_space.written()}
    assert changeable(before, after, {}) == expected
    with pytest.raises(SweepDirError, match=r"a different sweep \(rate: 0.001 -> 0.01\); choose another name"):
        changeable(before, load_spec(sweep_file, {"train.lr": 0.01, "search.trials": 12}), {"train.lr": "rate"})
