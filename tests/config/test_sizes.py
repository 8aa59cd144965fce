"""`dataset.subset` and `train.batch_size` are compared with the number of images."""

from __future__ import annotations

import numpy as np
import pytest
from inputs import SPEC, refused
from PIL import Image

from kdsweep.config.load import load_spec, notes
from kdsweep.errors import InputError, SpecError
from kdsweep.tasks.image.splits import prepare
from kdsweep.terminal.progress import Silent
from kdsweep.tune.phases import check_sizes

FOLDER = """\
dataset: {{name: image_folder, root: {root}, val_fraction: 0.5{more}}}
teacher: {{model: tutorial_teacher, train: {{epochs: 1}}}}
student: {{model: lightnn}}
space: {{method: kd, width: 0.5}}
train: {{batch_size: {batch}}}
"""


class Told(Silent):
    """Keeps what is said about the data."""

    def __init__(self):
        self.lines = []

    def phase(self, name, text):
        self.lines.append((name, text))


@pytest.fixture
def write(tmp_path):
    """Writes a sweep file on 24 training images."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), np.uint8)
    for number, image in enumerate(pixels):
        path = tmp_path / "images" / "train" / ("ant", "bee")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)

    def made(more="", batch=8):
        path = tmp_path / "sweep.yaml"
        path.write_text(FOLDER.format(root=tmp_path / "images", more=more, batch=batch))
        return path

    return made


def test_a_subset_of_more_images_than_there_are_is_refused(write):
    assert load_spec(write(", subset: 24")).dataset.subset == 24
    accepted = "accepted: at most 24, the number of training images, or 0 for all"
    with refused(SPEC, SpecError, match=rf"sweep.yaml:1: dataset.subset: found 25; {accepted}$"):
        load_spec(write(", subset: 25"))


@pytest.mark.parametrize(("more", "batch", "images"), [("", 25, 24), (", subset: 10", 11, 10), ("", 24, 0)])
def test_batches_of_more_images_than_there_are_are_noted(more, batch, images, write):
    told = [note for note in notes(load_spec(write(more, batch))) if "batch_size" in note]
    expected = f"train.batch_size is {batch}, but there are {images} images to train on: one batch per epoch"
    assert told == ([expected] if images else [])


def test_a_new_sweep_is_refused_and_an_old_one_noted_once_the_images_are_counted(sweep_file, tmp_path):
    spec = load_spec(sweep_file, {"dataset.subset": 5000, "train.batch_size": 3000})
    data = prepare(spec.dataset, spec.seed, spec.sweep_dir.store)
    with refused(
        SPEC, InputError, match=r"^dataset.subset: found 5000; accepted: at most 4000, the number of training"
    ):
        check_sizes(spec, data, Silent())
    spec.sweep_dir.root.mkdir(parents=True)
    spec.sweep_dir.data.write_text("{}")
    told = Told()
    check_sizes(spec, data, told)
    assert told.lines == [
        (
            "data",
            "note: dataset.subset: found 5000; accepted: at most 4000, the number of training images, or 0 for all",
        ),
        ("data", "note: train.batch_size is 3000, but there are 2000 images to train on: one batch per epoch"),
    ]
