"""Map-style data sets of the program are read once and stored as they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset
from torchvision.transforms import v2

from kdsweep import datasets, tasks
from kdsweep.datasets import Source
from kdsweep.datasets.objects import store, store_unlabelled
from kdsweep.datasets.section import DatasetSpec
from kdsweep.errors import DataError
from kdsweep.storage.paths import Store

DRAW = np.random.default_rng(0)
IMAGES = DRAW.integers(0, 256, (10, 3, 8, 6), dtype=np.uint8)
LABELS = [index % 3 for index in range(10)]


class Pairs:
    """Samples and labels as they are, as any user would write it."""

    def __init__(self, samples, labels=LABELS, transform=lambda sample: sample, classes=()):
        self.samples, self.labels, self.transform = samples, labels, transform
        if classes:
            self.classes = classes

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.transform(self.samples[index]), self.labels[index]


def ignore(done, total, text):
    """Ignore the progress."""


def pictures(mode="RGB"):
    return [Image.fromarray(image.transpose(1, 2, 0)).convert(mode) for image in IMAGES]


def stored(folder, **splits):
    """The name of the stored data set, and what it reads for each split."""
    told = []
    found = store(splits, folder, lambda done, total, text: told.append((done, total, text)))
    total = sum(map(len, splits.values()))
    assert told[-1] == (total, total, f"samples read as {found.name.removeprefix('stored_')}")
    dataset = datasets.get(found.name)
    source = Source(found.root)
    read = dataset.load if found.name == "stored_images" else dataset.read
    return found, {split: read(source, split) for split in splits}, dataset.describe(source)


@pytest.mark.parametrize(
    "data",
    [
        TensorDataset(torch.from_numpy(IMAGES), torch.tensor(LABELS)),
        Pairs(IMAGES.transpose(0, 2, 3, 1)),
        Pairs(pictures()),
        Pairs(pictures(), transform=v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])),
        Pairs(list(IMAGES / np.float32(255)), labels=list(map(np.int64, LABELS))),
    ],
    ids=["tensors", "channels last", "PIL", "ToTensor", "arrays in 0..1"],
)
def test_images_of_8_bits_are_stored_exactly_however_they_come(tmp_path, data):
    found, read, info = stored(tmp_path, train=data)
    assert found.name == "stored_images"
    assert (read["train"].images == IMAGES).all()
    assert read["train"].labels.tolist() == LABELS
    assert (info.input_shape, info.class_names, info.splits) == ((3, 8, 6), ("0", "1", "2"), ("train",))


def test_grey_images_have_one_channel_and_others_three(tmp_path):
    assert stored(tmp_path, train=Pairs(pictures("L")))[2].input_shape == (1, 8, 6)
    assert stored(tmp_path, train=Pairs(list(IMAGES[:, 0])))[2].input_shape == (1, 8, 6)
    assert stored(tmp_path, train=Pairs(pictures("RGBA")))[2].input_shape == (3, 8, 6)


def test_other_samples_are_stored_as_they_are(tmp_path):
    normalised = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.2] * 3)])
    found, read, info = stored(tmp_path, train=Pairs(pictures(), transform=normalised))
    assert (found.name, info.input_shape) == ("stored_tensors", (3, 8, 6))
    assert (read["train"].images == torch.stack([normalised(image) for image in pictures()]).numpy()).all()
    found, read, info = stored(tmp_path, train=Pairs(list(np.arange(40.0).reshape(10, 4))))
    assert (found.name, info.input_shape, read["train"].images.dtype) == ("stored_tensors", (4,), np.float32)
    found, read, _ = stored(tmp_path, train=Pairs(list(torch.arange(70, dtype=torch.int32).reshape(10, 7))))
    assert (found.name, read["train"].images.dtype, read["train"].images[9, 6]) == ("stored_integers", np.int64, 69)


def test_pixels_that_turn_out_to_be_none_make_all_samples_tensors(tmp_path):
    images = list(IMAGES / np.float32(255))
    images[7] = images[7] + np.float32(0.001)
    found, read, _ = stored(tmp_path, train=Pairs(images))
    assert found.name == "stored_tensors"
    assert (read["train"].images == np.stack(images)).all()


def test_the_same_samples_are_stored_once_and_others_elsewhere(tmp_path):
    splits = {"train": Pairs(pictures()), "test": Pairs(pictures()[:4])}
    first = stored(tmp_path, **splits)[0]
    again = stored(tmp_path, train=Pairs(list(IMAGES)), test=Pairs(pictures()[:4]))[0]
    other = stored(tmp_path, **{**splits, "train": Pairs(pictures(), labels=LABELS[::-1])})[0]
    assert first == again != other
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([first.root.name, other.root.name])


def test_class_names_are_those_of_the_data_set_or_of_the_one_it_is_a_part_of(tmp_path):
    whole = Pairs(pictures(), classes=["cat", "dog", "emu", "fox"])
    assert stored(tmp_path, train=Subset(whole, range(6)))[2].class_names == ("cat", "dog", "emu", "fox")
    assert stored(tmp_path, train=Pairs(pictures(), classes=["cat", "dog"]))[2].class_names == ("0", "1", "2")


class Failing(Pairs):
    def __getitem__(self, index):
        raise RuntimeError("the disk\nis gone")


class Endless(IterableDataset):
    def __iter__(self):
        yield from ()


def noise(sample):
    return torch.rand(3, 8, 6)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (DataLoader(Pairs(pictures())), "train: found a DataLoader; accepted: its data set, train.dataset"),
        (Endless(), r"train: found an Endless without len\(\) or \[index\]; accepted: a map-style data set of pairs"),
        ([], "train: found no samples; accepted: at least one"),
        (Pairs(pictures(), transform=noise), r"train\[0\]: differs each time it is read, .*augment="),
        (Failing(pictures()), r"train\[0\]: RuntimeError: the disk is gone"),
        ([{"image": IMAGES[0], "label": 1}], r"train\[0\]: found a dict; accepted: pairs of a sample"),
        ([(IMAGES[0], 1, "name")], r"train\[0\]: found 3 values; accepted: pairs"),
        ([("text", 1)], r"train\[0\]: the sample is a str; accepted: pairs"),
        ([(IMAGES[0], 0.5)], r"train\[0\]: the label is 0.5; accepted: a class number from 0"),
        ([(IMAGES[0], -1)], r"train\[0\]: the label is -1; accepted: a class number from 0"),
        ([(IMAGES[0], 1), (IMAGES[0][:, 1:], 1)], "train: found shapes 3 x 7 x 6 and 3 x 8 x 6; accepted: samples of"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_taken_is_said_in_one_line(tmp_path, data, message):
    with pytest.raises(DataError, match=f"^{message}") as raised:
        store({"train": data}, tmp_path, ignore)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [np.nan, np.inf, 1e300])
def test_numbers_that_are_not_finite_are_refused_where_they_are_read(tmp_path, number):
    samples = DRAW.random((10, 3, 8, 6))
    broken = samples.copy()
    broken[7, 1, 2, 3] = number
    with pytest.raises(
        DataError, match=rf"^test\[7\]: found {number:g} in the sample; accepted: num".replace("+", r"\+")
    ):
        store({"train": Pairs(list(samples)), "test": Pairs(list(broken))}, tmp_path, ignore)
    assert list(tmp_path.iterdir()) == []


def test_samples_of_two_splits_are_told_by_the_arguments_of_the_sweep(tmp_path):
    further = store_unlabelled(list(IMAGES), tmp_path)
    for name, splits, message in (
        ("test", {"train": Pairs(IMAGES), "test": Pairs(IMAGES[:8])},
         "test: 8 of the 8 images are also in train; accepted: images that are not in train"),
        ("unlabelled", {"train": Pairs(IMAGES)},
         "unlabelled: 5 of the 5 images of split 'val' are also there; accepted: images that are in neither the"),
    ):  # fmt: skip
        found = store(splits, tmp_path, ignore)
        values = {"name": found.name, "root": str(found.root), "normalize": "none", "val_fraction": 0.5}
        unlabelled = {"unlabelled": {"root": str(further)}} if name == "unlabelled" else {}
        spec = DatasetSpec.model_validate(values | unlabelled)
        with pytest.raises(DataError) as raised:
            tasks.of(spec).prepare(spec, 0, Store(tmp_path))
        assert str(raised.value).startswith(message)
        assert str(tmp_path) not in str(raised.value)


def test_splits_of_different_shapes_are_refused(tmp_path):
    with pytest.raises(DataError, match="^test: found shape 3 x 4 x 6 after 3 x 8 x 6; accepted: samples of one shape"):
        store({"train": Pairs(IMAGES), "test": Pairs(IMAGES[:, :, :4])}, tmp_path, ignore)


def test_files_that_are_gone_are_said_to_be_gone(tmp_path):
    with pytest.raises(DataError, match="pass the data set to kdsweep.sweep again"):
        datasets.get("stored_images").describe(Source(tmp_path / "gone"))


@pytest.mark.parametrize(
    "transform",
    [
        v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]),
        v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.2] * 3)]),
    ],
    ids=["in 0..1", "normalised"],
)
def test_models_get_the_samples_that_the_data_set_returns(tmp_path, transform):
    data = Pairs(pictures(), transform=transform)
    found = store({"train": data, "val": data}, tmp_path, ignore)
    normalize = "none" if found.name == "stored_images" else "dataset"
    spec = DatasetSpec(name=found.name, root=str(found.root), normalize=normalize)
    with pytest.raises(DataError, match="^val: 10 of the 10 .* are also in train"):
        tasks.of(spec).prepare(spec, 0, Store(tmp_path))
    found = store({"train": data}, tmp_path, ignore)
    spec = DatasetSpec(name=found.name, root=str(found.root), normalize=normalize, val_fraction=0.5)
    split = tasks.of(spec).prepare(spec, 0, Store(tmp_path)).split("train", torch.device("cpu"))
    batch = split.batch(torch.arange(len(split)))
    samples = torch.stack([data[index][0] for index in range(len(data))])
    nearest = (batch[:, None] - samples).abs().amax(dim=(2, 3, 4)).min(dim=1).values
    assert len(split) == 5
    assert nearest.max() <= 1e-6
