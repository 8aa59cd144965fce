"""`dataset.subset`, `dataset.val_fraction` and `train.batch_size` are compared with the number of samples."""

from __future__ import annotations

import numpy as np
import pytest
from inputs import SPEC, refused
from PIL import Image

from kdsweep.config.load import load_spec, notes
from kdsweep.errors import InputError, SpecError
from kdsweep.tasks.image.splits import prepare
from kdsweep.teacher.extent import views_line
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


@pytest.mark.parametrize(("more", "batch", "images"), [("", 13, 12), (", subset: 10", 6, 5), ("", 12, 0)])
def test_batches_of_more_images_than_there_are_are_noted(more, batch, images, write):
    told = [note for note in notes(load_spec(write(more, batch))) if "batch_size" in note]
    expected = f"train.batch_size is {batch}, but there are {images} images to train on: one batch per epoch"
    assert told == ([expected] if images else [])


@pytest.mark.parametrize(("fraction", "left"), [
    (0.979, "1 of 24"), (0.98, "0 of 24 images to train on and 24"), (0.021, "23 of 24"),
    (0.02, "24 of 24 images to train on and 0"),
])  # fmt: skip
def test_a_fraction_that_leaves_no_image_on_one_side_is_refused(fraction, left, write):
    overrides = {"dataset.val_fraction": fraction}
    if "and" in left:
        accepted = "for validation; accepted: at least one of each, as with 0.1$"
        with refused(SPEC, SpecError, match=f"dataset.val_fraction: found {fraction}, which leaves {left} {accepted}"):
            load_spec(write(), overrides)
    else:
        spec = load_spec(write(), overrides)
        assert prepare(spec.dataset, 0, spec.sweep_dir.store).count("train") == int(left.split()[0])


def test_so_it_is_where_the_images_are_no_files(sweep_file, tmp_path, monkeypatch):
    found = "dataset.val_fraction: found 0.9999, which leaves 0 of {} {} to train on"
    changes = {"dataset.val_fraction": 0.9999}
    with refused(SPEC, SpecError, match=found.format("4,000", "images")) as caught:
        load_spec(sweep_file, changes | {"dataset.subset": 0})
    assert len(caught.value.faults) == 1
    with refused(SPEC, SpecError, match=found.format("1,200", "images")):
        load_spec(sweep_file, changes)
    array = "np.zeros((40, 1, 28, 28), dtype=np.uint8), np.arange(40) % 2"
    head = "import numpy as np\ndef read(source, split):\n    if split == 'val':\n        raise ValueError\n"
    (tmp_path / "own_forty.py").write_text(f"{head}    return {array}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    own = {"dataset": {"name": "own_forty:read", "val_fraction": 0.9999}, "teacher.checkpoint": None}
    with refused(SPEC, SpecError, match=found.format("40", "images")) as caught:
        load_spec(sweep_file, own | {"teacher.model": "mnist_teacher"})
    texts = tmp_path / "train.jsonl"
    texts.write_text("\n".join(f'{{"text": "word {number}", "label": {number % 2}}}' for number in range(300)))
    values = {
        "name": "texts", "dataset": {"name": "text_files", "root": str(texts)}, "teacher": {"model": "bilstm"},
        "student": {"model": "bilstm"}, "space": {"method": "kd", "width": 0.5},
    }  # fmt: skip
    with refused(SPEC, SpecError, match=found.format("300", "texts")):
        load_spec(values, changes)
    # 270 texts, 2 logits of 4 bytes; all are told by their number
    assert "at most 0.0022 MB of teacher outputs (teacher.cache_gb" in views_line(load_spec(values))
    told = [note for note in notes(load_spec(values, {"train.batch_size": 271})) if "batch_size" in note]
    assert told == ["train.batch_size is 271, but there are 270 texts to train on: one batch per epoch"]


def test_samples_that_are_not_counted_yet_are_called_what_they_are(tmp_path, monkeypatch):
    module = """
from kdsweep.datasets import Dataset, DatasetInfo
words = Dataset("words", "own", lambda source: DatasetInfo((), ("a", "b")), None, task="text")
"""
    (tmp_path / "own_words.py").write_text(module)
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = load_spec({
        "name": "texts", "dataset": {"name": "own_words:words"}, "teacher": {"model": "bilstm"},
        "student": {"model": "bilstm"}, "space": {"method": "kd", "width": 0.5},
    })  # fmt: skip
    assert "at most 0.008 MB of teacher outputs for 1,000 training texts (" in views_line(spec)


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
