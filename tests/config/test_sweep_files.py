"""Sweep files: what is accepted, what is refused, and how."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kdsweep.config.load import load_spec
from kdsweep.config.spec import read_spec
from kdsweep.errors import SpecError

# What is wrong, how the small sweep file is changed, and what the line must say. Line numbers are those of the file.
FAULTS = {
    "unknown key": (
        "train: {epochs",
        "train: {epoks: 3, epochs",
        ":11: train.epoks: unknown key 'epoks'; did you mean 'epochs'?",
    ),
    "unknown section": (
        "storage:",
        "storrage: x\nstorage:",
        ":15: storrage: unknown key 'storrage'; did you mean 'storage'?",
    ),
    "duplicate key": ("storage:", "name: again\nstorage:", ':15: duplicate key "name"; accepted: each key once'),
    "string number": ("epochs: 4", 'epochs: "4"', ":11: train.epochs: found '4'; accepted: a whole number"),
    "inverted range": (
        "[2, 8]",
        "[8, 2]",
        ":8: space.temperature: loguniform range is inverted: [8, 2]; accepted: low <= high",
    ),
    "log range from 0": (
        "[2, 8]",
        "[0, 2]",
        ":8: space.temperature: loguniform starts at 0; accepted: a bound above 0",
    ),
    "unknown method": ("[kd, hint, none]", "[kd, hnt]", ":6: space.method: unknown method 'hnt'; did you mean 'hint'?"),
    "sum with none": (
        "[kd, hint, none]",
        "[kd+none]",
        ":6: space.method: found 'kd+none'; accepted: a sum of different methods",
    ),
    "unknown model": (
        "model: mnist_student",
        "model: mnist_studnt",
        ":4: student.model: unknown model 'mnist_studnt'; did you mean 'mnist_student'?",
    ),
    "unknown option": ("model: mnist_student", "model: mnist_student, options: {depth: 3}", ":4: student.options: "),
    "unknown data set": (
        "name: mnist_mini",
        "name: mnist_min",
        ":2: dataset.name: unknown dataset 'mnist_min'; did you mean 'mnist_mini'?",
    ),
    "alpha outside 0..1": (
        "uniform: [0.3, 0.9]",
        "uniform: [0.3, 1.9]",
        ":9: space.alpha: found 1.9; accepted: a number from 0 to 1",
    ),
    "negative epochs": ("epochs: 4", "epochs: -4", ":11: train.epochs: found -4; accepted: at least 1"),
    "grace over budget": (
        "grace_epochs: 1",
        "grace_epochs: 5",
        ":13: scheduler.grace_epochs: found 5; accepted: at most train.epochs (4)",
    ),
    "empty choice": ("choice: [0.25, 0.5]", "choice: []", ":7: space.width: choice of nothing"),
    "no method": (
        "  method: [kd, hint, none]\n",
        "",
        ":5: space.method: missing; accepted: a list of methods such as [kd, dkd, none]",
    ),
    "wrong type": (
        "train: {epochs: 4, batch_size: 64}",
        "train: fast",
        ":11: train: found 'fast'; accepted: a mapping of keys",
    ),
    "missing checkpoint": (
        '"kdsweep:mnist_mini_teacher"',
        "gone.safetensors",
        ":3: teacher.checkpoint: no such file: ",
    ),
    "unknown shipped checkpoint": (
        "mnist_mini_teacher",
        "mnist_mini_techer",
        ":3: teacher.checkpoint: kdsweep comes with no file",
    ),
    "zero width": (
        "choice: [0.25, 0.5]",
        "choice: [0, 0.5]",
        ":7: space.width: found 0; accepted: a number from 0.001 to 100",
    ),
    "unknown distribution": (
        "loguniform: [2, 8]",
        "logunform: [2, 8]",
        ":8: space.temperature: unknown distribution 'logunform'; did you mean 'loguniform'?",
    ),
    "unknown parameter of a method": (
        "  lr:",
        "  kd: {wieght: 2}\n  lr:",
        ":10: space.kd.wieght: unknown parameter 'wieght' of kd; did you mean 'weight'?",
    ),
    "unknown key of the space": ("  lr:", "  lrr: 1\n  lr:", ":10: space.lrr: unknown key 'lrr'; did you mean 'lr'?"),
    "point outside the space": (
        "alpha: 0.9, lr",
        "alpha: 0.95, lr",
        ":12: search.points.0.alpha: found 0.95, outside the space",
    ),
    "point of a method that is not searched": (
        "points: [{method: kd,",
        "points: [{method: dkd,",
        ":12: search.points.0.method: 'dkd' is not searched",
    ),
    "group by what is not drawn": (
        "grace_epochs: 1",
        "group_by: [widht]",
        ":13: scheduler.group_by: found 'widht'; did you mean 'width'?",
    ),
    "grid over a range": (
        "search: {trials",
        "search: {sampler: grid, trials",
        ":8: space.temperature: sampler grid cannot enumerate",
    ),
    "storage that is no path": ("storage: ", "storage: s3://bucket/", ":15: storage: found 's3://bucket/"),
    "name that leaves the storage": (
        "name: small",
        "name: ../small",
        ":1: name: found '../small'; accepted: letters, digits",
    ),
    "subset too small to split": ("subset: 1200", "subset: 1", ":2: dataset.subset: found 1; accepted: at least 3"),
    "not a number": ("epochs: 4", "lr: .nan, epochs: 4", ":11: train.lr: found nan; accepted: "),
    "a tag": ("epochs: 4", "epochs: !!python/object:os.system 4", ":11: found the tag "),
    "an alias": ("name: small", "name: &n small\nseed: *n", ":2: found an alias; accepted: plain YAML values"),
    "unreadable YAML": ("train: {epochs", "train: {{epochs", ": not readable as YAML: "),
    "imagenet statistics for grey images": (
        "subset: 1200",
        "normalize: imagenet",
        ":2: dataset.normalize: found 'imagenet'; accepted: dataset or none",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line_with_file_and_line(fault, sweep_file):
    before, after, message = FAULTS[fault]
    written = sweep_file.read_text()
    assert before in written
    sweep_file.write_text(written.replace(before, after, 1))
    with pytest.raises(SpecError) as caught:
        load_spec(sweep_file)
    lines = [line for line in str(caught.value).splitlines() if message in line]
    assert len(lines) == 1, caught.value
    assert lines[0].startswith(str(sweep_file))
    assert not sweep_file.parent.joinpath("runs").exists()


def test_all_faults_are_reported_at_once(sweep_file):
    text = sweep_file.read_text()
    for fault in ("unknown key", "unknown method", "unknown data set", "alpha outside 0..1", "zero width"):
        before, after, _ = FAULTS[fault]
        text = text.replace(before, after, 1)
    sweep_file.write_text(text)
    with pytest.raises(SpecError) as caught:
        load_spec(sweep_file)
    assert len(caught.value.faults) == 5
    assert len(str(caught.value).splitlines()) == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ":1: found nothing; accepted: a mapping"),
        (b"- a\n- b\n", ":1: found CommentedSeq; accepted: a mapping"),
        (b"\xff\xfe\x00name", ":1: not UTF-8 text"),
        (b"name: [" * 3000, "not readable as YAML"),
        (b"name: 2020-01-01\n", ":1: name: found date 2020-01-01; accepted: plain YAML values"),
        (b"1: x\n", ":1: 1: found key 1; accepted: a word"),
        (b"x: " + b"y" * 1_000_001, ":1: larger than 1000000 bytes"),
    ],
)
def test_a_file_that_is_no_sweep_file_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "odd.yaml"
    path.write_bytes(content)
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_checkpoint_of_other_shapes_is_refused_before_anything_starts(sweep_file, tmp_path):
    import torch
    from safetensors.torch import save_file

    from kdsweep import models

    model = models.build("mnist_teacher", (1, 28, 28), 10, width=0.125)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "narrow.safetensors")
    save_file({"classifier.weight": torch.zeros(7, 3)}, tmp_path / "classes.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors here")
    shipped = '"kdsweep:mnist_mini_teacher"'
    text = sweep_file.read_text()
    for name, message in {
        "narrow": ":3: teacher.checkpoint: checkpoint ",
        "classes": ":3: teacher.checkpoint: checkpoint ",
        "text": "unreadable: ",
    }.items():
        sweep_file.write_text(text.replace(shipped, str(tmp_path / f"{name}.safetensors")))
        with pytest.raises(SpecError) as caught:
            load_spec(sweep_file)
        assert message in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


def test_overrides_replace_values_and_say_so_when_wrong(sweep_file):
    spec = load_spec(sweep_file, {"search.trials": 7, "space.width": {"choice": [0.5]}, "confirm": {"top": 0}})
    assert spec.search.trials == 7
    assert spec.search_space.shared["width"].written() == {"choice": [0.5]}
    assert spec.confirm.top == 0
    with pytest.raises(SpecError, match=r"^--set: search.trials: found 'many'; accepted: a whole number$"):
        load_spec(sweep_file, {"search.trials": "many"})
    with pytest.raises(SpecError, match=r"--set name.first: name is 'small'; accepted: a path through mappings"):
        load_spec(sweep_file, {"name.first": 1})


def test_numbers_are_read_as_yaml_1_2_and_paths_become_absolute(sweep_file):
    text = sweep_file.read_text().replace("confirm:", "constraints: {parameters: 100_000}\nconfirm:")
    sweep_file.write_text(text.replace("epochs: 4", "lr: 5e-4, epochs: 4"))
    spec = load_spec(sweep_file)
    assert spec.train.lr == 0.0005
    assert spec.constraints.parameters == 100_000
    assert spec.dataset.root.startswith("/")


def test_the_resolved_spec_reads_back_equal_with_every_range_spelled_out(sweep_file, tmp_path):
    spec = load_spec(sweep_file)
    sweep = spec.replaced(storage=str(tmp_path / "elsewhere")).sweep_dir
    sweep.root.mkdir(parents=True)
    spec.save(sweep.spec)
    again = read_spec(sweep)
    assert again.comparable() == spec.comparable()
    assert again.space["hint"] == {"weight": {"loguniform": [0.1, 100]}}


def test_faults_are_found_without_torch_and_ray(sweep_file):
    sweep_file.write_text(sweep_file.read_text().replace("[kd, hint, none]", "[kd, hnt]"))
    code = f"""
import sys
from kdsweep.errors import SpecError
from kdsweep.config.load import load_spec
try:
    load_spec({str(sweep_file)!r})
except SpecError as error:
    print(error, "torch" in sys.modules, "ray" in sys.modules)
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.rstrip().endswith("False False")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="has no /dev/zero")
def test_a_file_without_an_end_is_refused():
    with pytest.raises(SpecError, match="/dev/zero:1: larger than 1000000 bytes; accepted: a sweep file"):
        load_spec("/dev/zero")
