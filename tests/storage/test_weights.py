"""Weight files: atomic writes, and a one-line error for every kind of damage."""

from __future__ import annotations

import random
import subprocess
import sys
from argparse import Namespace

import pytest
import torch
from inputs import CHECKPOINT, accepted, either, refused
from torch import nn

from kdsweep.errors import CheckpointError
from kdsweep.storage import weights


def refusal(path):
    """Load, and return the one-line error."""
    with refused(CHECKPOINT, CheckpointError) as caught:
        weights.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_tensors_and_strings_round_trip(tmp_path):
    shared = torch.arange(6.0)
    state = {
        "plain": torch.randn(3, 4),
        "last channels": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "turned": torch.randn(3, 4).T,
        "one": shared,
        "part of it": shared[2:],
        "half": torch.ones(2, dtype=torch.bfloat16),
        "count": torch.tensor(7),
        "empty": torch.empty(0, 5),
    }
    state["trained"] = torch.ones(2, requires_grad=True)
    weights.save(state, tmp_path / "new" / "folder" / "state.safetensors", {"head": "{}"})
    found = weights.load(tmp_path / "new" / "folder" / "state.safetensors")
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor.detach())
    assert weights.metadata(tmp_path / "new" / "folder" / "state.safetensors") == {"head": "{}"}
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["state.safetensors"]


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "state.safetensors"
    weights.save({"a": torch.ones(2)}, path)
    with pytest.raises(AttributeError):
        weights.save({"a": "no tensor"}, path)
    assert torch.equal(weights.load(path)["a"], torch.ones(2))
    assert [found.name for found in tmp_path.iterdir()] == ["state.safetensors"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(2)], "found a list; accepted: a state dict of tensors"),
        (torch.ones(2), "found a Tensor; accepted: a state dict of tensors"),
        ({"a": torch.ones(2), "epoch": 3}, "found a dict; accepted: a state dict of tensors"),
        ({}, "holds no tensors; accepted: a state dict of tensors"),
        ({"state_dict": {}}, "holds no tensors; accepted: a state dict of tensors"),
    ],
)
def test_a_file_that_is_not_a_state_dict_is_refused(content, message, tmp_path):
    torch.save(content, tmp_path / "state.pt")
    assert message in refusal(tmp_path / "state.pt")


def test_missing_files_and_folders_are_refused(tmp_path):
    for name in ("gone.pt", "gone.safetensors"):
        assert "no such file" in refusal(tmp_path / name)
    for name in ("folder.pt", "folder.safetensors"):
        (tmp_path / name).mkdir()
        assert "unreadable" in refusal(tmp_path / name)
    with refused(CHECKPOINT, CheckpointError, match="unreadable"):
        weights.metadata(tmp_path / "gone.safetensors")


def whole_files(folder):
    state = {"layer.weight": torch.randn(3, 4), "layer.bias": torch.arange(5)}
    weights.save(state, folder / "new.safetensors")
    torch.save(state, folder / "zip.pt")
    torch.save(state, folder / "old.pt", _use_new_zipfile_serialization=False)
    return [folder / name for name in ("new.safetensors", "zip.pt", "old.pt")]


def test_a_truncated_file_is_refused_in_one_line(tmp_path):
    for path in whole_files(tmp_path):
        whole = path.read_bytes()
        for length in [0, 1, 7, 8, 9, *range(10, len(whole), len(whole) // 12)]:
            path.write_bytes(whole[:length])
            refusal(path)


def tensors(state):
    return all(isinstance(tensor, torch.Tensor) for tensor in state.values())


def test_a_damaged_file_either_loads_or_is_refused_in_one_line(tmp_path):
    draw = random.Random(0)
    refusals, loaded = [], []
    for path in whole_files(tmp_path):
        whole = path.read_bytes()
        for _ in range(150):
            damaged = bytearray(whole)
            for _ in range(draw.randint(1, 8)):
                damaged[draw.randrange(len(damaged))] = draw.randrange(256)
            path.write_bytes(damaged if draw.random() < 0.8 else draw.randbytes(draw.randint(0, 200)))
            error = either(CHECKPOINT, lambda path=path: weights.load(path), tensors)
            refusals += [error] if error else []
            loaded += [] if error else [path]
    assert refusals
    assert all(isinstance(error, CheckpointError) for error in refusals)
    assert loaded


def model():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def test_matching_weights_are_accepted_on_any_device():
    state = model().state_dict()
    weights.fit(model(), state, "w")
    with torch.device("meta"):
        empty = model()
    weights.fit(empty, state, "w")
    state.pop("1.num_batches_tracked")  # missing in old checkpoints
    weights.fit(model(), state, "w")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("3.bias"), "w: 3.bias is missing"),
        (lambda state: state.update({"4.bias": torch.ones(1)}), "w: 4.bias does not belong to the model"),
        (lambda state: state.update({"3.bias": torch.ones(4)}), "w: 3.bias is [4], accepted: [3]"),
        (
            lambda state: state.update({"3.bias": torch.ones(4), "3.weight": torch.ones(4, 8), "x": torch.ones(1)}),
            "w: 3.weight is [4, 8], accepted: [3, 8] (and 2 more differences)",
        ),
    ],
)
def test_weights_of_another_model_are_refused_by_their_first_difference(change, message):
    state = dict(model().state_dict())
    change(state)
    with refused(CHECKPOINT, CheckpointError) as caught:
        weights.fit(model(), state, "w")
    assert str(caught.value) == message


# Checkpoints as training scripts save them

WRAPPED = {
    "a state dict": lambda state: state,
    "the tutorial's": lambda state: {"epoch": 3, "model_state_dict": state, "optimizer_state_dict": {"lr": 0.1}},
    "state_dict": lambda state: {"state_dict": state, "best": 0.9},
    "model": lambda state: {"model": state, "args": ["--lr", "1"]},
    "timm's": lambda state: {"state_dict": state, "args": Namespace(lr=0.1, out=None), "arch": "x"},
    "Lightning's": lambda state: {
        "state_dict": prefixed(state, "model.") | {"criterion.weight": torch.ones(3)}, "pytorch-lightning_version": "2",
    },
    "DistributedDataParallel's": lambda state: {"model": prefixed(state, "module.")},
    "torch.compile's": lambda state: prefixed(state, "_orig_mod."),
    "all of them": lambda state: {"state_dict": prefixed(state, "model.module._orig_mod.")},
    "one in another": lambda state: {"model": {"state_dict": state}},
    "an empty average": lambda state: {"model_ema": {}, "state_dict_ema": None, "model": state},
}  # fmt: skip


def prefixed(state, prefix):
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize("kind", WRAPPED)
def test_a_checkpoint_loads_however_its_training_script_wrapped_it(kind, tmp_path):
    state = model().state_dict()
    torch.save(WRAPPED[kind](dict(state)), tmp_path / "teacher.pth.tar")
    with accepted(CHECKPOINT):
        found = weights.fit(model(), weights.load(tmp_path / "teacher.pth.tar"), "w")
        assert found.keys() == state.keys()
        assert all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize("prefix", ["model.", "module.", "_orig_mod.", "model._orig_mod."])
def test_prefixes_are_taken_off_in_safetensors_too(prefix, tmp_path):
    state = model().state_dict()
    weights.save(prefixed(state, prefix), tmp_path / "teacher.safetensors")
    found = weights.fit(model(), weights.load(tmp_path / "teacher.safetensors"), "w")
    assert {name: tensor.tolist() for name, tensor in found.items()} == {n: t.tolist() for n, t in state.items()}
    weights.check_classes(tmp_path / "teacher.safetensors", "3", 3)
    with refused(CHECKPOINT, CheckpointError, match="has 3 outputs, accepted: 10 classes"):
        weights.check_classes(tmp_path / "teacher.safetensors", "3", 10)


def test_a_model_whose_own_names_begin_like_a_prefix_keeps_them():
    own = nn.ModuleDict({"model": model(), "module": nn.Linear(2, 2)})
    state = own.state_dict()
    assert weights.fit(own, state, "w").keys() == state.keys()
    assert weights.fit(own, prefixed(state, "module."), "w").keys() == state.keys()


def test_averaged_weights_take_precedence_and_their_key_is_returned(tmp_path):
    plain, averaged = model().state_dict(), model().state_dict()
    for key in weights.AVERAGED:
        torch.save({"state_dict": plain, "model": plain, key: averaged}, tmp_path / "timm.pth")
        state, part = weights.load_part(tmp_path / "timm.pth")
        assert torch.equal(state["0.weight"], averaged["0.weight"])
        assert part == key


def test_code_in_a_checkpoint_is_named(tmp_path):
    torch.save({"model": model()}, tmp_path / "whole.pt")
    message = refusal(tmp_path / "whole.pt")
    assert "; found an object of type torch.nn.modules.container.Sequential; accepted: " in message


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("3.", "net.head.3.", "state = {name.removeprefix('net.head.'): tensor for name, tensor in state.items()}"),
        ("3.", "fc.", "state['3.weight'] = state.pop('fc.weight'); state['3.bias'] = state.pop('fc.bias')"),
    ],
)
def test_names_that_do_not_fit_are_reported_with_the_line_that_renames_them(old, new, line):
    state = {name.replace(old, new): tensor for name, tensor in model().state_dict().items()}
    with refused(CHECKPOINT, CheckpointError) as caught:
        weights.fit(model(), state, "w")
    assert str(caught.value).endswith(f"; to rename: {line}")
    assert f"3.weight may be {new}weight, 3.bias may be {new}bias" in str(caught.value)
    renamed = {"state": state}
    exec(line, renamed)
    weights.fit(model(), renamed["state"], "w")


def test_a_name_cannot_break_the_line():
    state = model().state_dict() | {"a\nb\x1b[2J": torch.ones(1)}
    with refused(CHECKPOINT, CheckpointError, match=r"^w: 'a\\nb\\x1b\[2J' does not belong to the model$"):
        weights.fit(model(), state, "w")


def test_the_number_of_classes_is_checked_from_the_header_without_torch(tmp_path):
    weights.save({"fc.weight": torch.ones(7, 3), "fc.bias": torch.ones(7)}, tmp_path / "seven.safetensors")
    code = f"""
import sys
from pathlib import Path
from kdsweep.storage.weights import check_classes
from kdsweep.errors import CheckpointError
path = Path({str(tmp_path / "seven.safetensors")!r})
check_classes(path, "fc", 7)
for head, classes in (("fc", 10), ("classifier", 7)):
    try:
        check_classes(path, head, classes)
    except CheckpointError as error:
        print(str(error).removeprefix(f"checkpoint {{path}}: "))
print("torch" in sys.modules)
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines() == [
        "fc.weight has 7 outputs, accepted: 10 classes", "classifier.weight is missing", "False",
    ]  # fmt: skip
