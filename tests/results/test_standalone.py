"""`model.py`: a student of a built-in family loads and computes the same where there is no kdsweep."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from test_export import point, sweep_by_hand

from kdsweep import models
from kdsweep.datasets.section import DatasetSpec
from kdsweep.models import MODELS
from kdsweep.results.export import CARD
from kdsweep.results.standalone import MODEL, model_file, stands_alone
from kdsweep.results.student import load_student
from kdsweep.results.student_config import CONFIG, WEIGHTS, StudentConfig, read_config
from kdsweep.tasks.image.splits import raw_images

FOR_IMAGES = [name for name in MODELS if MODELS[name].takes == "images"]
ALONE = """
import json, os, sys
sys.modules["kdsweep"] = None  # importing it fails
import torch
torch.set_num_threads(1)
for folder in sys.argv[1:]:
    os.chdir(folder)
    sys.path.insert(0, folder)
    from model import load
    student = load(".")
    with torch.no_grad():
        logits = student(torch.load("images.pt"))
        pixels = student((torch.load("images.pt") * 255).to(torch.uint8))
    torch.save([logits, pixels, student.class_names], "logits.pt")
    del sys.modules["model"], sys.path[0]
"""


def run_alone(*folders):
    subprocess.run([sys.executable, "-c", ALONE, *map(str, folders)], check=True)
    return [torch.load(folder / "logits.pt") for folder in folders]


def config_of(name, shape, **changes):
    return StudentConfig(
        model=name, width=0.5, options={}, head={}, input_shape=shape, class_names=tuple("abcdefg"),
        mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), parameters=1, size_mb=1.0, dataset={"name": "x"}, seed=0,
        settings={}, confirmed={}, teacher={}, sweep="s", trial="t", kdsweep="0", val_accuracy=0.5,
    ).model_copy(update=changes)  # fmt: skip


def test_every_family_computes_the_same_without_kdsweep(tmp_path):
    expected = {}
    for name in FOR_IMAGES:
        torch.manual_seed(0)
        side = 40 if name == "convnet3" else 20
        config = config_of(name, (3, side, side))
        model = models.build(name, config.input_shape, 7, config.width)
        images = torch.randint(0, 256, (4, 3, side, side)) / 255
        with torch.no_grad():
            model((images - 0.5) / 0.25)  # so that batch norms have statistics of their own
        folder = tmp_path / name
        folder.mkdir()
        (folder / MODEL).write_text(model_file(config, model))
        save_file(model.state_dict(), folder / WEIGHTS)
        torch.save(images, folder / "images.pt")
        with torch.no_grad():
            expected[folder] = models.normalised(model.eval(), config.mean, config.std)(images)
        assert stands_alone(config)
    for folder, (logits, pixels, names) in zip(expected, run_alone(*expected), strict=True):
        assert torch.equal(logits, expected[folder]), folder.name
        torch.testing.assert_close(pixels, logits, atol=1e-4, rtol=1e-4)
        assert names == tuple("abcdefg")
        assert logits.std() > 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    results = sweep_by_hand(tmp_path_factory.mktemp("swept"), [point("hint")])
    (made,) = results.export(tmp_path_factory.mktemp("alone"), top=1)
    return made


def test_an_exported_student_is_loaded_by_its_model_file(folder):
    config = read_config(folder)
    images = raw_images(_spec(config), config.seed, "val").batch(torch.arange(50))
    torch.save(images, folder / "images.pt")
    ((logits, _, names),) = run_alone(folder)
    with torch.no_grad():
        torch.testing.assert_close(logits, load_student(folder)(images))
    assert names == config.class_names
    assert "`model.py` is the student in plain PyTorch" in (folder / CARD).read_text()


def _spec(config):
    return DatasetSpec.model_validate(config.dataset)


def test_the_hub_mixin_loads_the_folder(folder, monkeypatch):
    pytest.importorskip("huggingface_hub")
    names = {}
    exec(compile((folder / MODEL).read_text(), MODEL, "exec"), names)
    student = names["Student"].from_pretrained(str(folder))
    images = torch.rand(3, 1, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(student(images), load_student(folder)(images))
    assert not student.training
    with pytest.raises(ValueError, match="found images of type int64; accepted: floating point"):
        student(torch.zeros(1, 1, 28, 28, dtype=torch.int64))


def test_hostile_class_names_are_text():
    names = ('"""', "'); import os #", "a\\nb", "\u202e")
    config = config_of("lightnn", (3, 32, 32), class_names=names)
    found = {}
    exec(compile(model_file(config, models.build("lightnn", (3, 32, 32), 4)), MODEL, "exec"), found)
    assert found["Student"].class_names == names
    assert "os" not in found


@pytest.mark.parametrize(
    "changes", [{"model": "torchvision/resnet18"}, {"model": "my.module:build"}, {"head": {"kind": "transfer"}},
                {"task": "my:Task"}]
)  # fmt: skip
def test_other_students_have_no_model_file(changes):
    assert not stands_alone(config_of("lightnn", (3, 32, 32), **changes))


def test_no_other_file_of_the_folder_depends_on_it(folder):
    described = json.loads((folder / CONFIG).read_text())
    assert MODEL not in described["files"]
