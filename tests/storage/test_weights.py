"""Weight files: atomic writes, and a one-line error for every kind of damage."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
import torch
from torch import nn

from kdsweep.errors import CheckpointError
from kdsweep.storage import weights


def refused(path):
    """Load, and return the one-line error."""
    with pytest.raises(CheckpointError) as caught:
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
        ([torch.ones(2)], "found list; accepted: a state dict of tensors"),
        (torch.ones(2), "found Tensor; accepted: a state dict of tensors"),
        ({"a": torch.ones(2), "epoch": 3}, "found dict; accepted: a state dict of tensors"),
        ({}, "holds no tensors; accepted: a state dict of tensors"),
        ({"state_dict": {}}, "holds no tensors; accepted: a state dict of tensors"),
    ],
)
def test_a_file_that_is_not_a_state_dict_is_refused(content, message, tmp_path):
    torch.save(content, tmp_path / "state.pt")
    assert message in refused(tmp_path / "state.pt")


def test_missing_files_and_folders_are_refused(tmp_path):
    for name in ("gone.pt", "gone.safetensors"):
        assert "no such file" in refused(tmp_path / name)
    for name in ("folder.pt", "folder.safetensors"):
        (tmp_path / name).mkdir()
        assert "unreadable" in refused(tmp_path / name)
    with pytest.raises(CheckpointError, match="unreadable"):
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
            refused(path)


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
            try:
                loaded += weights.load(path).values()
            except CheckpointError as error:
                refusals.append(str(error))
    assert refusals
    assert not any("\n" in line for line in refusals)
    assert loaded
    assert all(isinstance(tensor, torch.Tensor) for tensor in loaded)


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
    with pytest.raises(CheckpointError) as caught:
        weights.fit(model(), state, "w")
    assert str(caught.value) == message


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
