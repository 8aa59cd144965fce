"""A dict is taken wherever a sweep file is."""

from __future__ import annotations

import numpy as np
import pytest
from ruamel.yaml import YAML

import kdsweep
from kdsweep.errors import InputError, SpecError


@pytest.fixture
def values(sweep_file):
    return YAML(typ="safe").load(sweep_file.read_text())


def test_a_dict_gives_the_same_spec_as_the_file(sweep_file, values):
    overrides = {"search.trials": 3, "space.width": {"choice": [0.5]}}
    assert kdsweep.load_spec(values, overrides) == kdsweep.load_spec(sweep_file, overrides)


def test_values_of_numpy_and_pathlib_are_taken_and_the_dict_is_left_as_it_was(values, tmp_path):
    given = values | {
        "seed": np.int64(3),
        "storage": tmp_path / "elsewhere",
        "space": values["space"] | {"width": {"choice": np.linspace(0.25, 0.5, 2)}, "lr": (1e-3, 3e-3)},
    }
    spec = kdsweep.load_spec(given, {"search.trials": np.int32(4), "dataset.root": tmp_path})
    assert (spec.seed, spec.search.trials, spec.storage) == (3, 4, str(tmp_path / "elsewhere"))
    assert spec.space["width"] == {"choice": [0.25, 0.5]}
    assert spec.space["lr"] == [1e-3, 3e-3]
    assert spec.dataset.root == str(tmp_path)
    assert given["search"]["trials"] == 10
    spec.save(spec.sweep_dir.spec)  # nothing in it that YAML cannot hold


def test_faults_name_the_path_of_the_key_in_the_order_of_the_dict_and_all_at_once(values):
    values["train"]["epochs"] = 0
    values["dataset"]["subset"] = "many"
    values["studnet"] = values.pop("student")
    del values["name"]
    with pytest.raises(SpecError) as raised:
        kdsweep.load_spec(values, {"search.trials": 0})
    assert [fault.split(":")[0] for fault in raised.value.faults] == [
        "name", "student", "dataset.subset", "train.epochs", "studnet", "search.trials",
    ]  # fmt: skip
    assert raised.value.faults[3] == "train.epochs: found 0; accepted: at least 1"
    assert not any("--set" in fault or ".yaml" in fault for fault in raised.value.faults)


def test_values_that_yaml_cannot_hold_are_named(values):
    values["student"]["options"] = {"layer": object, "norms": {1, 2}, 3: "three"}
    with pytest.raises(SpecError) as raised:
        kdsweep.load_spec(values)
    assert raised.value.faults == (
        "student.options.3: found key 3; accepted: text",
        "student.options.layer: found type <class 'object'>; accepted: None, bool, numbers, text, lists and dicts",
        "student.options.norms: found set {1, 2}; accepted: None, bool, numbers, text, lists and dicts",
    )
    values["student"]["options"] = values
    with pytest.raises(SpecError, match="contains itself"):
        kdsweep.load_spec(values)


def test_run_takes_a_dict_and_reports_its_faults_before_anything_starts(values, tmp_path):
    with pytest.raises(SpecError, match=r"^search.trials: found 0; accepted: at least 1$"):
        kdsweep.run(values, overrides={"search.trials": 0})
    with pytest.raises(InputError, match="pass them to load_spec"):
        kdsweep.run(kdsweep.load_spec(values), overrides={"search.trials": 1})
    assert not (tmp_path / "runs").exists()
