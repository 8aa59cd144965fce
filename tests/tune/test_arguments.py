"""The arguments of kdsweep.sweep: what is wrong with them is told before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import kdsweep
from kdsweep.errors import InputError, KdsweepError, SpecError, SweepDirError
from kdsweep.methods import METHODS, Method
from kdsweep.storage.paths import SweepDir
from kdsweep.terminal.progress import Silent

DATA = {
    split: [(torch.full((1, 4, 4), first + index, dtype=torch.uint8), index % 2) for index in range(20)]
    for split, first in (("train", 0), ("test", 100))
}


class Started(KdsweepError):  # noqa: N818 - no error
    """A sweep that passed all checks would start now."""


class Net(nn.Sequential):
    """A student."""

    def __init__(self, width=1.0):
        super().__init__(nn.Flatten(), nn.Linear(16, round(8 * width)), nn.Linear(round(8 * width), 2))


class Pull(Method):
    """A method that is not in `methods`."""

    formula = "0"

    def term(self, student, teacher, labels):
        return student.logits.sum() * 0


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Call kdsweep.sweep with valid arguments but for those given. It ends where the sweep would start."""
    monkeypatch.chdir(tmp_path)

    def start(spec, address, progress):
        spec.save(spec.sweep_dir.spec)
        spec.sweep_dir.journal.write_text("{}\n")  # as if its search had begun
        raise Started(spec.name)

    monkeypatch.setattr("kdsweep.tune.objects.run", start)
    torch.manual_seed(0)
    usual = {"teacher": Net(), "student": Net, **DATA, "storage": tmp_path / "runs", "progress": False}
    return lambda **changes: kdsweep.sweep(**usual | changes)


def refused(call, error=SpecError, **changes):
    with pytest.raises(error) as raised:
        call(**changes)
    return str(raised.value)


@pytest.mark.parametrize("changes", [
    {"name": "a/b"}, {"name": "../../esc"}, {"name": None}, {"storage": "a\0b"}, {"trials": 0}, {"methods": ["kdd"]},
    {"overrides": {"name": "../esc"}}, {"overrides": {"storage": "elsewhere"}}, {"overrides": {"train.epoch": 1}},
], ids=str)  # fmt: skip
def test_nothing_is_written_before_the_settings_are_checked(call, tmp_path, changes):
    name = next(iter(changes))
    given = next(iter(changes[name])) if name == "overrides" and "train" not in str(changes) else name
    fault = refused(call, **changes)
    assert fault.startswith("train.epoch" if "train" in str(changes) else name), fault
    assert given in fault or "train.epoch" in fault
    assert list(tmp_path.iterdir()) == []
    assert not (tmp_path.parent / "esc").exists()


WRONG = {
    "None": None, "3": 3, "nan": float("nan"), "text": "a", "bytes": b"a", "[]": [], "{}": {}, "object": object(),
    "class": Path, "function": lambda: None, "tensor": torch.zeros(2), "{3: 1}": {3: 1}, "{class: 1}": {Path: 1},
}  # fmt: skip
ARGUMENTS = (
    "teacher", "student", "train", "val", "test", "methods", "space", "unlabelled", "tokenizer", "augment", "epochs",
    "trials", "confirm", "seed", "storage", "name", "overrides", "address", "progress",
)  # fmt: skip


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_no_value_of_an_argument_raises_an_error_of_python(call, argument, monkeypatch):
    monkeypatch.setattr("kdsweep.tune.objects.has_begun", lambda sweep: False)
    started = []
    for name, value in WRONG.items():
        with pytest.raises(KdsweepError) as raised:
            call(**{argument: value})
        if isinstance(raised.value, Started):
            started.append(name)
        else:
            assert str(raised.value).startswith(argument)
            assert isinstance(raised.value, InputError)
    valid = {"val": ["None"], "test": ["None"], "space": ["None", "{}"], "unlabelled": ["None"], "tokenizer": ["None"],
             "augment": ["[]"], "epochs": ["3"], "trials": ["3"], "confirm": ["3"], "seed": ["3"], "storage": ["text"],
             "name": ["text"], "overrides": ["None", "{}"], "address": ["None", "text"]}  # fmt: skip
    assert started == valid.get(argument, [])


@pytest.mark.parametrize(("changes", "fault"), [
    ({"space": ["a"]}, "space: found a list; accepted: a dict of settings"),
    ({"space": {3: 1}}, "space: found the key 3; accepted: names of settings, and classes that are in methods"),
    ({"space": {Pull: {}}}, "space: found the class Pull, which is not in methods; accepted: names of settings"),
    ({"space": {Pull: {}, 3: 1}, "methods": [Pull]}, "space: found the key 3"),
    ({"space": {METHODS["dkd"]: {"beta": -1}}}, "space.dkd.beta: found -1"),
    ({"overrides": "a"}, "overrides: found a str; accepted: a dict of values by dotted path"),
    ({"overrides": {3: 1}}, "overrides: found the key 3; accepted: a dotted path"),
    ({"overrides": {"objective": "val_loss"}}, "objective: found 'val_loss'; accepted: {metric: NAME}, or the key"),
    ({"methods": None}, "methods: found None; accepted: a list of names such as kd"),
    ({"train": (["a", "b"], None), "tokenizer": "t.json"}, "train: found None beside the texts; accepted: a list of"),
    ({"train": type("Endless", (list,), {"__len__": lambda self: 1 / 0})()}, "train: ZeroDivisionError"),
    ({"student": lambda width: 3}, "student: returned an int; accepted: a torch.nn.Module"),
    ({"teacher": {"a": Net(), "b": Path}}, "teacher: found the class Path in a dict; accepted: a torch.nn.Module"),
])  # fmt: skip
def test_wrong_arguments_are_told_in_one_line_of_python(call, changes, fault):
    told = refused(call, InputError, **changes)
    assert told.startswith(fault)
    assert "\n" not in told


def test_what_differs_from_the_sweep_that_has_begun_is_named_by_its_argument(call, tmp_path):
    with pytest.raises(Started):
        call(trials=4)
    assert refused(call, trials=2).startswith("trials: found 2; accepted: from 4, the present total")
    fault = refused(call, SweepDirError, teacher=Net(), epochs=3)
    advice = "choose another name, or repeat the call of that sweep to continue it"
    assert fault == (
        f"{tmp_path / 'runs' / 'sweep'} contains a different sweep (teacher: another one than the sweep's, with other "
        f"weights, layers or code; epochs: 20 -> 3); {advice}"
    )
    fault = refused(call, SweepDirError, student=lambda width: nn.Sequential(Net(width)))
    assert "(student: another one than the sweep's, with other layers or code); choose" in fault
    fault = refused(call, SweepDirError, teacher={"a": Net(), "b": Net()})
    assert "(teacher: another one than the sweep's, with other weights, layers or code); choose" in fault
    assert SweepDir(tmp_path / "runs" / "sweep").spec.is_file()


def test_progress_goes_to_whatever_receives_it(call):
    with pytest.raises(Started):
        call(progress=Silent())
    assert refused(call, InputError, progress=Silent).startswith("progress: found the class Silent; accepted: True")
