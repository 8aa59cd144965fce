"""Sweep files and `--set` values changed at random are refused, or resolve and read back equal."""

from __future__ import annotations

import copy
import tempfile
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inputs import RANDOM, SET, SPEC, either, refused
from PIL import Image

from kdsweep.config import yaml as document
from kdsweep.config.load import load_spec, notes
from kdsweep.config.spec import SweepSpec, read_spec
from kdsweep.config.yaml import parsed_overrides
from kdsweep.errors import SpecError
from kdsweep.search.extent import searched

ROOT = Path(__file__).parents[2]
# Building DenseNet would take most of the time; it is written like the others.
FILES = sorted(path for path in (ROOT / "search_spaces").glob("*.yaml") if path.stem != "densenet_convnet3")
VALUES = [
    None, True, False, 0, 1, 2, -1, 0.5, -0.0, 1e-300, 1e300, float("nan"), float("inf"), 10**6, 10**12, 10**400, "",
    " ", "kd", "none", "auto", "asha", "sgd", "step", "mnist_mini", "lightnn", "resnet20", "torchvision/nothing",
    "a\0b", "\u202e\x1b[2J", "é" * 300, "x" * 5000, "../..", "/dev/zero", "~nobody/x", "s3://b/c", "sys:exit",
    "math:pi", "no_such_module:x", "kd+", "+", "a:b:c", "4", "1e-3", "{}", [], {}, [[]], ["kd", 1], ["kd", "kd"],
    {"choice": []}, {"choice": [0.5, "x"]}, {"choice": [{}]}, {"uniform": [1, 0]}, {"uniform": [0, 1]},
    {"loguniform": [1e-3, 1e3]}, {"randint": [0, 10**9]}, {"quniform": [0, 1, 0]}, {"uniform": "ab"}, {"name": "adam"},
    {"name": 3}, {"a": {"b": {"c": {}}}}, list(range(50)),
]  # fmt: skip
INSERTED = [
    b"", b"\0", b"\t", b":", b"{", b"]", b"'", b"&a ", b"*a", b"!!int ", b"\xff", b"- ", b"\n", b"#", b"9" * 30, b"%",
]  # fmt: skip
KEYS = ["", " ", "name", "epohcs", "a.b", "é", "\n", "x" * 300, "temperature", "options", "choice", "dkd", "kd+at"]


@cache
def written(path):
    return document.Document(path).values


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Overrides that put the data and the storage into a temporary directory."""
    root = tmp_path_factory.mktemp("images")
    for folder in ("train/cat", "train/dog", "test/cat", "test/dog"):
        (root / folder).mkdir(parents=True)
        Image.new("RGB", (40, 36)).save(root / folder / "1.png")
    return {"storage": str(root / "runs")}, str(root)


def containers(values):
    """Every mapping and list that is not empty, with the root first."""
    if isinstance(values, dict | list) and values:
        yield values
        for inner in values.values() if isinstance(values, dict) else values:
            yield from containers(inner)


def edited(values, draw):
    """Delete, duplicate, rename or replace one value at a random place."""
    inner = draw(st.sampled_from(list(containers(values))))
    key = draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner))))
    kind = draw(st.sampled_from(["delete", "double", "rename", "replace", "replace", "replace", "wrap"]))
    if kind == "delete":
        del inner[key]
    elif kind == "rename" and isinstance(inner, dict):
        inner[draw(st.sampled_from(KEYS))] = inner.pop(key)
    elif kind == "double" and isinstance(inner, list):
        inner.insert(key, copy.deepcopy(inner[key]))
    elif kind == "wrap":
        inner[key] = [inner[key]]
    else:
        inner[key] = copy.deepcopy(draw(st.sampled_from(VALUES)))


def resolves(spec):
    """Whether an accepted spec can be described and reads back equal from a sweep directory."""
    assert isinstance(spec, SweepSpec)
    assert all("\n" not in note for note in notes(spec))
    searched(spec.search_space)
    with tempfile.TemporaryDirectory() as folder:
        sweep = spec.replaced(storage=folder).sweep_dir
        spec.save(sweep.spec)
        return read_spec(sweep).comparable() == spec.comparable()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@settings(RANDOM, max_examples=25)
@given(data=st.data())
def test_a_mutated_sweep_file_is_refused_or_resolves(path, data, places):
    overrides, root = places
    values = copy.deepcopy(written(path))
    if path.stem == "image_folder":
        values["dataset"]["root"] = root
    for _ in range(data.draw(st.integers(1, 3))):
        edited(values, data.draw)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mutated.yaml"
        document.dump(values, file, "mutated")
        either(SPEC, lambda: load_spec(file, overrides), resolves)


@settings(RANDOM, max_examples=60)
@given(data=st.data())
def test_a_sweep_file_with_damaged_text_is_refused_or_resolves(data, places):
    text = bytearray((ROOT / "search_spaces" / "quickstart.yaml").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text) - 1))
        insert = data.draw(st.sampled_from(INSERTED))
        text[start : start + data.draw(st.integers(0, 6))] = insert
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "damaged.yaml"
        file.write_bytes(text)
        either(SPEC, lambda: load_spec(file, places[0]), resolves)


PATHS = [
    "", ".", "search", "search.trials", "search.points", "search.points.0", "search.points.0.method", "train.epochs",
    "train..epochs", "train.epochs.x", "space", "space.width", "space.width.choice", "space.kd", "space.kd.weight",
    "dataset.root", "dataset.name", "teacher.checkpoint", "teacher.options", "student", "student.options.depth",
    "storage", "name", "seed", "confirm.margin", "resources.gpus_per_trial", "objective.metric", "scheduler.group_by",
    "constraints.parameters", "é", "a\0b", "__class__", "space.method", " search.trials ", "train.optimizer.name",
]  # fmt: skip
TEXT = st.sampled_from([
    "", "8", "-8", "08", "1_000", "0x10", "1e3", ".nan", ".inf", "-.inf", "true", "yes", "null", "~", "kd", "'8'",
    "[kd, none]", "[kd", "{choice: [0.5]}", "{choice: [0.5}", "{uniform: [0, 1]}", "{loguniform: [0, 1]}",
    "!!python/object:os.system x", "&a [*a]", "*a", "- a\n- b", "a: b: c", "a: 1\na: 2", "2020-01-01", "\0",
    "\x1b[2J", "\u202e", "'", "\"", "%", "@", "`", "9" * 400, "9" * 5000, "1e999", "[" * 2000, "x" * 400,
    "/dev/zero", "math:pi", "[[]]", "{}", "[]", "? x", "| x", "> x", "#", "a=b",
]) | st.text(max_size=12)  # fmt: skip


@settings(RANDOM, max_examples=150)
@given(path=st.sampled_from(PATHS) | st.text(max_size=8), text=TEXT, equals=st.sampled_from(["=", "=", "=", "==", ""]))
def test_any_set_option_is_refused_or_resolves(path, text, equals, quick):
    overrides = [f"{path}{equals}{text}"]
    either(SET, lambda: load_spec(quick, parsed_overrides(overrides)), resolves)


@pytest.fixture(scope="module")
def quick(tmp_path_factory, minimal):
    folder = tmp_path_factory.mktemp("quick")
    (folder / "quick.yaml").write_text(minimal.format(name="quick", storage=folder / "runs"))
    return folder / "quick.yaml"


def test_whole_numbers_that_fit_no_float_and_keys_with_line_breaks_are_one_line(quick, tmp_path):
    for value in ("9" * 400, "{loguniform: [1, " + "9" * 400 + "]}"):
        with refused(SET, SpecError, match="^--set train.lr: found a whole number above 1e308; accepted: "):
            parsed_overrides([f"train.lr={value}"])
    odd = tmp_path / "odd.yaml"
    odd.write_text(quick.read_text().replace("space:", '"a\\nb": 1\nspace:'))
    with refused(SPEC, SpecError, match=r"odd.yaml:5: a\\nb: unknown key 'a\\nb'"):
        load_spec(odd)
    odd.write_text(quick.read_text().replace("epochs: 4", "lr: " + "9" * 400 + ", epochs: 4"))
    with refused(SPEC, SpecError, match=r"odd.yaml:11: train.lr: found a whole number above 1e308"):
        load_spec(odd)
