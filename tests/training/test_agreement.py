"""Students that learn from images without labels, and are measured by their agreement with the teacher."""

from __future__ import annotations

import label_free
import numpy as np
import pytest
import torch
from inputs import DATA, refused
from test_training import CPU, curve, fresh

from kdsweep import datasets, tasks
from kdsweep.config.load import load_spec
from kdsweep.errors import DataError
from kdsweep.worker import measures
from kdsweep.worker.workbench import Workbench, provide_teacher

KD = {"method": "kd", "width": 0.5, "lr": 3e-3, "alpha": 1.0, "temperature": 3.0}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return label_free.teacher(tmp_path_factory.mktemp("teacher") / "teacher.safetensors")


@pytest.fixture(scope="module")
def flat(tmp_path_factory, checkpoint):
    root = tmp_path_factory.mktemp("flat")
    return opened(label_free.photos(root / "photos"), checkpoint, root)


def opened(root, checkpoint, storage, **dataset):
    spec = load_spec(
        label_free.values(root, checkpoint, storage), {f"dataset.{key}": value for key, value in dataset.items()}
    )
    data = tasks.of(spec.dataset).prepare(spec.dataset, spec.seed, spec.sweep_dir.store)
    assert data.task.prepare_test(spec.dataset, data)
    card = provide_teacher(spec, spec.sweep_dir, data, CPU, lambda metrics: None)
    return Workbench(spec, spec.sweep_dir, data, card, CPU)


def test_a_flat_folder_is_split_without_overlap(flat):
    source, found = flat.spec.dataset.source(), datasets.get("unlabelled_folder")
    paths = {split: set(found.files(source, split).images.tolist()) for split in ("train", "test")}
    assert (len(paths["train"]), len(paths["test"])) == (108, 12)
    assert not paths["train"] & paths["test"]
    assert [flat.data.count(split) for split in ("train", "val", "test")] == [97, 11, 12]
    assert (flat.data.unlabelled, flat.data.label_free) == (97, True)
    assert set(flat.train.labels.tolist()) == {-1}


def test_agreement_and_divergence_are_the_formulas_written_out(flat):
    training = fresh(flat, KD)
    row = training.run_epoch()
    images = flat.val.normalised(flat.val.images)
    with torch.no_grad():
        ours = training.student.eval()(images).double().numpy()
        theirs = flat.teacher.model(images).double().numpy()

    def log_softmax(values):
        shifted = values - values.max(axis=1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))

    told, said = log_softmax(theirs), log_softmax(ours)
    assert row["val_agreement"] == pytest.approx((ours.argmax(1) == theirs.argmax(1)).mean())
    assert row["val_divergence"] == pytest.approx((np.exp(told) * (told - said)).sum(1).mean(), rel=1e-4)
    assert not {"task_loss", "val_accuracy", "val_loss"} & row.keys()
    assert row["train_loss"] == pytest.approx(row["distill_loss"])


def test_students_learn_to_agree(flat):
    rows = curve(fresh(flat, KD | {"lr": 1e-2}))
    assert rows[-1]["val_divergence"] < rows[0]["val_divergence"]
    assert rows[-1]["val_agreement"] > 0.2  # chance is a tenth


def test_what_the_teacher_says_is_computed_once(flat):
    assert flat.sweep.teacher_answers("val").is_file()
    again = Workbench.of(flat.spec, flat.sweep, flat.data, CPU)
    assert torch.equal(again.val.labels, flat.val.labels)
    assert "teacher" not in vars(again)  # the model was not loaded
    assert not flat._card.measured  # it would be compared with itself


def test_a_run_goes_on_as_if_it_had_never_stopped(flat, tmp_path):
    whole, state = curve(fresh(flat, KD)), tmp_path / "state.safetensors"
    begun = flat.training(KD, 1, state)
    curve(begun, until=1)
    begun.save(state)
    assert curve(flat.training(KD, 1, state)) == whole[1:]


def test_labels_of_the_test_split_give_its_accuracy(checkpoint, tmp_path):
    bench = opened(label_free.split_photos(tmp_path / "split"), checkpoint, tmp_path, augment=["flip", "mixup"])
    assert "task_loss" not in fresh(bench, KD).run_epoch()  # mixed images have no labels either
    labels = bench.data.split("test", CPU).labels
    assert labels.tolist() == sorted(label_free.coloured("test", 40)[1].tolist())
    measured = measures.tested(bench, bench.teacher.model)
    answers = bench.teacher.model(bench.test.normalised(bench.test.images)).argmax(1)
    assert measured["test_accuracy"] == pytest.approx((answers == labels).float().mean().item())
    assert (measured["test_agreement"], measured["test_divergence"]) == (1.0, pytest.approx(0, abs=1e-6))
    (tmp_path / "split" / "test" / "bee").rename(tmp_path / "split" / "test" / "wasp")
    with refused(DATA, DataError, match="'wasp' is no class, but other folders there are; accepted: a folder for each"):
        opened(tmp_path / "split", checkpoint, tmp_path)


def test_streamed_images_are_those_of_decoded_ones(flat, checkpoint, tmp_path):
    streamed = opened(flat.spec.dataset.root, checkpoint, tmp_path, stream=True)
    index = torch.arange(97)
    assert torch.equal(streamed.train.batch(index), flat.train.batch(index))
    assert torch.equal(streamed.val.labels, flat.val.labels)


def test_few_or_unreadable_images_are_told_in_one_line(checkpoint, tmp_path):
    few = label_free.photos(tmp_path / "few", 9)
    with refused(DATA, DataError, match="9 images; accepted: at least 10"):
        datasets.get("unlabelled_folder").files(
            load_spec(label_free.values(label_free.photos(tmp_path / "more", 10), checkpoint, tmp_path))
            .dataset.model_copy(update={"root": str(few)}).source(), "train",
        )  # fmt: skip
    (tmp_path / "more" / "day 0" / "broken.png").write_bytes(b"no image")
    with refused(DATA, match=r"broken.png: not an image; accepted"):
        opened(tmp_path / "more", checkpoint, tmp_path)
