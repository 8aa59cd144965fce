"""Images streamed from a real S3 server: each node fetches what it decodes, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from object_store import forget
from PIL import Image

import kdsweep
from kdsweep.datasets.section import DatasetSpec
from kdsweep.errors import DataError, InputError, SpecError
from kdsweep.storage.paths import Store
from kdsweep.storage.streamed import bring
from kdsweep.tasks.image.splits import PreparedData, prepare, prepare_test, raw_images

CPU = torch.device("cpu")
SIDE = 16
COUNTS = {"train": 12, "test": 3}  # of each class


@pytest.fixture
def images(bucket, tmp_path):
    """The same folder of noisy images on this machine and in the bucket, with files that are no images."""
    draw = np.random.default_rng(0)
    root = tmp_path / "images"
    for split, count in COUNTS.items():
        for name, light in (("day", 190), ("night#1", 60)):
            (root / split / name / "deeper").mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(draw.normal(light, 40, (SIDE + 4, SIDE + 8, 3)), 0, 255).astype(np.uint8)
                below = "deeper" if number % 3 == 0 else "."
                Image.fromarray(pixels).save(root / split / name / below / f"{number:02} é.png")
            (root / split / name / ".hidden.png").write_bytes(b"no image")
            (root / split / name / "notes.txt").write_text("no image")
    client = bucket.client()
    for path in root.rglob("*"):
        if path.is_file():
            client.put_object(Bucket="sweeps", Key=f"images/{path.relative_to(root)}", Body=path.read_bytes())
    return root


def section(root, **values):
    return DatasetSpec.model_validate({"name": "image_folder", "root": str(root), "resize": SIDE} | values)


def remote(bucket, **values):
    return section(f"{bucket.uri}/images", stream=True, **values)


def elsewhere(tmp_path, monkeypatch, name="elsewhere"):
    """Go to a machine with an empty cache."""
    monkeypatch.setenv("KDSWEEP_CACHE", str(tmp_path / name))
    forget()
    return tmp_path / name


def objects(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("objects/*/*") if path.name != ".lock"]


def test_every_node_fetches_the_images_that_it_decodes_and_they_are_those_of_the_folder(
    images, bucket, tmp_path, monkeypatch
):
    store = Store(tmp_path / "store")
    decoded = prepare(section(images), 0, store)
    prepare_test(section(images), decoded)
    spec = remote(bucket)
    found = prepare(spec, 0, store)
    prepare_test(spec, found)
    assert (found.mean, found.std, found.class_names) == (decoded.mean, decoded.std, ("day", "night#1"))
    assert len(objects(tmp_path / "cache")) == found.count("train") == 22  # for mean and std
    cache = elsewhere(tmp_path, monkeypatch)
    there = PreparedData.load(found.root)
    for name in ("train", "val", "test"):
        whole, parts = decoded.split(name, CPU), there.split(name, CPU)
        for (expected, labels), (images_, its_labels) in zip(whole.batches(5), parts.batches(5), strict=True):
            assert torch.equal(expected, images_)
            assert torch.equal(labels, its_labels)
        assert torch.equal(whole.first(3).images, parts.first(3).images)
        if name == "train":
            assert len(objects(cache)) == 22
    assert len(objects(cache)) == 30
    bucket.client().delete_object(Bucket="sweeps", Key="images/train/day/01 é.png")
    list(there.split("train", CPU).batches(5))  # nothing is fetched twice
    assert len(raw_images(spec, 0, "test")) == 6


def test_only_the_listing_and_one_image_are_read_in_advance(images, bucket, tmp_path):
    spec = remote(bucket, normalize="imagenet")
    data = prepare(spec, 0, Store(tmp_path / "store"))
    assert (data.count("train"), data.count("val")) == (22, 2)
    assert len(objects(tmp_path / "cache")) == 1
    assert not list(tmp_path.rglob("*.partial"))


def test_a_changed_image_changes_the_data_set_and_is_not_taken_for_the_old_one(images, bucket, tmp_path, monkeypatch):
    store = Store(tmp_path / "store")
    spec = remote(bucket, normalize="none")
    before = prepare(spec, 0, store)
    elsewhere(tmp_path, monkeypatch)
    Image.new("RGB", (SIDE, SIDE)).save(images / "train/day/01 é.png")
    bucket.put("images/train/day/01 é.png", (images / "train/day/01 é.png").read_bytes())
    changed = r"^s3://sweeps/images/train/day/01 é.png: the object has changed since s3://sweeps/images was listed; .*$"
    with pytest.raises(DataError, match=changed):
        list(before.split("train", CPU).batches(4))
    after = prepare(spec, 0, store)
    assert after.contents["train"] != before.contents["train"]
    assert after.contents["test"] == before.contents["test"]
    bucket.client().delete_object(Bucket="sweeps", Key="images/train/day/02 é.png")
    elsewhere(tmp_path, monkeypatch, "third")
    both = [path for name in ("train", "val") for path in after.split(name, CPU)._files.paths]
    with pytest.raises(DataError, match="02 é.png: the object is gone"):
        bring(both)


def test_an_object_that_is_no_image_is_named_by_its_uri(images, bucket, tmp_path):
    bucket.put("images/train/night#1/05 é.png", b"no image")
    data = prepare(remote(bucket, normalize="none"), 0, Store(tmp_path / "store"))
    with pytest.raises(DataError, match=r"^s3://sweeps/images/train/night#1/05 é.png: not an image; accepted: JPEG"):
        list(data.split("train", CPU).batches(4))
    bucket.put("images/train/day/01 é.png", b"no image")
    bucket.put("images/train/day/deeper/00 é.png", b"no image")
    forget()
    with pytest.raises(DataError, match=r"^s3://sweeps/images/train/day/.* é.png: not an image"):
        prepare(remote(bucket), 0, Store(tmp_path / "store"))


def test_images_that_do_not_fit_into_the_cache_are_refused(images, bucket, tmp_path, monkeypatch):
    data = prepare(remote(bucket, normalize="none"), 0, Store(tmp_path / "store"))
    elsewhere(tmp_path, monkeypatch)
    monkeypatch.setenv("KDSWEEP_CACHE_GB", "1e-5")
    with pytest.raises(InputError, match=r"^s3://sweeps/images: .* GB do not fit into the cache .*; set KDSW"):
        data.split("train", CPU)


def test_what_cannot_be_streamed_from_a_uri_is_said_in_one_line(images, bucket, tmp_path):
    path = tmp_path / "sweep.yaml"

    def faults(**values):
        path.write_text(json.dumps(SWEEP | {"dataset": {"name": "image_folder", "stream": True} | values}))
        with pytest.raises(SpecError) as caught:
            kdsweep.load_spec(path)
        return str(caught.value)

    root = f"{bucket.uri}/images"
    assert f"images streamed from {root} are not read in advance" in faults(root=root, skip_unreadable=True)
    assert f"dataset.stream: found true with 'mnist_mini' at {root}; accepted" in faults(root=root, name="mnist_mini")
    assert "dataset.unlabelled.root: found 's3://" in faults(root=str(images), unlabelled={"root": root})
    assert f"{bucket.uri}/none: no such data set" in faults(root=f"{bucket.uri}/none")
    assert f"{root}/train: train/ is missing" in faults(root=f"{root}/train")
    assert "subset: found 99; accepted: at most 24" in faults(root=root, resize=SIDE, subset=99)


SWEEP = {
    "name": "streams",
    "teacher": {"model": "tutorial_teacher", "width": 0.1, "train": {"epochs": 10, "precision": "float32"}},
    "student": {"model": "lightnn"},
    "space": {"method": ["kd", "none"], "width": 0.25, "lr": 3e-3},
    "train": {"epochs": 2, "batch_size": 8, "precision": "float32"},
    "search": {"trials": 2, "points": [{"method": "kd"}, {"method": "none"}]},
    "scheduler": {"name": "none"},
    "confirm": {"top": 1, "seeds": 1},
    "resources": {"gpus_per_trial": 0, "max_concurrent": 1},
}
# The driver's node trains nothing; that of the workers has a cache of its own.
RUN = """
import sys
from ray.cluster_utils import Cluster
import kdsweep
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
cluster.add_node(num_cpus=1, env_vars={"KDSWEEP_CACHE": sys.argv[1]})
results = kdsweep.run("sweep.yaml", cluster.address)
results.trials.to_json("trials.json")
cluster.shutdown()
"""


@pytest.mark.cluster
def test_a_worker_on_another_machine_than_the_driver_trains_on_streamed_objects(images, bucket, tmp_path):
    dataset = {"name": "image_folder", "resize": SIDE, "normalize": "imagenet", "val_fraction": 0.5}
    written = SWEEP | {"dataset": dataset | {"root": f"{bucket.uri}/images", "stream": True}, "storage": "runs"}
    (tmp_path / "sweep.yaml").write_text(json.dumps(written))
    words = [sys.executable, "-c", RUN, tmp_path / "workers"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    assert len(objects(tmp_path / "cache")) == 1
    assert len(objects(tmp_path / "workers")) == 30
    local = SWEEP | {"dataset": dataset | {"root": str(images)}, "name": "local", "storage": str(tmp_path / "runs")}
    expected = kdsweep.run(local, "local", progress=False).trials.set_index("method")["val_accuracy"]
    assert json.loads((tmp_path / "trials.json").read_text())
    found = kdsweep.load_results(tmp_path / "runs/streams").trials.set_index("method")["val_accuracy"]
    assert found.to_dict() == expected.to_dict()
