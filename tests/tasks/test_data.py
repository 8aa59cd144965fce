"""Images for training: the split, the store of decoded images, and the keyed views."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from inputs import DATA, refused
from PIL import Image

from kdsweep import datasets
from kdsweep.datasets import Source
from kdsweep.datasets.section import DatasetSpec
from kdsweep.errors import DataError
from kdsweep.storage.arrays import ArrayWriter, has_array, map_array, save_array
from kdsweep.storage.paths import Store
from kdsweep.tasks.image.batches import Images
from kdsweep.tasks.image.splits import IMAGENET, PreparedData, prepare, prepare_test, split_arrays
from kdsweep.tasks.image.views import View
from kdsweep.tasks.split import stratified

CPU = torch.device("cpu")


def mini(**values):
    return DatasetSpec.model_validate({"name": "mnist_mini"} | values)


def folder_of(root, **values):
    return DatasetSpec.model_validate({"name": "image_folder", "root": str(root)} | values)


def paint(path, pixels):
    """Write pixels [H, W, 3] as a file whose size depends on theirs alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, format="BMP")


@pytest.fixture
def folder(tmp_path):
    """Images of noise, 6 high and 8 wide: ten of each of two classes to train on, four to test on."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 4)):
        for name in ("ant", "bee"):
            for number in range(count):
                pixels = draw.integers(0, 256, (6, 8, 3), np.uint8)
                paint(tmp_path / "images" / split / name / f"{number}.bmp", pixels)
    return tmp_path / "images"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def pixels(data, name):
    return data.split(name, CPU).images.numpy().copy()


# The split


def test_each_class_gives_its_share():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [50, 30, 20]))
    first, rest = stratified(labels, 50, seed=7)
    assert np.bincount(labels[first]).tolist() == [25, 15, 10]
    assert np.bincount(labels[rest]).tolist() == [25, 15, 10]


def test_what_is_left_over_goes_to_the_largest_remainders():
    labels = np.repeat([0, 1, 2], [10, 11, 12])
    first, _ = stratified(labels, 16, seed=0)  # shares of 4.85, 5.33 and 5.82
    assert np.bincount(labels[first]).tolist() == [5, 5, 6]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 80), st.integers(0, 2**31))
def test_a_split_is_exact_disjoint_and_whole(drawn, count, seed):
    labels = np.array(drawn)
    first, rest = stratified(labels, count, seed)
    assert len(first) == min(count, len(labels))
    assert sorted([*first, *rest]) == list(range(len(labels)))
    assert first.tolist() == sorted(first)
    share = len(first) / len(labels)
    for label in set(drawn):
        assert abs((labels[first] == label).sum() - share * (labels == label).sum()) < 1


def test_the_split_depends_on_the_seed_alone():
    labels = np.arange(100) % 4
    first, _ = stratified(labels, 40, seed=1)
    assert np.array_equal(stratified(labels, 40, seed=1)[0], first)
    assert not np.array_equal(stratified(labels, 40, seed=2)[0], first)
    assert first.tolist() != list(range(40))


def test_which_of_a_class_are_taken_does_not_depend_on_the_other_classes():
    few, many = np.repeat([0, 1], 20), np.repeat([0, 3, 1, 2], 20)
    taken = []
    for labels in (few, many):
        first, _ = stratified(labels, len(labels) // 2, seed=5)
        ranks = {label: np.flatnonzero(np.isin(np.flatnonzero(labels == label), first)) for label in (0, 1)}
        taken.append({label: found.tolist() for label, found in ranks.items()})
    assert taken[0] == taken[1]
    assert taken[0][0] != taken[0][1]


def test_training_and_validation_images_are_stratified_parts_of_the_training_split(store):
    spec = mini(subset=500, val_fraction=0.4)
    data = prepare(spec, 3, store)
    train, val = data.split("train", CPU), data.split("val", CPU)
    assert torch.bincount(train.labels).tolist() == [30] * 10
    assert torch.bincount(val.labels).tolist() == [20] * 10
    source = datasets.get("mnist_mini").load(Source(store.root), "train")
    known = {image.tobytes(): label for image, label in zip(*source, strict=True)}
    seen = [(image.tobytes(), label) for part in (train, val) for image, label in zip(
        part.images.numpy(), part.labels.tolist(), strict=True)]  # fmt: skip
    assert len({image for image, _ in seen}) == 500
    assert all(known[image] == label for image, label in seen)


def test_without_a_subset_every_training_image_is_used(store):
    data = prepare(mini(val_fraction=0.25), 0, store)
    assert (len(data.split("train", CPU)), len(data.split("val", CPU))) == (3000, 1000)
    assert len({image.tobytes() for name in ("train", "val") for image in pixels(data, name)}) == 4000


def test_a_validation_split_of_its_own_is_used_whole_and_training_loses_nothing(folder, store):
    for name in ("ant", "bee"):
        for number in range(3):
            paint(folder / "val" / name / f"{number}.bmp", np.full((6, 8, 3), 40 * number, np.uint8))
    data = prepare(folder_of(folder, val_fraction=0.5), 0, store)
    assert len(data.split("train", CPU)) == 20
    assert pixels(data, "val")[:, 0, 0, 0].tolist() == [0, 40, 80] * 2
    assert data.split("val", CPU).labels.tolist() == [0] * 3 + [1] * 3
    fewer = prepare(folder_of(folder, subset=8), 0, store)
    assert torch.bincount(fewer.split("train", CPU).labels).tolist() == [4, 4]
    assert len(fewer.split("val", CPU)) == 6


def test_too_few_images_to_split_are_refused(folder, store):
    for subset, fraction in ((2, 0.1), (2, 0.9)):
        with refused(DATA, DataError, match=r"images to train on and \d to select by; accepted: at least one of each"):
            prepare(folder_of(folder, subset=subset, val_fraction=fraction), 0, store)
    assert not (store.root / "data").exists()


def test_the_split_is_found_again_without_the_store(folder, store):
    spec = folder_of(folder, val_fraction=0.3)
    data = prepare(spec, 11, store)
    for name, part in zip(("train", "val"), split_arrays(spec, 11), strict=True):
        assert np.array_equal(pixels(data, name), part.images)


# The test split


def test_the_test_split_is_checked_but_not_written_before_it_is_asked_for(folder, store):
    whole = (folder / "test" / "bee" / "0.bmp").read_bytes()
    spec = folder_of(folder)
    data = prepare(spec, 0, store)
    (folder / "test" / "bee" / "0.bmp").write_bytes(b"no image")
    with refused(DATA, DataError, match=r"bee/0\.bmp: not an image.*; repair or remove 1 in test, or set dataset.skip"):
        prepare(spec, 0, store)
    assert sorted(path.name for path in data.root.glob("*.bin")) == [
        "train_images.bin", "train_labels.bin", "val_images.bin", "val_labels.bin",
    ]  # fmt: skip
    with refused(DATA, DataError, match=r"bee/0\.bmp: not an image"):
        prepare_test(spec, data)
    (folder / "test" / "bee" / "0.bmp").write_bytes(whole)
    assert prepare_test(spec, data)
    assert np.array_equal(pixels(data, "test"), datasets.get("image_folder").load(Source(folder), "test").images)
    assert data.split("test", CPU).labels.tolist() == [0] * 4 + [1] * 4


def test_a_data_set_without_a_test_split_says_so(folder, store):
    for path in sorted((folder / "test").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (folder / "test").rmdir()
    spec = folder_of(folder)
    assert not prepare_test(spec, prepare(spec, 0, store))


# Normalisation


def test_the_normalisation_is_that_of_the_training_images_alone(folder, store):
    data = prepare(folder_of(folder, val_fraction=0.4), 0, store)
    scaled = pixels(data, "train").astype(np.float64) / 255
    assert data.mean == pytest.approx(scaled.mean((0, 2, 3)), rel=1e-12)
    assert data.std == pytest.approx(scaled.std((0, 2, 3)), rel=1e-12)
    every = np.concatenate([scaled, pixels(data, "val") / 255])
    assert data.mean != pytest.approx(every.mean((0, 2, 3)), rel=1e-4)


def test_a_channel_without_spread_is_left_at_its_scale(folder, store):
    for path in (folder / "train").rglob("*.bmp"):
        image = np.asarray(Image.open(path)).copy()
        image[..., 1] = 51
        paint(path, image)
    data = prepare(folder_of(folder), 0, store)
    assert data.mean[1] == pytest.approx(0.2)
    assert data.std[1] == 1.0
    assert torch.isfinite(data.split("train", CPU).batch(torch.arange(5))).all()


def test_other_normalisations_are_those_of_imagenet_none_and_the_data_sets_own(folder, store):
    imagenet = prepare(folder_of(folder, normalize="imagenet"), 0, store)
    assert (imagenet.mean, imagenet.std) == IMAGENET == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    none = prepare(folder_of(folder, normalize="none"), 0, store)
    assert (none.mean, none.std) == ((0.0,) * 3, (1.0,) * 3)
    known = prepare(mini(), 0, store)
    assert (known.mean, known.std) == ((0.1307,), (0.3081,))


def test_normalised_images_are_scaled_shifted_floats_in_channels_last(folder, store):
    data = prepare(folder_of(folder), 0, store)
    train = data.split("train", CPU)
    mean, std = (np.array(values)[:, None, None] for values in (data.mean, data.std))
    expected = (train.images.numpy() / 255 - mean) / std
    batch = train.normalised(train.images)
    assert batch.dtype == torch.float32
    assert batch.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(batch.numpy(), expected, atol=2e-6)
    index = torch.tensor([5, 0, 5])
    np.testing.assert_allclose(train.batch(index).numpy(), expected[[5, 0, 5]], atol=2e-6)
    parts = list(train.batches(7))
    assert [len(labels) for _, labels in parts] == [7, 7, 4]
    np.testing.assert_allclose(torch.cat([images for images, _ in parts]).numpy(), expected, atol=2e-6)
    assert torch.equal(torch.cat([labels for _, labels in parts]), train.labels)
    assert train.images.dtype == torch.uint8


# The store


def repaint(path, value, keep_time):
    """Fill an image with one value; its size stays."""
    before = path.stat()
    paint(path, np.full((6, 8, 3), value, np.uint8))
    assert path.stat().st_size == before.st_size
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_second_sweep_reads_the_store(folder, store, monkeypatch):
    first = prepare(folder_of(folder), 0, store)
    before = {name: pixels(first, name) for name in ("train", "val")}
    monkeypatch.setattr("kdsweep.datasets.image_folder.pixels", None)  # so that decoding again would fail
    second = prepare(folder_of(folder, augment="crop_flip"), 0, store)
    assert second == first
    assert all(np.array_equal(pixels(second, name), before[name]) for name in before)


def test_a_known_data_set_needs_its_folder_only_once(store, tmp_path):
    first = prepare(mini(root=str(tmp_path / "here"), subset=100), 0, store)
    assert prepare(mini(root=str(tmp_path / "there"), subset=100, download=False), 0, store) == first


@pytest.mark.parametrize(
    "change",
    ["a repainted image", "a repainted image of the same time", "a new image", "a lost image", "one behind a link"],
)
def test_a_changed_folder_is_decoded_again(change, folder, store, tmp_path):
    if change.endswith("link"):
        (folder / "train" / "bee").rename(tmp_path / "bees")
        (folder / "train" / "bee").symlink_to(tmp_path / "bees")
    first = prepare(folder_of(folder, val_fraction=0.2), 0, store)
    for path in sorted((folder / "train" / "bee").iterdir())[:8]:
        if change == "a new image":
            paint(path.with_stem(f"new{path.stem}"), np.full((6, 8, 3), 77, np.uint8))
        elif change == "a lost image":
            path.unlink()
        else:
            repaint(path, 77, keep_time=change.endswith("time"))
    second = prepare(folder_of(folder, val_fraction=0.2), 0, store)
    assert second.digest != first.digest
    uniform = sum((image == 77).all() for name in ("train", "val") for image in pixels(second, name))
    count = sum(len(second.split(name, CPU)) for name in ("train", "val"))
    assert (uniform, count) == {"a new image": (8, 28), "a lost image": (0, 12)}.get(change, (8, 20))


def test_what_else_lies_beside_the_splits_does_not_matter(folder):
    inside = Store(folder / "runs" / ".cache")
    first = prepare(folder_of(folder), 0, inside)
    (folder / "notes.txt").write_text("about these images")
    assert prepare(folder_of(folder), 0, inside) == first


@pytest.mark.parametrize(
    "other", [{"subset": 90}, {"val_fraction": 0.3}, {"normalize": "none"}, {"resize": 14}, {"seed": 1}]
)
def test_what_changes_the_images_has_a_place_of_its_own(other, store):
    base = prepare(mini(subset=100), 0, store)
    changed = prepare(
        mini(**{"subset": 100} | {k: v for k, v in other.items() if k != "seed"}), other.get("seed", 0), store
    )
    assert changed.digest != base.digest
    assert changed.root != base.root
    assert changed.input_shape == ((1, 14, 14) if "resize" in other else (1, 28, 28))


@pytest.mark.parametrize("name", ["train_images.bin", "val_labels.bin"])
def test_a_file_cut_short_is_decoded_again(name, store):
    spec = mini(subset=100)
    data = prepare(spec, 0, store)
    before = map_array(data.root / name).clone()
    (data.root / name).write_bytes((data.root / name).read_bytes()[:-5])
    assert torch.equal(map_array(prepare(spec, 0, store).root / name), before)


def test_what_was_prepared_opens_elsewhere_as_it_was(store):
    data = prepare(mini(subset=100), 0, store)
    opened = PreparedData.load(data.root)
    assert opened == data
    assert opened.num_classes == 10
    assert opened.described().keys() == {"digest", "input_shape", "class_names", "mean", "std", "streams", "resize"}


def test_a_users_own_data_set_is_known_by_its_content(store, tmp_path, monkeypatch):
    module = tmp_path / "own_images.py"
    module.write_text(
        "import numpy as np\n"
        "VALUE = 1\n"
        "def read(source, split):\n"
        "    if split != 'train':\n"
        "        raise ValueError(split)\n"
        "    images = np.arange(20, dtype=np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2) * VALUE\n"
        "    return images, np.arange(20) % 2, ['even', 'odd']\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    spec = DatasetSpec.model_validate({"name": "own_images:read", "val_fraction": 0.2})
    first = prepare(spec, 0, store)
    assert first.class_names == ("even", "odd")
    assert prepare(spec, 0, store) == first
    monkeypatch.setattr(sys.modules["own_images"], "VALUE", 2)
    second = prepare(spec, 0, store)
    assert second.digest != first.digest
    assert np.array_equal(pixels(second, "train"), 2 * pixels(first, "train"))


def test_arrays_come_back_as_they_were_and_damaged_ones_not_at_all(tmp_path):
    for dtype in (torch.uint8, torch.int64, torch.float32, torch.bfloat16):
        tensor = torch.arange(24).reshape(4, 3, 2).to(dtype)
        writer = ArrayWriter(tmp_path / "array.bin")
        writer.append(tensor.transpose(1, 2)[:3])
        writer.append(tensor.transpose(1, 2)[3:])
        writer.close()
        assert torch.equal(map_array(tmp_path / "array.bin"), tensor.transpose(1, 2))
        assert map_array(tmp_path / "array.bin").dtype == dtype
        if dtype != torch.bfloat16:  # NumPy has none
            save_array(tensor.transpose(1, 2).numpy(), tmp_path / "array.bin")
            assert torch.equal(map_array(tmp_path / "array.bin"), tensor.transpose(1, 2))
            assert map_array(tmp_path / "array.bin").dtype == dtype
    assert sorted(path.name for path in tmp_path.iterdir()) == ["array.bin", "array.bin.json"]
    with (tmp_path / "array.bin").open("ab") as file:
        file.write(b"x")
    assert not has_array(tmp_path / "array.bin")
    with refused(DATA, DataError, match=r"array\.bin: missing or truncated"):
        map_array(tmp_path / "array.bin")


# Views


def noise(count, height=28, width=28, channels=1):
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=draw)


def candidates(image, rows, columns):
    """Every way to pad an image [C, H, W] by a border, cut out a window of its size and mirror it or not."""
    _, height, width = image.shape
    padded = np.pad(image, ((0, 0), (rows, rows), (columns, columns)))
    for down in range(2 * rows + 1):
        for right in range(2 * columns + 1):
            window = padded[:, down : down + height, right : right + width]
            yield (down, right, False), window
            yield (down, right, True), window[:, :, ::-1]


def test_no_augmentation_leaves_images_as_they_are():
    images = noise(5)
    assert View("none", 0, 1, 5, CPU).apply(images, torch.arange(5)) is images


def test_flip_mirrors_about_half_of_the_images_exactly():
    images = noise(1000, 5, 7, 3)
    varied = View("flip", 3, 1, 1000, CPU).apply(images, torch.arange(1000))
    kept = (varied == images).flatten(1).all(1)
    mirrored = (varied == images.flip(3)).flatten(1).all(1)
    assert (kept ^ mirrored).all()
    assert 450 < kept.sum() < 550


@pytest.mark.parametrize(("height", "width", "rows", "columns"), [(28, 28, 3, 3), (16, 32, 2, 4), (5, 8, 1, 1)])
def test_crop_flip_is_a_window_of_the_padded_image_mirrored_or_not(height, width, rows, columns):
    count = 300
    images = noise(count, height, width, 2)
    varied = View("crop_flip", 0, 1, count, CPU).apply(images, torch.arange(count)).numpy()
    found = []
    for image, seen in zip(images.numpy(), varied, strict=True):
        matches = [how for how, window in candidates(image, rows, columns) if np.array_equal(window, seen)]
        assert len(matches) == 1
        found += matches
    downs, rights, mirrored = zip(*found, strict=True)
    assert set(downs) == set(range(2 * rows + 1))
    assert set(rights) == set(range(2 * columns + 1))
    assert 100 < sum(mirrored) < 200
    evenly = count / (2 * rows + 1)
    assert np.bincount(downs).max() < 1.6 * evenly


def test_a_view_depends_on_seed_and_epoch_alone():
    images, every = noise(64), torch.arange(64)
    torch.manual_seed(1)
    expected = View("crop_flip", 5, 2, 64, CPU).apply(images, every)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert torch.equal(View("crop_flip", 5, 2, 64, CPU).apply(images, every), expected)
    assert torch.equal(torch.get_rng_state(), before)
    for seed, epoch in ((5, 3), (6, 2)):
        assert not torch.equal(View("crop_flip", seed, epoch, 64, CPU).apply(images, every), expected)


def test_a_sample_looks_the_same_in_whatever_batch_it_comes():
    images = noise(64)
    view = View("crop_flip", 5, 2, 64, CPU)
    expected = view.apply(images, torch.arange(64))
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    for index in order.split(10):
        assert torch.equal(view.apply(images[index], index), expected[index])
    whole = Images(images, torch.zeros(64, dtype=torch.int64), (0.5,), (0.25,))
    torch.testing.assert_close(whole.batch(order, view), whole.normalised(expected[order]))
