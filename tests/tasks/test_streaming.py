"""Images that are decoded as they are needed: the same numbers as those that were decoded once."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
import torch
from inputs import DATA, refused
from PIL import Image

import kdsweep
from kdsweep.datasets.section import DatasetSpec
from kdsweep.errors import DataError, SpecError
from kdsweep.storage.paths import Store
from kdsweep.tasks.image.batches import StreamedImages
from kdsweep.tasks.image.splits import prepare, prepare_test, raw_images
from kdsweep.tasks.image.views import View
from kdsweep.worker.workbench import Workbench, provide_teacher

CPU = torch.device("cpu")
SIDE = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Noisy images of two classes, one bright and one dark, of unequal sizes."""
    root = tmp_path_factory.mktemp("images")
    draw = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 6)):
        for name, light in (("day", 130), ("night", 90)):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                height, width = draw.integers(18, 30, 2)
                pixels = np.clip(draw.normal(light, 60, (height, width, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number:02}.jpg")
    return root


def dataset(folder, **values):
    return DatasetSpec.model_validate({"name": "image_folder", "root": str(folder), "resize": SIDE} | values)


def sweep_file(folder, tmp_path, file, **values):
    path = tmp_path / f"{file}.yaml"
    path.write_text(json.dumps({
        "dataset": {"name": "image_folder", "root": str(folder), "resize": SIDE} | values,
        "teacher": {"model": "tutorial_teacher", "width": 0.1, "train": {"epochs": 3, "precision": "float32"}},
        "student": {"model": "lightnn"},
        "space": {"method": ["kd", "hint", "none"], "width": 0.25, "lr": 3e-3},
        "train": {"epochs": 2, "batch_size": 16, "precision": "float32"},
        "search": {"trials": 3, "points": [{"method": name} for name in ("kd", "hint", "none")]},
        "scheduler": {"name": "none"},
        "confirm": {"top": 1, "seeds": 1},
        "storage": str(tmp_path / "runs"),
    }))  # fmt: skip
    return path


@pytest.mark.parametrize("augment", ["none", "crop_flip", "rand_augment+random_erasing+mixup+cutmix"])
def test_batches_are_those_of_decoded_images(augment, folder, tmp_path):
    store = Store(tmp_path)
    decoded = prepare(dataset(folder), 0, store)
    streamed = prepare(dataset(folder, stream=True), 0, store)
    assert (streamed.mean, streamed.std, streamed.input_shape) == (decoded.mean, decoded.std, (3, SIDE, SIDE))
    assert prepare_test(dataset(folder, stream=True), streamed)
    prepare_test(dataset(folder), decoded)
    for name in ("train", "val", "test"):
        whole, parts = decoded.split(name, CPU), streamed.split(name, CPU)
        assert isinstance(parts, StreamedImages)
        assert len(parts) == len(whole)
        view = View(augment, 0, 1, len(whole), CPU)
        order = torch.randperm(len(whole)).split(5)
        for expected, found in zip(whole.sequence(order, view), parts.sequence(order, view), strict=True):
            assert torch.equal(expected, found)
            assert found.is_contiguous(memory_format=torch.channels_last)
        for (expected, labels), (found, its_labels) in zip(whole.batches(7), parts.batches(7), strict=True):
            assert torch.equal(expected, found)
            assert torch.equal(labels, its_labels)
        assert torch.equal(whole.batch(order[0], view), parts.batch(order[0], view))
        assert all(map(torch.equal, whole.targets(order[0], view), parts.targets(order[0], view)))
        assert torch.equal(whole.first(3).images, parts.first(3).images)


def test_no_image_is_decoded_before_it_is_needed(folder, tmp_path):
    data = prepare(dataset(folder, stream=True, normalize="imagenet"), 0, Store(tmp_path))
    assert not list(tmp_path.rglob("*_images.bin"))
    assert data.split("train", CPU).images.numel() == 0


@pytest.mark.parametrize("augment", ["none", "crop+flip+mixup"])
def test_a_run_has_the_curve_of_one_on_decoded_images(augment, folder, tmp_path):
    curves = []
    for name, stream in (("decoded", False), ("streamed", True)):
        spec = kdsweep.load_spec(sweep_file(folder, tmp_path, name, stream=stream), {"space.augment": augment})
        data = prepare(spec.dataset, spec.seed, spec.sweep_dir.store)
        card = provide_teacher(spec, spec.sweep_dir, data, CPU, lambda metrics: None)
        bench = Workbench(spec, spec.sweep_dir, data, card, CPU)
        settings = {"width": 0.25, "lr": 3e-3, "alpha": 0.5, "augment": augment}
        runs = [bench.training({"method": method, **settings}, 1, tmp_path / "none") for method in ("kd", "hint")]
        curves.append([
            {key: value for key, value in run.run_epoch().items() if key != "seconds"} for run in runs for _ in "12"
        ])  # fmt: skip
    assert curves[0] == curves[1]


def test_an_epoch_that_was_broken_off_leaves_nothing_to_the_next(folder, tmp_path):
    images = prepare(dataset(folder, stream=True), 0, Store(tmp_path)).split("train", CPU)
    first, second = torch.arange(40).split(4), torch.arange(40, 72).split(4)
    next(images.sequence(first))
    for index, found in zip(second, images.sequence(second), strict=True):
        assert torch.equal(found, images.batch(index))


def test_streaming_draws_nothing_from_the_random_state_of_a_run(folder, tmp_path):
    images = prepare(dataset(folder, stream=True), 0, Store(tmp_path)).split("train", CPU)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    list(images.sequence(torch.arange(8).split(4)))
    assert torch.rand(1) == expected


@pytest.mark.slow
def test_a_sweep_streams_and_confirms_and_its_student_is_evaluated(local_ray, folder, tmp_path):
    results = kdsweep.run(kdsweep.load_spec(sweep_file(folder, tmp_path, "streamed", stream=True)))
    assert list(results.trials["state"]) == ["COMPLETE"] * 3
    assert not list((tmp_path / "runs").rglob("*_images.bin"))
    (student,) = results.export(tmp_path / "students", top=1)
    from kdsweep.results.student import evaluate_student

    spec = kdsweep.load_spec(tmp_path / "streamed.yaml").dataset
    for split in ("val", "test"):
        facts = evaluate_student(student, split, root=spec.root)
        assert facts["images"] == len(raw_images(spec.model_copy(update={"stream": False}), 0, split))
    best = results.best(1).iloc[0]
    assert evaluate_student(student, "val", root=spec.root)["accuracy"] == pytest.approx(best["val_accuracy"])


def test_an_image_that_cannot_be_read_is_said_in_one_line(folder, tmp_path):
    broken = folder / "train" / "day" / "broken.jpg"
    shutil.copyfile(next(broken.parent.iterdir()), broken)
    try:
        spec = dataset(folder, stream=True, normalize="imagenet")
        images = prepare(spec, 0, Store(tmp_path)).split("train", CPU)
        broken.write_bytes(b"no image")
        with refused(DATA, DataError, match=r"^.*broken\.jpg: not an image; accepted: JPEG, .*$"):
            list(images.batches(8))
    finally:
        broken.unlink()


def test_only_images_in_files_of_their_own_are_streamed(folder, tmp_path):
    path = sweep_file(folder, tmp_path, "wrong", name="mnist_mini", resize=0, stream=True)
    accepted = r"dataset.stream: found true with 'mnist_mini'; accepted: false, or a data set whose images are files"
    with refused(DATA, SpecError, match=accepted):
        kdsweep.load_spec(path)
    with refused(
        DATA, DataError, match="cannot be streamed: its images are not separate files; set dataset.stream to false"
    ):
        prepare(DatasetSpec(name="mnist_mini", stream=True), 0, Store(tmp_path))


def test_images_that_do_not_fit_into_memory_are_refused_with_a_way_out(folder, tmp_path):
    root = tmp_path / "many"
    each, memory = 2 * 3 * 4096**2, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in ("day", "night"):
        (root / "train" / name).mkdir(parents=True)
        for number in range(memory // each // 2 + 1):
            (root / "train" / name / f"{number}.jpg").symlink_to(folder / "train" / name / "00.jpg")
    with refused(DATA, DataError, match=r"images of 4096 x 4096 needs .* GB, and this machine has"):
        prepare(dataset(root, resize=4096), 0, Store(tmp_path))
    streamed = prepare(dataset(root, resize=4096, stream=True, normalize="imagenet"), 0, Store(tmp_path))
    assert streamed.input_shape == (3, 4096, 4096)
