"""Sweep files: what is accepted, what is refused, and how."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from inputs import CHECKPOINT, CODE, SET, SPEC, refused

from kdsweep.config.load import load_spec, notes
from kdsweep.config.shapes import EXAMPLES, fields_of
from kdsweep.config.spec import SweepSpec, read_spec
from kdsweep.errors import SpecError
from kdsweep.methods import METHODS
from kdsweep.search.extent import searched

# What is wrong, how the small sweep file is changed, and what the line must say. Line numbers are those of the file.
FAULTS = {
    "as many logits as classes": (
        "teacher: {",
        "teacher: {keep_logits: 10, ",
        "teacher.keep_logits: found 10; accepted: all, or from 1 to 9, of 10",
    ),
    "no number of logits": (
        "teacher: {",
        "teacher: {keep_logits: some, ",
        "teacher.keep_logits: found 'some'; accepted: ",
    ),
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
        ":8: space.temperature: loguniform range is reversed: [8, 2]; accepted: low <= high",
    ),
    "log range from 0": (
        "[2, 8]",
        "[0, 2]",
        ":8: space.temperature: loguniform lower bound is 0; accepted: a number above 0",
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
    "empty choice": ("choice: [0.25, 0.5]", "choice: []", ":7: space.width: choice is empty"),
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
        ":3: teacher.checkpoint: kdsweep does not include a file",
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
    "storage that is no path": ("storage: ", "storage: ftp://host/", ":15: storage: found 'ftp://host/"),
    "name that leaves the storage": (
        "name: small",
        "name: ../small",
        ":1: name: found '../small'; accepted: letters, digits",
    ),
    "subset too small to split": ("subset: 1200", "subset: 1", ":2: dataset.subset: found 1; accepted: at least 3"),
    "not a number": ("epochs: 4", "lr: .nan, epochs: 4", ":11: train.lr: found nan; accepted: "),
    "unknown optimizer": (
        "epochs: 4",
        "optimizer: adm, epochs: 4",
        ":11: train.optimizer: unknown optimizer 'adm'; did you mean 'adam'?",
    ),
    "unknown task loss in the space": (
        "  lr:",
        "  task_loss: [cross_entropy, multi_margn]\n  lr:",
        ":10: space.task_loss: unknown task loss 'multi_margn'; did you mean 'multi_margin'?",
    ),
    "unknown sampler": (
        "search: {trials",
        "search: {sampler: tpee, trials",
        ":12: search.sampler: unknown sampler 'tpee'; did you mean 'tpe'?",
    ),
    "unknown stopping rule": (
        "name: asha,",
        "name: asha2,",
        ":13: scheduler.name: unknown scheduler 'asha2'; did you mean 'asha'?",
    ),
    "a part that is no name": (
        "epochs: 4",
        "optimizer: 3, epochs: 4",
        ":11: train.optimizer: found 3; accepted: a name, or a name with parameters: {name: package.module:Class,",
    ),
    "own class that is not there": (
        "epochs: 4",
        'schedule: "math:Ramp", epochs: 4',
        ":11: train.schedule: schedule 'math:Ramp': module 'math' has no 'Ramp'",
    ),
    "unknown parameter of a part": (
        "epochs: 4",
        "optimizer: {name: adam, bta1: 0.5}, epochs: 4",
        ":11: train.optimizer.bta1: unknown parameter 'bta1' of adam; did you mean 'beta1'?",
    ),
    "parameter of a part out of range": (
        "epochs: 4",
        "optimizer: {name: adam, beta1: 1.5}, epochs: 4",
        ":11: train.optimizer.beta1: found 1.5; accepted: a number from 0 to 1",
    ),
    "parameter of a part that is a key": (
        "epochs: 4",
        "optimizer: {name: sgd, momentum: 0.5}, epochs: 4",
        ":11: train.optimizer.momentum: given with sgd; write it as a separate key instead",
    ),
    "momentum without an optimizer that takes it": (
        "epochs: 4",
        "momentum: 0.5, epochs: 4",
        ":11: train.momentum: found 0.5, which has no effect with optimizer adam; accepted: 0.9, or leave it out",
    ),
    "searched momentum without an optimizer that takes it": (
        "  lr:",
        "  momentum: [0.5, 0.9]\n  lr:",
        ":10: space.momentum: found momentum with optimizer adam; accepted: with muon, sgd",
    ),
    "label smoothing of a margin": (
        "epochs: 4",
        "task_loss: multi_margin, label_smoothing: 0.1, epochs: 4",
        ":11: train.label_smoothing: found 0.1, which has no effect with task_loss multi_margin; accepted: 0.0, or",
    ),
    "nesterov without momentum": (
        "epochs: 4",
        "optimizer: sgd, momentum: 0.0, nesterov: true, epochs: 4",
        ":11: train.nesterov: found true with momentum 0 and dampening 0; accepted: ",
    ),
    "nesterov beside a momentum that may be drawn as 0": (
        "  lr: {loguniform: [1e-3, 1e-2]}\ntrain: {epochs",
        "  momentum: [0.0, 0.9]\n  weight_decay: [0, 1]\n  lr: 1e-3\ntrain: {optimizer: sgd, nesterov: true, epochs",
        ": train.nesterov: found true with momentum 0 and dampening 0; accepted: ",
    ),
    "a warmup longer than the budget": (
        "epochs: 4",
        "warmup_epochs: 4.5, epochs: 4",
        ":11: train.warmup_epochs: found 4.5; accepted: at most the 4 epochs",
    ),
    "a final rate of a schedule that has none": (
        "epochs: 4",
        "schedule: constant, final_lr_fraction: 0.1, epochs: 4",
        ":11: train.final_lr_fraction: found 0.1, which has no effect with schedule constant; accepted: 0.0, or leave",
    ),
    "a scaling that is not there": (
        "epochs: 4",
        "lr_scaling: lin, epochs: 4",
        ":11: train.lr_scaling: found 'lin'; did you mean 'linear'? accepted: linear, none, sqrt",
    ),
    "an average that never moves": (
        "epochs: 4",
        "ema_decay: 1.0, epochs: 4",
        ":11: train.ema_decay: found 1.0; accepted: ",
    ),
    "drop path of a student without branches": (
        "epochs: 4",
        "drop_path: 0.1, epochs: 4",
        ":11: train.drop_path: model 'mnist_student' has no residual branches to drop; accepted: 0, or resnet, wrn",
    ),
    "searched drop path of a student without branches": (
        "  lr:",
        "  drop_path: [0, 0.1]\n  lr:",
        ":10: space.drop_path: model 'mnist_student' has no residual branches to drop; accepted: 0, or resnet, wrn",
    ),
    "step without milestones, searched": (
        "  lr:",
        "  schedule: [cosine, step]\n  lr:",
        ": train.milestones: missing; accepted: the epochs at which schedule step lowers the rate",
    ),
    "step with falling milestones": (
        "epochs: 4",
        "schedule: step, milestones: [3, 2], epochs: 4",
        ":11: train.milestones: found [3, 2]; accepted: increasing epoch numbers",
    ),
    "a word for a switch": (
        "  lr:",
        "  optimizer: sgd\n  nesterov: [true, 1]\n  lr:",
        "space.nesterov: ",
    ),
    "a tag": ("epochs: 4", "epochs: !!python/object:os.system 4", ":11: found the tag "),
    "an alias": ("name: small", "name: &n small\nseed: *n", ":2: found an alias; accepted: plain YAML values"),
    "unreadable YAML": ("train: {epochs", "train: {{epochs", ": not readable as YAML: "),
    "more trials than a study can hold": (
        "trials: 10",
        "trials: 1000001",
        ":12: search.trials: found 1000001; accepted: at most 1000000",
    ),
    "a share of a GPU that is no number": (
        "scheduler:",
        "resources: {gpus_per_trial: lots}\nscheduler:",
        ":13: resources.gpus_per_trial: found 'lots'; accepted: auto or a number",
    ),
    "more than one GPU for a trial": (
        "scheduler:",
        "resources: {gpus_per_trial: 2}\nscheduler:",
        ":13: resources.gpus_per_trial: found 2; accepted: auto, or at most 1: a trial trains on one GPU, and more "
        "trials at a time use more GPUs",
    ),
    "no trials at a time": (
        "scheduler:",
        "resources: {max_concurrent: 0}\nscheduler:",
        ":13: resources.max_concurrent: found 0; accepted: auto or at least 1",
    ),
    "a section left empty": (
        "student: {model: mnist_student}",
        "student:",
        ":4: student: found nothing; accepted: a mapping",
    ),
    "a section without its model": (
        "student: {model: mnist_student}",
        "student: {}",
        ":4: student.model: missing; for example: 'lightnn'",
    ),
    "a data set whose folder is not there": (
        "name: mnist_mini",
        "root: /nowhere/images, name: image_folder",
        ":2: dataset.root: /nowhere/images: no such directory",
    ),
    "no student within the limits": (
        "scheduler:",
        "constraints: {parameters: 100}\nscheduler:",
        ":13: constraints: no searched width of mnist_student ({'choice': [0.25, 0.5]}) satisfies {'parameters': 100}",
    ),
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
    with refused(SPEC, SpecError) as caught:
        load_spec(sweep_file)
    lines = [line for line in str(caught.value).splitlines() if message in line]
    assert len(lines) == 1, caught.value
    assert lines[0].startswith(str(sweep_file))
    assert not sweep_file.parent.joinpath("runs").exists()


def test_every_required_key_has_an_example():
    assert {key for key, field in SweepSpec.model_fields.items() if field.is_required()} == EXAMPLES.keys()
    for key in ("dataset", "teacher", "student"):
        fields = fields_of(SweepSpec.model_fields[key].annotation)
        assert {name for name, field in fields.items() if field.is_required()} == EXAMPLES[key].keys()


def test_a_faulty_part_hides_no_fault_of_the_search(sweep_file):
    text = sweep_file.read_text().replace("grace_epochs: 1", "group_by: [widht]")
    sweep_file.write_text(text.replace("epochs: 4", "schedule: step, epochs: 4"))
    with refused(SPEC, SpecError) as caught:
        load_spec(sweep_file, {"search.points": [{"method": "kd", "depth": 1}]})
    first, second, third = caught.value.faults
    assert [fault.split(": ", 2)[1] for fault in (first, second)] == ["train.milestones", "scheduler.group_by"]
    assert third.startswith("--set search.points.0.depth: ")


def test_faults_are_in_the_order_of_the_file_and_those_of_overrides_last(sweep_file):
    text = sweep_file.read_text().replace("grace_epochs: 1", "group_by: [widht]").replace("trials: 10", "trials: ten")
    sweep_file.write_text(text.replace("subset: 1200", "subset: 1").replace("[kd, hint, none]", "[kd, hnt, none]"))
    with pytest.raises(SpecError) as caught:
        load_spec(sweep_file, {"name": "../up", "train.epochs": "4"})
    lines = [fault.removeprefix(f"{sweep_file}:").split(":")[0] for fault in caught.value.faults]
    assert lines == ["2", "6", "12", "--set name", "--set train.epochs"]


def test_a_faulty_key_hides_no_fault_in_its_own_section(sweep_file):
    text = sweep_file.read_text().replace("val_fraction: 0.5", "val_fraction: half")
    text = text.replace("subset: 1200", "normalize: imagenet").replace("epochs: 4", "epochs: four, optimizer: adm")
    text = text.replace("trials: 10", "trials: ten, sampler: tpee").replace("alpha: 0.9, lr", "alpha: 0.95, lr")
    sweep_file.write_text(text.replace("mnist_mini_teacher", "mnist_mini_techer").replace("width: 0.25", "width: -1"))
    with pytest.raises(SpecError) as caught:
        load_spec(sweep_file)
    assert sorted(fault.split(": ", 2)[1] for fault in caught.value.faults) == [
        "dataset.normalize", "dataset.val_fraction", "search.points.0.alpha", "search.sampler", "search.trials",
        "teacher.checkpoint", "teacher.width", "train.epochs", "train.optimizer",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("epochs: 4", "epochs: four"),  # the budget that grace_epochs is compared with
        ("epochs: 4", "optimizer: 3, momentum: 0.5, epochs: 4"),
        ("name: mnist_mini", "nam: mnist_mini"),
    ],
)
def test_what_stands_in_for_a_faulty_value_causes_no_faults(before, after, sweep_file):
    text = sweep_file.read_text().replace("grace_epochs: 1", "grace_epochs: 30").replace("epochs: 4", "epochs: 40")
    sweep_file.write_text(text.replace(before, after, 1))
    with pytest.raises(SpecError) as caught:
        load_spec(sweep_file)
    for fault in caught.value.faults:
        assert after.split(":")[0] in fault or "dataset.name: missing" in fault


def test_groups_by_a_setting_from_a_range_are_refused_but_for_the_width(sweep_file):
    with pytest.raises(SpecError, match=r"scheduler.group_by: found 'lr', drawn from a range, so that nearly every tr"):
        load_spec(sweep_file, {"scheduler.group_by": ["lr", "width", "method"]})
    load_spec(sweep_file, {"scheduler.group_by": ["lr"], "scheduler.name": "none"})
    spec = load_spec(sweep_file, {"space.width": {"loguniform": [0.25, 1]}, "search.points": []})
    assert notes(spec) == [
        "scheduler.group_by: width is drawn from a range, so trials of all widths are compared, less the trend over "
        "log(width)"
    ]


def test_all_faults_are_reported_at_once(sweep_file):
    text = sweep_file.read_text()
    for fault in ("unknown key", "unknown method", "unknown data set", "alpha outside 0..1", "zero width"):
        before, after, _ = FAULTS[fault]
        text = text.replace(before, after, 1)
    sweep_file.write_text(text)
    with refused(SPEC, SpecError) as caught:
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
        (b"1: x\n", ":1: 1: found key 1; accepted: text"),
        (b"x: " + b"y" * 1_000_001, ":1: larger than 1000000 bytes"),
    ],
)
def test_a_file_that_is_no_sweep_file_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "odd.yaml"
    path.write_bytes(content)
    with refused(SPEC, SpecError) as caught:
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
        with refused(CHECKPOINT, SpecError) as caught:
            load_spec(sweep_file)
        assert message in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


def test_overrides_replace_values_and_say_so_when_wrong(sweep_file):
    spec = load_spec(sweep_file, {"search.trials": 7, "space.width": {"choice": [0.5]}, "confirm": {"top": 0}})
    assert spec.search.trials == 7
    assert spec.search_space.shared["width"].written() == {"choice": [0.5]}
    assert spec.confirm.top == 0
    with refused(SET, SpecError, match=r"^--set search.trials: found 'many'; accepted: a whole number$"):
        load_spec(sweep_file, {"search.trials": "many"})
    with refused(
        SET, SpecError, match=r"--set name.first: name is 'small'; accepted: a path whose keys all hold mappings"
    ):
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


FRAGILE = """
from torch import nn

def build(input_shape, num_classes, width):
    if width > 0.5:
        raise ValueError(f"no width {width}")
    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[1] * input_shape[2], num_classes))
"""


@pytest.mark.parametrize(
    ("widths", "fault"),
    [({"choice": [0.25, 0.75, 0.5]}, "0.75"), ({"uniform": [0.25, 0.75]}, "0.75"), ({"uniform": [0.25, 0.5]}, "")],
)
def test_a_student_is_built_at_every_width_that_can_be_drawn(widths, fault, sweep_file, tmp_path, monkeypatch):
    (tmp_path / "fragile_student.py").write_text(FRAGILE)
    monkeypatch.syspath_prepend(tmp_path)
    sweep_file.write_text(sweep_file.read_text().replace("mnist_student", "'fragile_student:build'"))
    changes = {"space.width": widths, "space.method": ["kd", "none"], "search.points": []}
    if not fault:
        assert load_spec(sweep_file, changes).student.model == "fragile_student:build"
        return
    with refused(CODE, SpecError) as caught:
        load_spec(sweep_file, changes)
    (told,) = caught.value.faults
    assert told == f"{sweep_file}:4: student.model: model 'fragile_student:build' cannot be built: no width {fault}"


def test_methods_that_the_models_do_not_fit_are_one_line_each(sweep_file):
    text = sweep_file.read_text().replace("[kd, hint, none]", "[kd, simkd, sum, none]").replace("sum", "kd+simkd")
    sweep_file.write_text(text.replace("mnist_teacher, width: 0.25", "lightnn").replace("checkpoint:", "train: {} #"))
    sweep_file.write_text(sweep_file.read_text().replace('mini_teacher"}', 'mini_teacher"\n  }'))
    with refused(SPEC, SpecError) as caught:
        load_spec(sweep_file)
    assert [fault.partition(" needs")[0].partition("space.")[2] for fault in caught.value.faults] == [
        "method: simkd: method simkd", "method: kd+simkd: method simkd",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({}, []),
        (
            {"space": {"method": ["kd"], "alpha": 0.5, "temperature": 4}, "search.points": []},
            ["the space holds one configuration: nothing is searched"],
        ),
        (
            {"space": {"method": ["mse", "none"], "alpha": 0.5, "mse": {"weight": 1}, "width": {"choice": [0.5, 1]}},
             "search": {"trials": 10}},
            ["search.trials is 10, but the space holds 4 configurations: some are tried more than once"],
        ),
        (
            {"space": {"method": ["none"], "width": {"quniform": [0.25, 1, 0.25]}, "batch_size": {"randint": [62, 64]}},
             "search": {"sampler": "grid", "trials": 13}},
            ["search.trials is 13, but the space holds 12 configurations: the search ends after them"],
        ),
    ],
)  # fmt: skip
def test_a_search_of_less_than_it_says_is_told(changes, note, sweep_file):
    assert notes(load_spec(sweep_file, changes)) == note


def test_what_is_searched_has_more_than_one_value(sweep_file):
    spec = load_spec(sweep_file, {"space.lr": 0.01, "space.temperature": {"uniform": [4, 4]}, "search.points": []})
    assert searched(spec.search_space) == ("alpha", "hint.weight", "method", "width")


def loaded_after(sweep_file, *commands) -> dict[str, bool]:
    """Which modules a process has loaded that ran these lines of Python."""
    code = "\n".join([
        "import sys, json, os",
        f"path = {str(sweep_file)!r}",
        *commands,
        "names = ('torch', 'torch._dynamo', 'torch._inductor', 'sympy', 'ray', 'optuna', 'torchvision')",
        "print(json.dumps({name: name in sys.modules for name in names}))",
    ])  # fmt: skip
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return json.loads(printed.splitlines()[-1])


VALIDATE = "from kdsweep.cli import app; app(['validate', path], standalone_mode=False)"


def test_a_sweep_of_built_in_models_is_checked_without_torch(sweep_file):
    assert not any(loaded_after("search_spaces/quickstart.yaml", VALIDATE).values())
    text = sweep_file.read_text().replace("[kd, hint, none]", str([*METHODS, "kd+at"]))
    sweep_file.write_text(text.replace("storage:", "constraints: {parameters: 10000}\nstorage:"))
    assert not any(loaded_after(sweep_file, VALIDATE).values())


def test_a_pair_of_torchvision_is_checked_without_the_compiler(sweep_file):
    text = sweep_file.read_text().replace("mnist_student", "torchvision/mobilenet_v2")
    text = text.replace("mnist_teacher, width: 0.25", "torchvision/resnet18").replace("[kd, hint, none]", "[kd, none]")
    sweep_file.write_text(text.replace('checkpoint: "kdsweep:mnist_mini_teacher"', "options: {}"))
    loaded = loaded_after(sweep_file, VALIDATE)
    assert loaded["torchvision"]
    assert not any(loaded[name] for name in ("torch._dynamo", "torch._inductor", "sympy", "ray", "optuna"))


def test_the_compiler_that_torchvision_was_spared_is_there_when_it_is_asked_for():
    code = """
import sys
from kdsweep.lazy import import_torchvision
ops = import_torchvision("ops")
print("torch._dynamo" in sys.modules, ops.__name__)
asked = ops.roi_align.__globals__["is_compile_supported"]("cpu")
from torch._dynamo.utils import is_compile_supported
print("sympy" in sys.modules, asked == is_compile_supported("cpu"))
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "False torchvision.ops\nTrue True\n"


def test_a_users_own_model_is_checked_without_the_compiler(sweep_file, tmp_path):
    (tmp_path / "plain_student.py").write_text(FRAGILE)
    text = sweep_file.read_text().replace("mnist_student", "'plain_student:build'").replace("hint, ", "")
    sweep_file.write_text(text)
    loaded = loaded_after(sweep_file, f"os.chdir({str(tmp_path)!r})", VALIDATE)
    assert loaded == {
        "torch": True, "torch._dynamo": False, "torch._inductor": False, "sympy": False, "ray": False,
        "optuna": False, "torchvision": False,
    }  # fmt: skip


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


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")
def test_an_endless_file_is_refused():
    with refused(SPEC, SpecError, match="/dev/zero:1: larger than 1000000 bytes; accepted: a sweep file"):
        load_spec("/dev/zero")


@pytest.mark.parametrize(
    ("key", "value", "accepted"),
    [
        ("storage", "a\0b", "a path without NUL, of names of at most 255 bytes"),
        ("storage", "x" * 300, "a path without NUL, of names of at most 255 bytes"),
        ("dataset.root", "a\0b", "a path without NUL"),
        ("dataset.root", "x/" * 3000, "a path without NUL"),
        ("teacher.checkpoint", "é" * 200, "a path without NUL"),
        ("teacher.checkpoint", "a\0b.pt", "a path without NUL"),
        ("teacher.width", 1e300, "at most 100"),
        ("train.epochs", 10**12, "at most 1000000"),
        ("teacher.train.epochs", 10**12, "at most 1000000"),
        ("train.batch_size", 10**16, "at most 10000000"),
        ("search.trials", 10**12, "at most 1000000"),
        ("confirm.top", 10**9, "at most 1000"),
        ("confirm.seeds", 10**9, "auto or at most 1000"),
        ("resources.cpus_per_trial", 10**9, "at most 10000"),
    ],
)
def test_absurd_values_are_refused_in_one_line(key, value, accepted, sweep_file):
    with refused(SET, SpecError) as caught:
        load_spec(sweep_file, {key: value})
    (fault,) = caught.value.faults
    assert fault.startswith(f"--set {key}: found ")
    assert f"; accepted: {accepted}" in fault
    assert len(fault) < 300


@pytest.mark.parametrize(
    ("section", "fault"),
    [
        ({"seeds": 3, "trainings": 60}, "found 60, which has no effect with seeds: 3; accepted: seeds: auto with it"),
        ({"seeds": "auto", "top": 8, "trainings": 15}, "found 15; accepted: at least 16, two for each of the top 8"),
        ({"seeds": "auto", "trainings": 0}, "found 0; accepted: auto or at least 1"),
    ],
)
def test_a_number_of_trainings_must_fit_the_seeds_and_the_top(section, fault, sweep_file):
    with pytest.raises(SpecError) as caught:
        load_spec(sweep_file, {"confirm": section})
    (found,) = caught.value.faults
    assert f"confirm.trainings: {fault}" in found
    fitting = load_spec(sweep_file, {"confirm": {"seeds": "auto", "top": 8, "trainings": 16}})
    assert (fitting.confirm.seeds, fitting.confirm.trainings) == ("auto", 16)


def test_a_model_that_calls_sys_exit_is_reported(sweep_file, tmp_path, monkeypatch):
    (tmp_path / "leaving.py").write_text("import sys\ndef build(input_shape, num_classes, width):\n    sys.exit(4)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with refused(CODE, SpecError, match=r"student.model: model 'leaving:build' .*: it called sys.exit\(4\)"):
        load_spec(sweep_file, {"student.model": "leaving:build"})


def test_null_removes_a_key_that_the_file_has(sweep_file):
    sweep_file.write_text(sweep_file.read_text().replace("  lr:", "  teacher_weight: 0.3\n  lr:"))
    with refused(
        SET, SpecError, match="without an ensemble in space.teacher; leave it out, as with --set space.teacher_w"
    ):
        load_spec(sweep_file)
    removed = ("space.teacher_weight", "space.temperature", "name", "train.epochs", "search", "confirm.top")
    spec = load_spec(sweep_file, dict.fromkeys(removed))
    assert {"teacher_weight", "temperature"}.isdisjoint(spec.space)
    assert (spec.name, spec.train.epochs, spec.search.trials, spec.confirm.top) == ("small", 20, 64, 3)
    with refused(SET, SpecError, match="^--set space.method: missing; "):
        load_spec(sweep_file, {**dict.fromkeys(removed), "space.method": None})
    with refused(SET, SpecError, match="--set space.widht: unknown key 'widht'"):  # nothing to remove: a misspelling
        load_spec(sweep_file, {**dict.fromkeys(removed), "space.widht": None})


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ({"space.width.choice": []}, "--set space.width: choice is empty"),
        ({"constraints.parameters": 1}, "--set constraints: no searched width of mnist_student"),
        ({"student.options.depth": 3}, "--set student.options: model 'mnist_student' has no option 'depth'"),
        ({"dataset.name": None}, "--set dataset.name: missing; for example: 'mnist_mini'"),
        ({"dataset.subset": 600, "teacher.model": "lightn"}, "--set teacher.model: unknown model 'lightn'"),
    ],
)
def test_a_mistake_of_an_override_is_told_as_one(override, fault, sweep_file):
    with refused(SET, SpecError) as caught:
        load_spec(sweep_file, override)
    (line,) = caught.value.faults
    assert line.startswith(fault)


def test_a_mistake_of_the_file_beside_an_override_has_its_line(sweep_file):
    sweep_file.write_text(sweep_file.read_text().replace("name: mnist_mini, ", ""))
    with refused(SET, SpecError, match=":2: dataset.name: missing"):
        load_spec(sweep_file, {"dataset.subset": 600})
