import gzip
import hashlib
import os
import pickle
import re
import subprocess
import sys
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from inputs import CODE, DATA, refused
from PIL import Image, ImageDraw
from torchvision import datasets as torchvision_datasets
from torchvision import transforms

from kdsweep import datasets, models
from kdsweep.datasets import DATASETS, Dataset, DatasetInfo, Source, embedded
from kdsweep.datasets.images import in_threads, resized
from kdsweep.errors import DataError, UnknownNameError
from kdsweep.lazy import torch
from kdsweep.storage import weights

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def fails(source, split="train", name="image_folder"):
    """Load, and return the one-line error."""
    with refused(DATA, DataError) as caught:
        datasets.get(name).load(source, split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def paint(path, color=RED, size=(8, 6), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path):
    """Two classes of two images, 8 wide and 6 high."""
    for split in ("train", "test"):
        paint(tmp_path / split / "cat" / "b.png", RED)
        paint(tmp_path / split / "cat" / "a.png", GREEN)
        paint(tmp_path / split / "ant" / "z.bmp", BLUE)
        paint(tmp_path / split / "ant" / "y.jpg", BLUE, quality=95)
    return tmp_path


# All data sets


CLASSES = {"cifar10": 10, "cifar100": 100, "fashion_mnist": 10, "mnist": 10, "mnist_mini": 10, "svhn": 10}


def test_every_published_data_set_describes_itself_in_full():
    published = [name for name in DATASETS if DATASETS[name].content is None]
    assert set(published) >= set(CLASSES)
    for name in published:
        info = DATASETS[name].describe(Source(Path("/nowhere"), download=False))
        assert DATASETS[name].name == name
        assert info.splits[0] == "train"
        assert len(info.mean) == len(info.std) in (0, info.input_shape[0])
        assert len(set(info.class_names)) == len(info.class_names) == CLASSES.get(name, len(info.class_names))


def test_resize_is_part_of_the_described_shape():
    assert DATASETS["cifar10"].describe(Source(Path("/nowhere"), resize=64)).input_shape == (3, 64, 64)
    assert DATASETS["mnist"].describe(Source(Path("/nowhere"), resize=32)).input_shape == (1, 32, 32)


def test_describing_imports_neither_torch_nor_torchvision():
    code = (
        "import sys; from pathlib import Path; from kdsweep import datasets\n"
        "for name in [name for name in datasets.DATASETS if datasets.DATASETS[name].content is None]:\n"
        "    datasets.get(name).describe(Source := datasets.Source(Path('/nowhere')))\n"
        "datasets.get('mnist_mini').load(Source, 'train')\n"
        "print([name for name in ('torch', 'torchvision', 'PIL', 'ray') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_an_unknown_name_error_suggests_the_closest_name_and_a_function():
    with refused(DATA, UnknownNameError, match=r"'cifra10'; did you mean 'cifar10'\? .* package\.module:function$"):
        datasets.get("cifra10")


def test_an_unknown_split_error_lists_the_available_splits():
    assert fails(Source(Path("/nowhere")), "val", "mnist_mini") == (
        "data set 'mnist_mini' has no split 'val'; accepted: train, test"
    )


IMAGES, LABELS = np.zeros((3, 1, 4, 4), np.uint8), np.array([0, 1, 1])


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (
            IMAGES.astype(np.float32),
            LABELS,
            "images are float32 of shape 3 x 1 x 4 x 4; accepted: uint8 of shape N x C",
        ),
        (IMAGES[:, 0], LABELS, "images are uint8 of shape 3 x 4 x 4; accepted"),
        (IMAGES, LABELS.astype(float), "labels are float64 of shape 3; accepted: integers of shape N"),
        (IMAGES, np.eye(3, dtype=int), "labels are int64 of shape 3 x 3; accepted"),
        (IMAGES, np.array(1), "labels are int64 of shape (); accepted"),
        (IMAGES, LABELS[:2], "3 images but 2 labels; accepted: one label per image"),
        (IMAGES[:0], LABELS[:0], "images are of shape 0 x 1 x 4 x 4; accepted: at least one image and one pixel"),
        (IMAGES, LABELS - 1, "found label -1; accepted: 0 and above"),
        (IMAGES, LABELS * 2, "found label 2; accepted: 0 to 1"),
        (IMAGES[:, :, 1:], LABELS, "image shape is 1 x 3 x 4; accepted: 1 x 4 x 4, or set dataset.resize"),
    ],
)
def test_what_a_reader_returns_is_checked(images, labels, message):
    info = DatasetInfo((1, 4, 4), ("a", "b"))
    dataset = Dataset("odd", "", lambda source: info, lambda source, split: (images, labels))
    with refused(CODE, DataError, match=re.escape(f"data set 'odd', split 'train': {message}")):
        dataset.load(Source(Path("/nowhere")), "train")


def test_loaded_arrays_are_contiguous_writable_and_of_the_documented_types():
    images = np.broadcast_to(np.uint8(7), (3, 4, 4, 1)).transpose(0, 3, 1, 2)
    info = DatasetInfo((1, 4, 4), ("a", "b"))
    split = (images, LABELS.astype(np.uint8))
    loaded = Dataset("odd", "", lambda source: info, lambda source, name: split).load(Source(Path("/nowhere")), "train")
    assert loaded.images.flags["C_CONTIGUOUS"]
    assert loaded.images.flags["WRITEABLE"]
    assert loaded.images.sum() == 7 * 48
    assert (loaded.labels.dtype, loaded.labels.tolist()) == (np.int64, [0, 1, 1])


# Resizing


def test_resizing_takes_the_centre_of_the_longer_side():
    image = np.zeros((1, 1, 8, 24), np.uint8)
    image[:, :, :, 8:16] = np.arange(8) * 20  # the centre square, falling off sharply
    columns = resized(image, 4)[0, 0]
    assert columns.shape == (4, 4)
    assert (np.ptp(columns, axis=0) == 0).all()
    assert columns[0, 1:3].tolist() == [50, 90]
    assert np.array_equal(resized(image.transpose(0, 1, 3, 2), 4)[0, 0], columns.T)


def test_resizing_is_antialiased():
    stripes = np.tile(np.array([0, 255], np.uint8), (1, 1, 16, 8))
    assert np.ptp(resized(stripes, 4)[0, 0, :, 1:-1].astype(int)) == 0
    assert abs(int(resized(stripes, 4)[0, 0, 2, 2]) - 127) <= 1


@pytest.mark.parametrize(("height", "width"), [(20, 20), (20, 60), (60, 20)])
def test_resizing_agrees_with_torchvisions_transforms(height, width):
    image = np.random.default_rng(0).integers(0, 256, (1, 3, height, width), np.uint8)
    steps = transforms.Compose([transforms.Resize(10), transforms.CenterCrop(10)])
    expected = np.asarray(steps(Image.fromarray(image[0].transpose(1, 2, 0)))).transpose(2, 0, 1)
    assert np.array_equal(resized(image, 10)[0], expected)


def test_images_of_the_right_size_are_unchanged():
    assert resized(IMAGES, 4) is IMAGES


def test_the_first_failure_by_index_is_raised():
    seen = []

    def handle(index):
        seen.append(index)
        if index in (300, 700):
            raise DataError(str(index))

    with refused(DATA, DataError, match=r"^300$"):
        in_threads(handle, 1000)
    seen.clear()
    in_threads(seen.append, 600)
    assert sorted(seen) == list(range(600))


# mnist_mini and its teacher


def mini(split, resize=0):
    return DATASETS["mnist_mini"].load(Source(Path("/nowhere"), resize=resize), split)


@pytest.mark.parametrize(("split", "per_class"), [("train", 400), ("test", 200)])
def test_mnist_mini_is_stratified(split, per_class):
    images, labels = mini(split)
    assert images.shape == (10 * per_class, 1, 28, 28)
    assert np.bincount(labels).tolist() == [per_class] * 10


@pytest.mark.parametrize(
    ("split", "digest"),
    [
        ("train", "d5d006720c70ad1e94bb28651676f6868c4394a9a2e17bd8ec10737a65919c3a"),
        ("test", "d2cead375279aaf9f2b16d47c0459d243aa32dfc990268f3bad864afdc63b970"),
    ],
)
def test_mnist_mini_is_the_same_everywhere(split, digest):
    images, labels = mini(split)
    assert hashlib.sha256(images.tobytes() + labels.astype("<i8").tobytes()).hexdigest() == digest


def test_mnist_mini_has_no_image_twice():
    images = np.concatenate([mini("train").images, mini("test").images])
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == 6000


def test_mnist_mini_is_small_and_records_the_positions_in_mnist():
    path = embedded.path("mnist_mini.npz")
    assert path.stat().st_size <= 1.6e6
    with np.load(path, allow_pickle=False) as arrays:
        for split, count, total in (("train", 4000, 60_000), ("test", 2000, 10_000)):
            indices = arrays[f"{split}_indices"]
            assert len(np.unique(indices)) == count
            assert np.array_equal(indices, np.sort(indices))
            assert 0 <= indices[0] < indices[-1] < total


def test_mnist_mini_has_its_declared_mean_and_standard_deviation():
    info = DATASETS["mnist_mini"].describe(Source(Path("/nowhere")))
    scaled = mini("train").images / 255
    assert abs(scaled.mean() - info.mean[0]) < 0.003
    assert abs(scaled.std() - info.std[0]) < 0.003


def test_mnist_mini_can_be_resized():
    assert mini("test", resize=32).images.shape == (2000, 1, 32, 32)


def test_a_missing_embedded_file_error_suggests_the_closest_name():
    with refused(DATA, UnknownNameError, match=r"include a file 'mnist_minni\.npz'; did you mean 'mnist_mini\.npz'"):
        embedded.path("mnist_minni.npz")


@pytest.mark.skipif("KDSWEEP_DATA" not in os.environ, reason="KDSWEEP_DATA names no folder with mnist.tar.gz")
def test_mnist_mini_matches_its_script(tmp_path):
    with tarfile.open(Path(os.environ["KDSWEEP_DATA"]) / "mnist.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    source = Source(tmp_path, download=False)
    with np.load(embedded.path("mnist_mini.npz"), allow_pickle=False) as arrays:
        for split in ("train", "test"):
            images, labels = DATASETS["mnist"].load(source, split)
            indices = arrays[f"{split}_indices"]
            assert np.array_equal(images[indices], mini(split).images)
            assert np.array_equal(labels[indices], mini(split).labels)


def test_the_embedded_teacher_is_accurate_on_unseen_images():
    path = embedded.path("mnist_mini_teacher.safetensors")
    assert path.stat().st_size <= 1e6
    model = models.build("mnist_teacher", (1, 28, 28), 10, width=0.25).eval()
    model.load_state_dict(weights.load(path), strict=True)
    for split, least in (("train", 0.987), ("test", 0.989)):
        images, labels = mini(split)
        with torch.inference_mode():
            logits = model((torch.from_numpy(images) / 255 - 0.1307) / 0.3081)
        right = (logits.argmax(1).numpy() == labels).mean()
        assert right > least


def test_the_embedded_teacher_records_how_it_was_trained():
    from safetensors import safe_open

    with safe_open(embedded.path("mnist_mini_teacher.safetensors"), framework="np") as file:
        metadata = file.metadata()
    assert (metadata["model"], metadata["width"]) == ("mnist_teacher", "0.25")
    assert metadata["normalisation"] == "(pixel / 255 - 0.1307) / 0.3081"
    assert metadata["script"].endswith("train_mnist_mini_teacher.py")
    assert float(metadata["accuracy_on_mnist_mini_train"]) > 0.985


# Data sets that torchvision reads


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("mnist", "MNIST/raw"),
        ("fashion_mnist", "FashionMNIST/raw"),
        ("cifar10", "cifar-10-batches-py"),
        ("cifar100", "cifar-100-python"),
    ],
)
def test_missing_files_without_download_are_a_one_line_error(tmp_path, name, files):
    assert fails(Source(tmp_path, download=False), name=name) == (
        f"data set {name!r}: cannot read {tmp_path / files}: it does not exist; "
        "put torchvision's files there or set dataset.download to true"
    )
    assert list(tmp_path.iterdir()) == []


def test_incomplete_files_without_download_are_a_one_line_error(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"cut")
    assert "cifar-10-batches-py: Dataset not found or corrupted.; put" in fails(
        Source(tmp_path, download=False), name="cifar10"
    )


@pytest.mark.parametrize(("name", "kind"), [("mnist", "MNIST"), ("cifar10", "CIFAR10")])
def test_a_failed_download_is_a_one_line_error(tmp_path, monkeypatch, name, kind):
    gone = (tmp_path / "gone").as_uri() + "/"
    monkeypatch.setattr(getattr(torchvision_datasets, kind), "mirrors", [gone], raising=False)
    monkeypatch.setattr(getattr(torchvision_datasets, kind), "url", gone, raising=False)
    message = fails(Source(tmp_path / "new" / "root"), name=name)
    assert f"data set {name!r}: cannot download or read {tmp_path / 'new' / 'root'}" in message
    assert "No such file" in message


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_mnist(raw):
    raw.mkdir(parents=True)
    images = {"train": np.arange(3 * 784).reshape(3, 28, 28) % 251, "t10k": np.full((2, 28, 28), 9)}
    labels = {"train": np.array([3, 1, 4]), "t10k": np.array([1, 5])}
    for split in images:
        (raw / f"{split}-images-idx3-ubyte").write_bytes(idx(images[split]))
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(idx(labels[split]))
    return images


def test_mnist_is_read_from_torchvisions_folder(tmp_path):
    images = write_mnist(tmp_path / "MNIST" / "raw")
    source = Source(tmp_path, download=False)
    train, test = (DATASETS["mnist"].load(source, split) for split in ("train", "test"))
    assert np.array_equal(train.images[:, 0], images["train"])
    assert train.labels.tolist() == [3, 1, 4]
    assert test.images.shape == (2, 1, 28, 28)
    assert test.labels.tolist() == [1, 5]


def test_a_truncated_mnist_file_is_a_one_line_error_with_or_without_download(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    write_mnist(raw)
    cut = raw / "train-images-idx3-ubyte"
    cut.write_bytes(cut.read_bytes()[:-100])
    assert f"cannot read {raw}: " in fails(Source(tmp_path, download=False), name="mnist")
    assert "or delete incomplete files and try again" in fails(Source(tmp_path), name="mnist")


@pytest.fixture
def server(tmp_path):
    """The address of a web server for `tmp_path / "server"`."""

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=tmp_path / "server")

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}/"
        serving.shutdown()
        thread.join()


def test_mnist_is_downloaded_once_and_only_if_allowed(tmp_path, monkeypatch, server, capsys):
    write_mnist(tmp_path / "server")
    resources = []
    for path in sorted((tmp_path / "server").iterdir()):
        packed = gzip.compress(path.read_bytes(), mtime=0)
        path.with_name(f"{path.name}.gz").write_bytes(packed)
        resources.append((f"{path.name}.gz", hashlib.md5(packed).hexdigest()))
    monkeypatch.setattr(torchvision_datasets.MNIST, "resources", resources)
    monkeypatch.setattr(torchvision_datasets.MNIST, "mirrors", [server])
    root = tmp_path / "data"
    assert "it does not exist" in fails(Source(root, download=False), name="mnist")
    assert DATASETS["mnist"].load(Source(root), "test").labels.tolist() == [1, 5]
    monkeypatch.setattr(torchvision_datasets.MNIST, "mirrors", [])
    assert DATASETS["mnist"].load(Source(root), "train").labels.tolist() == [3, 1, 4]
    assert capsys.readouterr().out == ""


class OldDtype:
    """uint8 as NumPy pickled it in 2009, with an `align=0` that makes NumPy 2.4 warn."""

    def __reduce__(self):
        return np.dtype, ("u1", 0, 1)


class OldArray:
    def __init__(self, array):
        self.array = array

    def __reduce__(self):
        return np.ndarray, (self.array.shape, OldDtype(), bytearray(self.array.tobytes()))


@pytest.mark.parametrize(
    ("name", "kind", "folder_name", "key"),
    [
        ("cifar10", "CIFAR10", "cifar-10-batches-py", "labels"),
        ("cifar100", "CIFAR100", "cifar-100-python", "fine_labels"),
    ],
)
def test_cifar_is_read_with_its_channels_in_order(tmp_path, monkeypatch, name, kind, folder_name, key):
    kind = getattr(torchvision_datasets, kind)
    planes = np.repeat(np.array([[10, 20, 30], [40, 50, 60]], np.uint8), 1024, axis=1)  # red, green, blue planes
    (tmp_path / folder_name).mkdir()

    def write(file, content):
        (tmp_path / folder_name / file).write_bytes(pickle.dumps(content, protocol=2))
        return hashlib.md5((tmp_path / folder_name / file).read_bytes()).hexdigest()

    train = write("a", {"data": OldArray(planes), key: [7, 2]})
    test = write("b", {"data": OldArray(planes[:1]), key: [5]})
    names = write(kind.meta["filename"], {kind.meta["key"]: ["x"]})
    monkeypatch.setattr(kind, "train_list", [["a", train]])
    monkeypatch.setattr(kind, "test_list", [["b", test]])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": names})
    images, labels = DATASETS[name].load(Source(tmp_path, download=False), "train")
    assert images.shape == (2, 3, 32, 32)
    assert images[:, :, 5, 9].tolist() == [[10, 20, 30], [40, 50, 60]]
    assert labels.tolist() == [7, 2]
    assert DATASETS[name].load(Source(tmp_path, download=False, resize=8), "test").images.shape == (1, 3, 8, 8)


def test_svhn_without_scipy_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("kdsweep.datasets.torchvision_sets.find_spec", lambda name: None)
    assert fails(Source(tmp_path), name="svhn") == "data set 'svhn' needs scipy; run: pip install scipy"


def test_missing_svhn_files_are_a_one_line_error(tmp_path, monkeypatch):
    monkeypatch.setattr("kdsweep.datasets.torchvision_sets.find_spec", lambda name: name)
    assert f"cannot read {tmp_path / 'test_32x32.mat'}: it does not exist" in fails(
        Source(tmp_path, download=False), "test", "svhn"
    )


def test_svhn_is_read_as_torchvision_returns_it(tmp_path, monkeypatch):
    class Svhn:
        def __init__(self, root, split, download):
            assert (root, split, download) == (tmp_path, "test", False)
            self.data = np.full((2, 3, 32, 32), 5, np.uint8)
            self.labels = np.array([0, 9])

    monkeypatch.setattr("kdsweep.datasets.torchvision_sets.find_spec", lambda name: name)
    monkeypatch.setattr(torchvision_datasets, "SVHN", Svhn)
    assert DATASETS["svhn"].load(Source(tmp_path), "test").labels.tolist() == [0, 9]


# Image folders


def test_an_image_folder_is_described_from_its_folders(folder):
    info = datasets.get("image_folder").describe(Source(folder))
    assert info == DatasetInfo((3, 6, 8), ("ant", "cat"), splits=("train", "test"))
    assert datasets.get("image_folder").describe(Source(folder, resize=4)).input_shape == (3, 4, 4)


def test_classes_are_sorted_by_name_and_images_by_path(folder):
    images, labels = datasets.get("image_folder").load(Source(folder), "train")
    assert images.shape == (4, 3, 6, 8)
    assert labels.tolist() == [0, 0, 1, 1]
    assert np.abs(images[0, :, 3, 4].astype(int) - BLUE).max() <= 3  # JPEG
    assert [tuple(image[:, 3, 4].tolist()) for image in images[1:]] == [BLUE, GREEN, RED]


@pytest.mark.parametrize("splits", [("val",), ("test",), ("val", "test"), ()])
def test_splits_are_the_existing_folders(tmp_path, splits):
    for split in ("train", *splits):
        paint(tmp_path / split / "a" / "1.png")
        paint(tmp_path / split / "b" / "1.png")
    assert datasets.get("image_folder").describe(Source(tmp_path)).splits == ("train", *splits)


def test_images_of_several_sizes_are_resized_about_their_centre(folder):
    wide = Image.new("RGB", (60, 20), GREEN)
    ImageDraw.Draw(wide).rectangle((20, 0, 39, 19), fill=RED)
    wide.save(folder / "train" / "cat" / "a.png")
    images, _ = datasets.get("image_folder").load(Source(folder, resize=10), "train")
    assert images.shape == (4, 3, 10, 10)
    assert images[2, :, :, 1:9].reshape(3, -1).T.tolist() == [list(RED)] * 80


@pytest.mark.parametrize(
    ("name", "mode", "color", "expected"),
    [
        ("x.png", "L", 90, (90, 90, 90)),
        ("x.png", "1", 1, (255, 255, 255)),
        ("x.png", "RGBA", (1, 2, 3, 0), (1, 2, 3)),
        ("x.png", "LA", (7, 0), (7, 7, 7)),
        ("x.webp", "RGB", (255, 255, 255), (255, 255, 255)),
        ("x.gif", "RGB", RED, RED),
        ("x.tif", "CMYK", (0, 0, 0, 0), (255, 255, 255)),
        ("X.PPM", "RGB", BLUE, BLUE),
        ("x.JPEG", "L", 255, (255, 255, 255)),
    ],
)
def test_every_kind_of_8_bit_image_becomes_rgb(folder, name, mode, color, expected):
    for path in (folder / "train" / "cat").iterdir():
        path.unlink()
    paint(folder / "train" / "cat" / name, color, mode=mode)
    images, labels = datasets.get("image_folder").load(Source(folder), "train")
    assert labels.tolist() == [0, 0, 1]
    assert tuple(images[2, :, 2, 2].tolist()) == expected


def test_a_transparent_palette_becomes_rgb_without_a_warning(folder):
    image = Image.new("RGB", (8, 6), GREEN).convert("P", palette=Image.Palette.ADAPTIVE)
    image.save(folder / "train" / "cat" / "a.png", transparency=bytes([0, 128]))
    assert datasets.get("image_folder").load(Source(folder), "train").images[2, :, 0, 0].tolist() == list(GREEN)


def test_hidden_and_other_files_are_skipped_and_links_followed(folder):
    (folder / "train" / ".cache").mkdir()
    (folder / "train" / "notes.txt").write_text("not a class")
    (folder / "train" / "cat" / "Thumbs.db").write_text("not an image")
    (folder / "train" / "cat" / "._a.png").write_text("not an image")
    (folder / "train" / "cat" / "more").mkdir()
    paint(folder / "elsewhere" / "c.png", BLUE).rename(folder / "c.png")
    (folder / "train" / "cat" / "more" / "c.png").symlink_to(folder / "c.png")
    (folder / "train" / "cat" / "more" / "up").symlink_to(folder / "train" / "cat")
    (folder / "train" / "dog").symlink_to(folder / "train" / "ant")
    (folder / "test" / "dog").symlink_to(folder / "test" / "ant")
    images, labels = datasets.get("image_folder").load(Source(folder), "train")
    assert labels.tolist() == [0, 0, 1, 1, 1, 2, 2]
    assert images[4, :, 0, 0].tolist() == list(BLUE)


def test_a_missing_root_is_reported(tmp_path):
    assert fails(Source(tmp_path / "none")).startswith(
        f"{tmp_path / 'none'}: no such directory; accepted: a dataset.root"
    )


def test_a_root_without_train_is_reported_with_the_layout(tmp_path):
    paint(tmp_path / "cat" / "a.png")
    message = fails(Source(tmp_path))
    assert message.startswith(f"{tmp_path}: train/ is missing; accepted: ")
    assert "{train,val,test}/CLASS/IMAGE" in message


def test_fewer_than_two_classes_are_reported(tmp_path):
    paint(tmp_path / "train" / "a.png")
    assert "train: no class folders; accepted: at least 2" in fails(Source(tmp_path))
    paint(tmp_path / "train" / "images" / "a.png")
    assert "train: only the class folder 'images'; accepted: at least 2" in fails(Source(tmp_path))


def test_a_class_without_images_is_reported(folder):
    for path in (folder / "test" / "cat").iterdir():
        path.unlink()
    assert fails(Source(folder), "test").startswith(f"{folder / 'test' / 'cat'}: no images; accepted: at least")


def test_classes_that_differ_between_splits_are_reported_by_name(folder):
    (folder / "test" / "cat").rename(folder / "test" / "cow")
    message = f"{folder / 'test'}: lacks 'cat' and train/ lacks 'cow'; accepted: the same class folders in every split"
    assert fails(Source(folder)) == message


def test_many_different_classes_are_not_all_listed(folder):
    for index in range(8):
        (folder / "test" / f"new{index}").mkdir()
    assert "train/ lacks 'new0', 'new1', 'new2', 'new3', 'new4' and 3 more; accepted" in fails(Source(folder))


def test_images_of_several_sizes_without_resize_are_reported_by_the_first_that_differs(folder):
    paint(folder / "train" / "cat" / "a.png", size=(9, 6))
    paint(folder / "train" / "cat" / "b.png", size=(10, 6))
    assert fails(Source(folder)) == (
        f"{folder / 'train' / 'cat' / 'a.png'}: 9 x 6 pixels, but the first image of train/ has 8 x 6; "
        "use images of one size, or set dataset.resize"
    )


@pytest.mark.parametrize("name", ["cat/a.png", "ant/y.jpg"])
@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda data: b"", "not an image; accepted: JPEG, PNG"),
        (lambda data: b"<html>not found</html>", "not an image; accepted: JPEG, PNG"),
        (lambda data: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n", "not an image; accepted: JPEG, PNG"),
        (lambda data: data[: len(data) * 2 // 3], "cannot read the image: "),
    ],
)
def test_a_file_that_is_not_an_image_is_reported_by_path(folder, name, spoil, found):
    path = folder / "train" / name
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(spoil(path.read_bytes()))
    assert fails(Source(folder)).startswith(f"{path}: {found}")


def test_a_dangling_link_is_reported_by_path(folder):
    (folder / "train" / "cat" / "c.png").symlink_to(folder / "gone.png")
    assert fails(Source(folder)).startswith(
        f"{folder / 'train' / 'cat' / 'c.png'}: cannot read the image: FileNotFound"
    )


def test_a_decompression_bomb_is_reported_by_path_and_not_decoded(folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    bomb = paint(folder / "train" / "cat" / "a.png", size=(50, 50))
    message = fails(Source(folder, resize=4))
    assert message.startswith(f"{bomb}: cannot read the image: DecompressionBombError")


def test_pixels_of_16_bits_are_refused_rather_than_clipped(folder):
    path = folder / "train" / "cat" / "a.png"
    Image.fromarray(np.full((6, 8), 40_000, np.uint16)).save(path)
    assert fails(Source(folder)) == f"{path}: pixel format is I;16; accepted: 8 bits per channel"


def test_too_little_memory_is_reported(folder, monkeypatch):
    def full(shape, dtype):
        raise MemoryError

    monkeypatch.setattr("kdsweep.datasets.image_folder.np.empty", full)
    assert "train: decoding 4 images of 8 x 6 needs 0.0 GB, and this machine has" in fails(Source(folder))


def test_more_images_than_one_task_takes_are_read_in_order(tmp_path):
    for index in range(600):
        paint(tmp_path / "train" / "ab"[index % 2] / f"{index:04}.bmp", (index % 256, index // 256, 0), size=(2, 2))
    images, labels = datasets.get("image_folder").load(Source(tmp_path), "train")
    numbers = images[:, 0, 0, 0].astype(int) + 256 * images[:, 1, 0, 0].astype(int)
    assert numbers.tolist() == [*range(0, 600, 2), *range(1, 600, 2)]
    assert labels.tolist() == [0] * 300 + [1] * 300


# User-defined functions


@pytest.fixture
def function(tmp_path, monkeypatch):
    """Write a module; its function `load` becomes a data set."""

    def write(body, name="load"):
        module = f"user_{hashlib.md5(body.encode()).hexdigest()}"
        (tmp_path / f"{module}.py").write_text(f"import numpy as np\ncalls = []\n{body}")
        return f"{module}:{name}"

    monkeypatch.syspath_prepend(tmp_path)
    return write


ANSWER = """
def load(source, split):
    calls.append(split)
    if split == "val":
        raise {error}
    return {returned}
"""


@pytest.mark.parametrize(
    "images",
    [
        "np.arange(2 * 3 * 5 * 6, dtype=np.uint8).reshape(2, 3, 5, 6)",
        "np.arange(2 * 3 * 5 * 6, dtype=np.uint8).reshape(2, 3, 5, 6).transpose(0, 2, 3, 1)",
        "__import__('torch').arange(2 * 3 * 5 * 6, dtype=__import__('torch').uint8).reshape(2, 3, 5, 6)",
    ],
)
@pytest.mark.parametrize("error", ["ValueError(split)", "KeyError(split)"])
def test_a_users_function_is_a_data_set(function, images, error):
    dataset = datasets.get(function(ANSWER.format(error=error, returned=f"{images}, [2, 0]")))
    source = Source(Path("/nowhere"))
    assert dataset.describe(source) == DatasetInfo((3, 5, 6), ("0", "1", "2"), splits=("train", "test"))
    loaded = dataset.load(source, "test")
    assert np.array_equal(loaded.images.ravel(), np.arange(180))
    assert loaded.labels.tolist() == [2, 0]


def test_a_users_function_may_return_grey_images_and_names_and_is_resized(function):
    body = ANSWER.format(error="ValueError", returned="np.full((2, 8, 6), 9, np.uint8), np.array([1, 0]), ['x', 'y']")
    dataset = datasets.get(function(body))
    source = Source(Path("/nowhere"), resize=4)
    assert dataset.describe(source) == DatasetInfo((1, 4, 4), ("x", "y"), splits=("train", "test"))
    assert dataset.load(source, "train").images.tolist() == np.full((2, 1, 4, 4), 9).tolist()


def test_a_users_function_is_called_once_per_split(function):
    name = function(ANSWER.format(error="ValueError", returned="np.zeros((2, 8, 6), np.uint8), [1, 0]"))
    dataset = datasets.get(name)
    source = Source(Path("/nowhere"))
    for split in ("train", "test", "train"):
        dataset.load(source, split)
    calls = sys.modules[name.partition(":")[0]].calls
    assert (calls.count("train"), calls.count("test")) == (1, 1)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("None", "returned None; accepted: (images, labels) or (images, labels, class_names)"),
        ("(np.zeros((2, 8, 6), np.uint8),)", "returned 1 value; accepted: (images, labels)"),
        ("np.zeros((2, 8, 6)), [0, 1]", "images are float64 of shape 2 x 1 x 8 x 6; accepted: uint8"),
        ("np.zeros((2, 8), np.uint8), [0, 1]", "images are uint8 of shape 2 x 8; accepted: uint8"),
        ("[[1], [1, 2]], [0, 1]", "cannot convert a list to an array: "),
        ("np.zeros((2, 8, 6), np.uint8), [0]", "2 images but 1 label; accepted"),
        ("np.zeros((2, 8, 6), np.uint8), [0, -1]", "found label -1; accepted: 0 and above"),
        ("np.zeros((2, 8, 6), np.uint8), [0, 2], ['x', 'y']", "found label 2; accepted: 0 to 1"),
        (
            "np.zeros((2, 8, 6), np.uint8), [0, 1], ['x', 'x']",
            "class names are ['x', 'x']; accepted: a list of distinct",
        ),
        ("np.zeros((2, 8, 6), np.uint8), [0, 1], 'xy'", "class names are 'xy'; accepted: a list of distinct"),
        ("np.zeros((2, 8, 6), np.uint8), [0, 1], [0, 1]", "class names are [0, 1]; accepted: a list of distinct"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_errors_of_a_users_function_are_reported_in_one_line(function, returned, message):
    name = function(ANSWER.format(error="ValueError", returned=returned))
    assert fails(Source(Path("/nowhere")), name=name).startswith(f"data set {name!r}, split 'train': {message}")


def test_a_function_without_train_is_reported_with_its_exception(function):
    name = function("def load(source, split):\n    raise ValueError('no\\nthing')")
    assert fails(Source(Path("/nowhere")), name=name) == f"data set {name!r}, split 'train': ValueError: no thing"


def test_an_error_in_another_split_does_not_count_as_a_missing_split(function):
    images = "[[1], [1, 2]] if split == 'test' else np.zeros((2, 4, 4), np.uint8)"
    name = function(f"def load(source, split):\n    return ({images}), [0, 1]")
    assert f"data set {name!r}, split 'test': cannot convert a list to an array" in fails(
        Source(Path("/nowhere")), name=name
    )


def test_splits_of_a_function_must_agree_on_the_class_names(function):
    name = function("def load(source, split):\n    return np.zeros((2, 4, 4), np.uint8), [0, 1], [split, 'b']")
    assert fails(Source(Path("/nowhere")), name=name) == (
        f"data set {name!r}, split 'val': class names ('val', 'b'); accepted: those of train, ('train', 'b')"
    )


def test_a_name_that_is_not_a_function_is_reported(function):
    with refused(DATA, UnknownNameError, match="is a list; accepted: a function"):
        datasets.get(function("", "calls"))
    with refused(DATA, UnknownNameError, match="cannot import 'no_such_module'"):
        datasets.get("no_such_module:load")


def test_an_absurdly_large_label_is_refused():
    from kdsweep.datasets.base import checked

    with refused(DATA, DataError, match="x: found label 1000000000000; accepted: .* below 1,000,000"):
        checked((np.zeros((2, 1, 4, 4), np.uint8), np.array([0, 10**12])), "x")
