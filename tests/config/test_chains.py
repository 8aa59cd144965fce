"""Students of earlier sweeps as teachers."""

from __future__ import annotations

import json

import pytest

import kdsweep
from kdsweep.config.chains import graduate
from kdsweep.config.load import load_spec
from kdsweep.config.spec import read_spec
from kdsweep.errors import InputError, SpecError
from kdsweep.storage import weights


def test_the_best_student_of_a_sweep_teaches(swept, sweep_file):
    results = kdsweep.load_results(swept)
    (best,) = results.best(1)["trial"]
    spec = load_spec(sweep_file, {"teacher": {"student": f"{swept}/best"}})
    assert (spec.teacher.model, spec.teacher.width) == ("mnist_student", results.config(best)["width"])
    assert spec.teacher.checkpoint == str(results.sweep.trial(best).best)
    assert spec.teacher.student == f"{swept}/best"
    spec.sweep_dir.root.mkdir(parents=True)
    spec.save(spec.sweep_dir.spec)
    assert read_spec(spec.sweep_dir).teacher == spec.teacher


def test_a_trial_a_whole_sweep_and_an_exported_folder_teach(swept, tmp_path):
    results = kdsweep.load_results(swept)
    (best,) = results.best(1)["trial"]
    (folder,) = results.export(tmp_path / "students", top=1)
    expected = weights.load(results.sweep.trial(best).best)
    number = str(int(results.trial(best)["number"]))
    for place in (swept, swept / best, swept / number, swept / "trials" / best, folder):
        found = graduate(str(place))
        assert (found.model, found.width) == ("mnist_student", results.config(best)["width"])
        state = weights.load(found.weights)
        assert state.keys() == expected.keys()
        assert all(state[name].equal(expected[name]) for name in expected)
        assert len(found.class_names) == 10


@pytest.mark.parametrize(("place", "fault"), [
    ("nowhere", "no student at"),
    ("{swept}/9999", "no trial '9999'; accepted: best, or a trial such as"),
    ("{swept}/worst", "no trial 'worst'"),
])  # fmt: skip
def test_a_student_that_is_not_there_is_one_line(swept, sweep_file, place, fault):
    with pytest.raises(SpecError) as caught:
        load_spec(sweep_file, {"teacher": {"student": place.format(swept=swept)}})
    (line,) = caught.value.faults
    assert "teacher.student: " in line
    assert fault in line


def test_settings_beside_a_student_are_refused_unless_they_are_its_own(swept, sweep_file, tmp_path):
    given = {"model": "lightnn", "width": 0.3, "options": {}, "checkpoint": None, "cache_gb": 1.0}
    with pytest.raises(SpecError) as caught:
        load_spec(sweep_file, {"teacher": {"student": f"{swept}/best"} | given})
    found = {fault.partition(": ")[0]: fault.partition(": ")[2] for fault in caught.value.faults}
    assert found.keys() == {"--set teacher.model", "--set teacher.width"}
    assert found["--set teacher.model"] == (
        "found lightnn, beside student, which has its own (mnist_student); leave out one of them"
    )
    spec = load_spec(sweep_file, {"teacher": {"student": f"{swept}/best"}})
    spec.save(tmp_path / "resolved.yaml")  # repeats what the student has
    assert load_spec(tmp_path / "resolved.yaml").teacher == spec.teacher


def test_a_student_of_other_classes_is_refused(swept, sweep_file, tmp_path):
    (folder,) = kdsweep.load_results(swept).export(tmp_path / "students", top=1)
    config = json.loads((folder / "config.json").read_text())
    config["class_names"][3] = "cat"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(SpecError, match="its classes are not those of mnist_mini: '3' and 'cat' differ"):
        load_spec(sweep_file, {"teacher": {"student": str(folder)}})
    (folder / "config.json").write_text(json.dumps(config | {"head": {"kind": "transfer"}}))
    with pytest.raises(InputError, match="a head of its own"):
        graduate(str(folder))


def test_a_student_of_other_inputs_is_refused(swept, sweep_file, tmp_path):
    (folder,) = kdsweep.load_results(swept).export(tmp_path / "students", top=1)
    for place in (swept, folder):
        with pytest.raises(SpecError) as caught:
            load_spec(sweep_file, {"teacher": {"student": str(place)}, "dataset.normalize": "none"})
        (line,) = caught.value.faults
        assert line.startswith(
            "--set teacher.student: was trained with dataset.normalize: dataset, and this sweep has no"
        )
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if key != "dataset"}))
    assert load_spec(sweep_file, {"teacher": {"student": str(folder)}, "dataset.normalize": "none"}).teacher.model


def test_a_missing_student_hides_no_other_fault_and_adds_none(sweep_file):
    with pytest.raises(SpecError) as caught:
        load_spec(sweep_file, {"teacher": {"student": "nowhere"}, "space.method": ["kd", "hnt"], "train.momentum": 0.5})
    assert [fault.split(": ")[0] for fault in caught.value.faults] == ["--set teacher.student", "--set space.method"]
    with pytest.raises(SpecError) as caught:  # a missing key is replaced by an example, which is no fault of the file
        load_spec(
            sweep_file, {"teacher": {"student": "nowhere"}, "student": {"modl": "lightnn"}, "confirm.trainings": 5}
        )
    assert [fault.split(": ")[0] for fault in caught.value.faults] == [
        "--set teacher.student", "--set student.model", "--set student.modl", "--set confirm.trainings",
    ]  # fmt: skip


def test_the_faults_of_several_teachers_are_told_where_they_are(sweep_file):
    teachers = """\
teachers:
  a: {student: nowhere, widht: 1}
  b: {model: mnist_techer}
  c: {model: mnist_teacher, train: {momentum: 0.5}}
"""
    lines = sweep_file.read_text().replace("  lr:", "  teacher: [a, b, d]\n  lr:").splitlines(keepends=True)
    sweep_file.write_text("".join([*lines[:2], teachers, *lines[3:]]))
    with pytest.raises(SpecError) as caught:
        load_spec(sweep_file)
    assert [":".join(fault.removeprefix(str(sweep_file)).split(": ")[:2]) for fault in caught.value.faults] == [
        ":4:teachers.a.widht", ":4:teachers.a.student", ":5:teachers.b.model", ":6:teachers.c.train.momentum",
        ":13:space.teacher",
    ]  # fmt: skip
