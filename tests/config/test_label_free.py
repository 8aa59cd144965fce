"""Sweep files for images without labels."""

from __future__ import annotations

import json
import shutil

import label_free
import pytest
from inputs import SPEC, refused

from kdsweep.config.load import load_spec, notes
from kdsweep.config.sizes import images_line
from kdsweep.config.spec import read_spec
from kdsweep.errors import SpecError
from kdsweep.tasks.image.splits import prepare


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of images and a teacher."""
    root = tmp_path_factory.mktemp("photos")
    return label_free.photos(root / "photos", 40), label_free.teacher(root / "teacher.safetensors")


def load(made, storage, overrides=None):
    return load_spec(label_free.values(*made, storage), overrides)


def test_the_objective_is_the_agreement_and_alpha_is_one(made, tmp_path):
    spec = load(made, tmp_path)
    assert spec.label_free
    assert (spec.goal.metric, spec.goal.mode) == ("val_agreement", "max")
    assert spec.search_space.shared["alpha"].every() == (1.0,)
    assert images_line(spec) == "trains on 32 images, none of them labelled"
    spec.sweep_dir.root.mkdir(parents=True)
    spec.save(spec.sweep_dir.spec)
    assert read_spec(spec.sweep_dir).comparable() == spec.comparable()
    other = load(made, tmp_path, {"objective.metric": "val_divergence", "space.alpha": 1})
    assert other.goal.mode == "min"


def test_everything_that_needs_labels_is_told_at_once(made, tmp_path):
    with refused(SPEC, SpecError) as caught:
        load(made, tmp_path, {
            "space.method": ["kd", "none", "dkd", "kd+crd"], "space.alpha": {"uniform": [0.5, 1]},
            "space.alpha_schedule": "linear", "train.label_smoothing": 0.1, "objective.metric": "val_accuracy",
            "teacher.checkpoint": None, "dataset.unlabelled.root": str(made[0]),
        })  # fmt: skip
    found = sorted(line.removeprefix("--set ") for line in caught.value.faults)
    none = "and the images of unlabelled_folder have none"
    able = found[4].partition("; accepted: ")[2]
    built_in = "at, cc, cosine, ctkd, dist, hint, kd, lskd, mse, nst, ofd, pkt, reviewkd, rkd, simkd, sp, srrl, vid"
    assert set(built_in.split(", ")) <= set(able.split(", "))
    assert not {"none", "dkd", "crd"} & set(able.split(", "))
    assert found == [
        "dataset.unlabelled: found, beside images that all have no labels; put these images below dataset.root",
        "objective.metric: unknown metric 'val_accuracy' of images without labels; accepted: val_agreement, "
        "val_divergence",
        "space.alpha: found {'uniform': [0.5, 1]}, but without labels there is only distillation; accepted: 1",
        "space.alpha_schedule: has no effect without labels; leave it out",
        f"space.method: found dkd, which reads labels, {none}; accepted: {able}",
        f"space.method: found kd+crd, which reads labels in crd, {none}; accepted: {able}",
        f"space.method: found none, the plain student, which learns from labels, {none}; accepted: leave it out",
        "teacher.checkpoint: found none, but without labels no teacher is trained; accepted: a file of trained "
        "weights, or teacher: {student: ...}",
        "train.label_smoothing: has no effect without labels; leave it out",
    ]


@pytest.mark.parametrize(("overrides", "fault"), [
    ({"dataset.classes": None}, "dataset.name: found no class names; accepted: dataset.classes, at least 2"),
    ({"dataset.classes": ["a", "a"]}, "dataset.name: found the class names a, a; accepted"),
    ({"dataset.classes": ["a", "b"]}, "teacher.checkpoint: "),
    ({"dataset.root": "nowhere"}, "no such directory; accepted: a folder of images, or one with train/"),
    ({"dataset.mean": [0.5]}, "dataset.mean: found 1 means and 0 standard deviations; accepted: 3 of each"),
    ({"dataset.mean": [0.5], "dataset.normalize": "none"}, "dataset.mean: found, beside normalize: none; accepted"),
    ({"teachers": {"a": {"model": "mnist_student", "checkpoint": "{teacher}"}}, "teacher": None},
     "teachers: found several, with which students cannot all agree"),
])  # fmt: skip
def test_a_fault_is_one_line(made, tmp_path, overrides, fault):
    if "teachers" in overrides:
        overrides = overrides | {"teachers": {"a": {"model": "mnist_student", "checkpoint": str(made[1])}}}
    with refused(SPEC, SpecError) as caught:
        load(made, tmp_path, overrides)
    (line,) = caught.value.faults
    assert fault in line


def test_other_data_sets_have_classes_of_their_own(sweep_file):
    with refused(SPEC, SpecError, match=r"dataset.classes: found, but the data set has classes of its own"):
        load_spec(sweep_file, {"dataset.classes": ["a", "b"]})


@pytest.fixture
def exported(made, tmp_path):
    """Writes the folder of an exported student with other values in its config.json."""
    student = tmp_path / "student"
    student.mkdir()
    shutil.copy(made[1], student / "model.safetensors")
    known = {
        "head": {}, "class_names": label_free.NAMES, "model": "mnist_student", "width": 1.0, "options": {},
        "dataset": {"normalize": "dataset"}, "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6],
    }  # fmt: skip

    def write(**values):
        (student / "config.json").write_text(json.dumps(known | values))
        return student

    return write


def test_a_grey_teacher_is_one_fault_and_told_as_such(made, tmp_path, exported):
    student = exported(mean=[0.1], std=[0.4])
    with refused(SPEC, SpecError) as caught:
        load(made, tmp_path, {"dataset.classes": None, "teacher": {"student": str(student)}})
    assert caught.value.faults == (
        "teacher.student: takes images of 1 channel, and those of unlabelled_folder have 3 (all files are "
        "converted to RGB); accepted: a student of such images",
    )


def test_a_student_that_is_not_there_and_a_folder_that_is_not_are_one_fault_each(made, tmp_path, exported):
    lost = {"dataset.classes": None, "teacher": {"student": str(tmp_path / "nowhere")}}
    with refused(SPEC, SpecError, match=f"^teacher.student: no student at {tmp_path}/nowhere; ") as caught:
        load(made, tmp_path, lost)
    assert len(caught.value.faults) == 1
    with refused(SPEC, SpecError, match="dataset.root: .*: no such directory") as caught:
        load(made, tmp_path, lost | {"dataset.root": "gone", "teacher": {"student": str(exported())}})
    assert len(caught.value.faults) == 1


def test_images_are_counted_once_without_those_that_are_left_out(made, tmp_path):
    root = tmp_path / "photos"
    shutil.copytree(made[0], root)
    for path in sorted(root.rglob("*.png"))[:3]:
        path.write_bytes(b"not an image")
    changes = {"dataset.root": str(root), "dataset.skip_unreadable": True, "train.batch_size": 100}
    spec = load(made, tmp_path, changes)
    data = prepare(spec.dataset, spec.seed, spec.sweep_dir.store)
    assert sum(data.skipped.values()) == 3
    assert images_line(spec) == f"trains on {data.count('train')} images, none of them labelled"
    there = f"there are {data.count('train')} images to train on"
    assert f"train.batch_size is 100, but {there}: one batch per epoch" in notes(spec)


def test_a_student_brings_its_classes_and_its_normalisation(made, tmp_path, exported):
    student = exported()
    overrides = {"dataset.classes": None, "teacher": {"student": str(student)}}
    spec = load(made, tmp_path, overrides)
    assert (spec.dataset.classes, spec.dataset.mean) == (label_free.NAMES, [0.1, 0.2, 0.3])
    assert spec.dataset.std == [0.4, 0.5, 0.6]
    exported(dataset={"normalize": "imagenet"})
    spec = load(made, tmp_path, overrides)
    assert (spec.dataset.normalize, spec.dataset.mean) == ("imagenet", [])
    with refused(SPEC, SpecError, match="its classes are not those of unlabelled_folder: 'x' and 'ant' differ"):
        load(made, tmp_path, overrides | {"dataset.classes": ["x", *label_free.NAMES[1:]]})
