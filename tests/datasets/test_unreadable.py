"""Image files that cannot be read are found before a sweep starts, in every split, all at once."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from inputs import DATA, refused
from PIL import Image

from kdsweep import tasks
from kdsweep.config.load import load_spec, notes
from kdsweep.datasets.images import FORMATS, fault_of
from kdsweep.errors import DataError, SpecError
from kdsweep.lazy import torch
from kdsweep.results.frames import load_results
from kdsweep.storage.paths import Store
from kdsweep.tasks.image.splits import prepare
from kdsweep.tune.origins import record_data

SIZE = (12, 10)
SPEC = """\
dataset: {{name: image_folder, root: {root}, val_fraction: 0.5, {more}}}
teacher: {{model: tutorial_teacher, train: {{epochs: 1}}}}
student: {{model: lightnn}}
space: {{method: kd, width: 0.5}}
storage: {root}/../runs
"""


def encoded(kind, seed=0, size=SIZE, mode="RGB"):
    draw = np.random.default_rng(seed)
    pixels = draw.integers(0, 256, (size[1], size[0], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, format=kind)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    """Noise as JPEG: twelve images to train on and four to test on, of each of two classes."""
    for split, count in (("train", 12), ("test", 4)):
        for label, name in enumerate(("ant", "bee")):
            for number in range(count):
                path = tmp_path / "images" / split / name / f"{number:02}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encoded("JPEG", 100 * label + number + 50 * (split == "test"), (32, 32)))
    return tmp_path / "images"


def damage(folder):
    """Damage one file in each of several ways, and return the damaged files."""
    whole = (folder / "train" / "ant" / "00.jpg").read_bytes()
    contents = {
        folder / "train" / "ant" / "03.jpg": whole[: len(whole) // 2],
        folder / "train" / "bee" / "05.jpg": b"",
        folder / "test" / "ant" / "01.jpg": whole[:-40],
        folder / "test" / "bee" / "02.jpg": b"not an image",
        folder / "test" / "bee" / "03.jpg": encoded("JPEG", 9, (40, 32)),
    }
    for path, content in contents.items():
        path.write_bytes(content)
    return list(contents)


def spec_file(folder, more=""):
    path = folder.parent / "sweep.yaml"
    path.write_text(SPEC.format(root=folder, more=more))
    return path


def test_validation_lists_every_unreadable_file_of_every_split(folder):
    load_spec(spec_file(folder))
    damaged = damage(folder)
    with refused(DATA, SpecError) as caught:
        load_spec(spec_file(folder))
    assert len(caught.value.faults) == len(damaged)
    for path, fault in zip(damaged, caught.value.faults, strict=True):
        assert f"sweep.yaml:1: dataset.root: {path}: " in fault


def test_many_unreadable_files_are_counted(folder):
    for path in folder.rglob("*.jpg"):
        if path.name != "00.jpg":
            path.write_bytes(b"")
    with refused(DATA, SpecError) as caught:
        load_spec(spec_file(folder))
    assert len(caught.value.faults) == 21
    assert (
        "8 more files are unreadable or of another size; repair or remove them, or set dataset.skip_unreadable"
        in caught.value.faults[-1]
    )


def test_a_resumed_sweep_names_them_in_one_line(folder, tmp_path):
    spec = load_spec(spec_file(folder))
    damaged = damage(folder)
    with refused(DATA, DataError) as caught:
        prepare(spec.dataset, 0, Store(tmp_path / "store"))
    assert all(str(path) in str(caught.value) for path in damaged)
    assert str(caught.value).endswith(
        "; repair or remove 2 in train, 3 in test, or set dataset.skip_unreadable to true"
    )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_cut_file_is_found_without_decoding_the_whole_ones(kind, tmp_path, monkeypatch):
    whole = encoded(kind)
    path = tmp_path / f"image.{kind.lower()}"
    for end in sorted({0, 1, 10, len(whole) // 2, len(whole) - 40, len(whole) - 9, len(whole) - 1, len(whole)}):
        path.write_bytes(whole[:end])
        decoded = fault_of(path, None, decode=True)
        if end == len(whole):
            assert decoded == ""
        if end <= len(whole) // 2:
            assert str(path) in decoded
        found = fault_of(path, None, decode=False)
        assert (found == "") == (decoded == "")
    if kind not in ("PPM", "TIFF"):
        path.write_bytes(whole)
        monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)
        assert fault_of(path, None, decode=False) == ""


def test_bytes_after_the_end_of_an_image_are_allowed(tmp_path):
    (tmp_path / "image.jpg").write_bytes(encoded("JPEG") + b"\x00" * 30)
    assert fault_of(tmp_path / "image.jpg", SIZE, decode=False) == ""


def test_a_file_that_changes_is_checked_again(tmp_path):
    path = tmp_path / "image.jpg"
    for content, broken in ((encoded("JPEG"), False), (b"x", True), (encoded("JPEG"), False)):
        path.write_bytes(content)
        assert bool(fault_of(path, None, decode=False)) is broken


def test_images_with_more_than_8_bits_are_found(tmp_path):
    Image.new("I;16", SIZE).save(tmp_path / "deep.png")
    assert "pixel format is I;16; accepted: 8 bits" in fault_of(tmp_path / "deep.png", SIZE, decode=False)


@pytest.mark.parametrize("stream", [False, True])
def test_unreadable_files_can_be_skipped_and_are_counted_everywhere(stream, folder, tmp_path):
    damaged = damage(folder)
    more = f"skip_unreadable: true, stream: {str(stream).lower()}"
    spec = load_spec(spec_file(folder, more))
    assert "unreadable images are skipped: 2 in train, 3 in test" in notes(spec)
    data = prepare(spec.dataset, 0, spec.sweep_dir.store)
    assert data.count("train") + data.count("val") == 22
    assert tasks.of(spec.dataset).prepare_test(spec.dataset, data)
    assert data.count("test") == 5
    spec.save(spec.sweep_dir.spec)
    record_data(spec.sweep_dir, data, scores=True)
    assert json.loads(spec.sweep_dir.data.read_text())["skipped"] == {"train": 2, "test": 3}
    assert "skipped_images" in load_results(spec.sweep_dir.root).trials.columns
    for path in damaged:
        path.unlink()
    cleaned = load_spec(spec_file(folder, f"stream: {str(stream).lower()}"))
    again = prepare(cleaned.dataset, 0, spec.sweep_dir.store)
    assert again.digest == data.digest
    assert again.skipped == {}
    assert record_data(cleaned.sweep_dir, again, scores=True) == ""


def test_a_truncated_test_image_can_be_deleted_after_the_start(folder):
    spec = load_spec(spec_file(folder))
    sweep, task = spec.sweep_dir, tasks.of(spec.dataset)
    record_data(sweep, prepare(spec.dataset, 0, sweep.store), scores=True)
    broken = folder / "test" / "ant" / "01.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    with refused(DATA, DataError, match="01.jpg: cannot read the image: OSError: .*; repair or remove 1 in test"):
        prepare(spec.dataset, 0, sweep.store)
    broken.unlink()
    data = prepare(spec.dataset, 0, sweep.store)
    assert record_data(sweep, data, scores=True) == "note: the test split has changed since the sweep began"
    assert task.prepare_test(spec.dataset, data)
    assert len(data.split("test", torch.device("cpu"))) == 7


def test_a_class_without_a_readable_image_is_refused(folder):
    for path in (folder / "test" / "ant").iterdir():
        path.write_bytes(b"")
    with refused(DATA, SpecError, match="dataset.root: .*test/ant: none of the 4 images can be read; accepted: at"):
        load_spec(spec_file(folder, "skip_unreadable: true"))


def test_an_empty_class_folder_is_found_by_validation(folder):
    for path in (folder / "test" / "bee").iterdir():
        path.unlink()
    with refused(DATA, SpecError, match="test/bee: no images; accepted: at least one"):
        load_spec(spec_file(folder))


def test_only_image_folders_can_skip_files(sweep_file):
    sweep_file.write_text(sweep_file.read_text().replace("subset: 1200", "subset: 1200, skip_unreadable: true"))
    accepted = r"false, or a data set whose images are files of their own \(image_folder and unlabelled_folder\)$"
    with refused(DATA, SpecError, match=f"skip_unreadable: found true with 'mnist_mini'; accepted: {accepted}"):
        load_spec(sweep_file)
