"""Students learn from images without labels by distillation alone, and plain students not at all."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from inputs import DATA, SPEC, SWEEP, refused
from PIL import Image
from test_training import CPU, KD, assert_same, curve, fresh, one_batch, open_bench, written
from torch.nn import functional as F

from kdsweep import datasets
from kdsweep.config.changes import changed_spec
from kdsweep.config.load import load_spec, notes
from kdsweep.config.recipes import teacher_recipe, trial_recipe
from kdsweep.config.sizes import images_line
from kdsweep.datasets import Source
from kdsweep.errors import DataError, SpecError, SweepDirError
from kdsweep.methods import Outputs
from kdsweep.results.frames import load_results
from kdsweep.storage.paths import Store
from kdsweep.tasks.image.splits import prepare, prepare_test
from kdsweep.training.cohort import Cohort
from kdsweep.training.steps import LossMeans, Step, epoch_steps
from kdsweep.training.teaching import NoTeacher
from kdsweep.tune.origins import record_data

LABELLED, UNLABELLED = 80, 40
FIRST = {split: datasets.get("mnist_mini").load(Source(root=None), split).images[:, 0] for split in ("train", "test")}


def save(images, folder):
    """Write images as files in two subfolders."""
    for number, image in enumerate(images):
        path = folder / f"{number % 2}" / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Digits of the test split, mirrored: they are in no split."""
    return save(FIRST["test"][:UNLABELLED, :, ::-1], tmp_path_factory.mktemp("unlabelled"))


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def spec_of(storage, folder, **sections):
    dataset = {"unlabelled": {"root": str(folder)}, **sections.pop("dataset", {})}
    return written(storage, dataset=dataset, **sections)


@pytest.fixture(scope="module")
def bench(storage, folder):
    return open_bench(spec_of(storage, folder))


def step(labelled, size):
    targets = torch.tensor([3] * labelled + [-1] * (size - labelled))
    return Step(0.0, 0.1, torch.arange(size), labelled, torch.zeros(size, 1), targets, Outputs(*[torch.zeros(0)] * 2))


def test_the_images_come_last_without_labels_and_without_moving_the_statistics(bench, storage, folder):
    alone = prepare(written(storage).dataset, 0, Store(storage))
    assert (bench.data.unlabelled, alone.unlabelled) == (UNLABELLED, 0)
    assert (bench.data.mean, bench.data.std) == (alone.mean, alone.std)
    assert bench.train.labels[:LABELLED].tolist() == alone.split("train", CPU).labels.tolist()
    assert bench.train.labels[LABELLED:].tolist() == [-1] * UNLABELLED
    first = np.asarray(Image.open(folder / "0" / "000.png"))
    np.testing.assert_array_equal(bench.train.images[LABELLED, 0].numpy(), first)
    assert bench.val.labels.min() >= 0


def test_one_step_is_the_formula_written_out(bench):
    training = one_batch(bench, KD | {"kd.weight": 2.5, "lr": 0.1})
    images = bench.train.normalised(bench.train.images)
    logits = training.student(images)
    teacher = bench.teacher.outputs(images).logits.double().numpy()
    ours, labels = logits.detach().double().numpy(), bench.train.labels.numpy()

    def log_softmax(values):
        shifted = values - values.max(axis=1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))

    task = -log_softmax(ours[:LABELLED])[np.arange(LABELLED), labels[:LABELLED]].mean()
    told, said = log_softmax(teacher / 3), log_softmax(ours / 3)
    distill = 9 * (np.exp(told) * (told - said)).sum(axis=1).mean()
    alpha = (80 * 0.7 + 40 * 1.0) / 120
    metrics = training.run_epoch()
    assert metrics["task_loss"] == pytest.approx(task, rel=1e-5)
    assert metrics["distill_loss"] == pytest.approx(distill, rel=1e-5)
    assert metrics["train_loss"] == pytest.approx((1 - alpha) * task + alpha * 2.5 * distill, rel=1e-5)
    assert metrics["train_loss"] == pytest.approx(0.2 * task + 2.0 * distill, rel=1e-5)


def test_the_alpha_of_a_batch_is_the_mean_over_its_samples():
    assert step(1, 4).mean_alpha(0.2) == pytest.approx(0.8)
    assert step(4, 4).mean_alpha(0.2) == 0.2
    assert step(0, 4).mean_alpha(0.2) == 1.0
    assert step(1, 4).mean_alpha(torch.tensor([0.2, 0.6])).tolist() == pytest.approx([0.8, 0.9])


def test_a_batch_without_labels_counts_no_loss_on_labels():
    means = LossMeans()
    means.add({"train_loss": torch.tensor(4.0), "task_loss": torch.tensor(7.0)}, step(0, 2))
    means.add({"train_loss": torch.tensor(1.0), "task_loss": torch.tensor(3.0)}, step(1, 4))
    assert means.rows() == [{"train_loss": pytest.approx(2.0), "task_loss": pytest.approx(3.0)}]
    labels, asked = step(0, 3).asked(10)
    assert (labels.tolist(), asked.tolist()) == ([-1, -1, -1], [0])


def test_few_labels_among_many_images_train(storage, folder):
    few = open_bench(spec_of(storage, folder, dataset={"subset": 20}))
    training = one_batch(few, KD | {"lr": 1e-12}, batch_size=2)
    counts = [one.labelled for one in epoch_steps(training.recipe, 1, few.train, NoTeacher(CPU), 10)]
    assert (min(counts), sum(counts)) == (0, 10)
    logits = training.student(few.train.normalised(few.train.images))[:10]
    expected = F.cross_entropy(logits, few.train.labels[:10]).item()
    assert training.run_epoch()["task_loss"] == pytest.approx(expected, rel=1e-4)


def test_plain_students_see_the_labelled_images_alone_for_as_many_steps(bench, storage, tmp_path):
    plain = {"method": "none", "width": 0.5, "lr": 3e-3}
    others = save(255 - FIRST["test"][:UNLABELLED], tmp_path / "others")
    other = open_bench(spec_of(storage, others))
    assert_same(curve(fresh(bench, plain), until=2), curve(fresh(other, plain), until=2))
    assert curve(fresh(bench, KD), until=1) != curve(fresh(other, KD), until=1)
    recipe = trial_recipe(bench.spec, plain, 1)
    seen = torch.cat([one.index for one in epoch_steps(recipe, 1, bench.train, NoTeacher(CPU), LABELLED)])
    assert len(seen) == LABELLED + UNLABELLED
    assert sorted(set(torch.bincount(seen, minlength=LABELLED).tolist())) == [1, 2]
    assert seen.max() < LABELLED
    teacher = epoch_steps(teacher_recipe(bench.spec), 1, bench.train, NoTeacher(CPU), LABELLED)
    assert sorted(torch.cat([one.index for one in teacher]).tolist()) == list(range(LABELLED))


def test_stored_outputs_of_the_teacher_are_those_of_the_model(storage, folder):
    curves, augment = [], "crop_flip"
    for cache_gb in (8.0, 0.0):
        sections = {"dataset": {"augment": augment}, "teacher": {"cache_gb": cache_gb}}
        one = open_bench(spec_of(storage, folder, **sections))
        assert one.outputs.store.holds({"logits"}) is bool(cache_gb)
        curves.append(curve(fresh(one, KD | {"augment": augment}), until=2))
    for stored, run in zip(*curves, strict=True):
        assert stored == pytest.approx(run, rel=1e-5)


def test_a_run_goes_on_as_if_it_had_never_stopped(bench, tmp_path):
    whole, state = curve(fresh(bench, KD)), tmp_path / "state.safetensors"
    begun = bench.training(KD, 1, state)
    assert curve(begun, until=1) == whole[:1]
    begun.save(state)
    resumed = bench.training(KD, 1, state)
    assert resumed.epoch == 1
    assert curve(resumed) == whole[1:]


def test_a_cohort_gives_each_member_the_run_that_it_has_alone(bench):
    configs = [KD, KD | {"alpha": 0.3, "lr": 1e-3}]
    recipes = [trial_recipe(bench.spec, config, 1) for config in configs]
    cohort = Cohort(recipes, bench.data, bench.train, bench.val, bench.source(recipes[0], KD))
    together = cohort.run_epoch()
    for config, row in zip(configs, together, strict=True):
        alone = fresh(bench, config).run_epoch()
        for name in ("train_loss", "task_loss", "distill_loss"):
            assert row[name] == pytest.approx(alone[name], rel=1e-4)


def test_streamed_files_are_those_of_decoded_images(tmp_path):
    draw = np.random.default_rng(0)
    for name in ("ant", "bee"):
        save(draw.integers(0, 256, (8, 18, 20, 3), np.uint8), tmp_path / "images" / "train" / name)
        save(draw.integers(0, 256, (4, 18, 20, 3), np.uint8), tmp_path / "images" / "test" / name)
    further = save(draw.integers(0, 256, (6, 30, 25, 3), np.uint8), tmp_path / "further")
    values = {"name": "image_folder", "root": str(tmp_path / "images"), "resize": 16, "val_fraction": 0.5,
              "unlabelled": {"root": str(further)}}  # fmt: skip
    found = []
    for stream in (False, True):
        spec = written(tmp_path).dataset.model_validate({**values, "stream": stream})
        data = prepare(spec, 0, Store(tmp_path / "store"))
        assert prepare_test(spec, data)
        assert (data.unlabelled, data.count("train")) == (6, 14)
        found.append(data.split("train", CPU).batch(torch.arange(14)))
        for split in ("val", "test"):
            theirs = str(tmp_path / "images" / ("train" if split == "val" else split))  # val is taken from train/
            leaking = written(tmp_path).dataset.model_validate(
                {**values, "stream": stream, "unlabelled": {"root": theirs}}
            )
            with refused(DATA, DataError, match=f"8 of the 8 images of split '{split}' are also in {theirs}; accepted"):
                prepare(leaking, 0, Store(tmp_path / "store"))
    assert torch.equal(*found)


def test_new_images_make_new_data(storage, folder, tmp_path, bench):
    moved = save(FIRST["test"][:UNLABELLED, :, ::-1], tmp_path / "moved")
    assert prepare(spec_of(storage, moved).dataset, 0, Store(storage)).digest == bench.data.digest
    (moved / "0" / "000.png").unlink()
    fewer = prepare(spec_of(storage, moved).dataset, 0, Store(storage))
    assert (fewer.unlabelled, fewer.digest != bench.data.digest) == (UNLABELLED - 1, True)


def sweep_file(tmp_path, folder, dataset=(), **sections):
    path = tmp_path / "sweep.yaml"
    path.write_text(json.dumps({
        "dataset": {"name": "mnist_mini", "subset": 160, "unlabelled": {"root": str(folder)}, **dict(dataset)},
        "teacher": {"model": "mnist_teacher", "width": 0.25, "checkpoint": "kdsweep:mnist_mini_teacher"},
        "student": {"model": "lightnn"},
        "space": {"method": ["kd", "at", "none"]},
        "storage": str(tmp_path / "runs"),
        **sections,
    }))  # fmt: skip
    return path


@pytest.mark.parametrize(("space", "key", "told"), [
    ({"method": ["kd", "dkd"]}, "space.method", "found dkd, which reads labels, and .*; accepted: at, "),
    ({"method": "kd+crd+nkd"}, "space.method", r"found kd\+crd\+nkd, which reads labels in crd and nkd, and"),
    ({"method": "none"}, "dataset.unlabelled", "found, without a method that distils"),
    ({"method": "kd", "augment": {"choice": ["flip", "flip+mixup"]}}, "space.augment", "found mixup"),
])  # fmt: skip
def test_what_needs_labels_is_refused(space, key, told, folder, tmp_path):
    with refused(SPEC, SpecError) as caught:
        load_spec(sweep_file(tmp_path, folder, space=space))
    assert len(caught.value.faults) == 1
    caught.match(f": {key}: {told}")


def test_mixed_images_are_refused(folder, tmp_path):
    with refused(SPEC, SpecError, match="dataset.augment: found cutmix and mixup, .*; with dataset.unlabelled, acc"):
        load_spec(sweep_file(tmp_path, folder, {"augment": ["mixup", "cutmix"]}))
    with refused(SPEC, SpecError, match=r"sweep.yaml:1: dataset.augment.0: unknown transform 'mixip'"):
        load_spec(sweep_file(tmp_path, folder, {"augment": ["mixip"]}))


def test_texts_are_refused(folder, tmp_path):
    lines = [json.dumps({"text": f"word {number}", "label": number % 2}) for number in range(20)]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    given = {"name": "text_files", "root": str(tmp_path), "subset": 0}
    path = sweep_file(tmp_path, folder, given, teacher={"model": "text_transformer"}, student={"model": "bilstm"})
    with refused(SPEC, SpecError, match="dataset.unlabelled: found a folder of images; .* the samples are texts"):
        load_spec(path)


def test_a_section_without_a_folder_is_refused(folder, tmp_path):
    with refused(SPEC, SpecError, match="dataset.unlabelled.root: missing; for example: 'more_images'") as caught:
        load_spec(sweep_file(tmp_path, folder, {"unlabelled": {}}))
    assert len(caught.value.faults) == 1


def test_folders_that_cannot_be_used_are_refused_in_one_line(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    for root, told in (
        (tmp_path / "gone", "gone: no such directory; accepted: a folder of images without classes"),
        (empty, "empty: no images; accepted: at least one .jpg"),
        (save(np.zeros((1, 10, 12), np.uint8), tmp_path / "small"),
         "000.png: 12 x 10 pixels, but the images of the data set have 28 x 28; .* set dataset.resize"),
    ):  # fmt: skip
        with refused(DATA, SpecError, match=f"dataset.unlabelled.root: .*{told}") as caught:
            load_spec(sweep_file(tmp_path, root))
        assert len(caught.value.faults) == 1


def test_many_files_of_another_size_are_counted_and_not_called_unreadable(tmp_path):
    root = save(np.zeros((11, 20, 28), np.uint8), tmp_path / "small")
    with refused(DATA, SpecError) as caught:
        load_spec(sweep_file(tmp_path, root))
    told = "6 more files are unreadable or of another size; repair or remove them, or set dataset.skip_unreadable"
    assert len(caught.value.faults) == 6
    assert "000.png: 28 x 20 pixels, but the images of the data set have 28 x 28" in caught.value.faults[0]
    assert caught.value.faults[-1].endswith(f"dataset.unlabelled.root: {told}")


def test_files_of_the_folder_are_skipped_beside_a_data_set_without_files(tmp_path):
    root = save(FIRST["test"][:10], tmp_path / "further")
    broken = sorted(root.rglob("*.png"))[3]
    broken.write_bytes(b"not an image")
    spec = load_spec(sweep_file(tmp_path, root, {"skip_unreadable": True}))
    assert images_line(spec) == "trains on 144 labelled + 9 unlabelled images"
    assert "unreadable images are skipped: 1 in unlabelled" in notes(spec)
    data = prepare(spec.dataset, 0, spec.sweep_dir.store)
    assert (data.unlabelled, dict(data.skipped)) == (9, {"unlabelled": 1})
    spec.save(spec.sweep_dir.spec)
    record_data(spec.sweep_dir, data, scores=True)
    assert "skipped_images" in load_results(spec.sweep_dir.root).trials.columns


def test_the_number_of_images_is_told(folder, tmp_path):
    spec = load_spec(sweep_file(tmp_path, folder))
    assert images_line(spec) == "trains on 144 labelled + 40 unlabelled images"
    data = prepare(spec.dataset, 0, spec.sweep_dir.store)
    assert data.described()["unlabelled"] == 40
    spec.save(spec.sweep_dir.spec)
    record_data(spec.sweep_dir, data, scores=True)
    assert "unlabelled_images" in load_results(spec.sweep_dir.root).trials.columns


def test_the_folder_of_a_sweep_may_move_and_not_change(folder, tmp_path):
    spec = load_spec(sweep_file(tmp_path, folder))
    spec.save(spec.sweep_dir.spec)
    record_data(spec.sweep_dir, prepare(spec.dataset, 0, spec.sweep_dir.store), scores=True)
    moved = save(FIRST["test"][:UNLABELLED, :, ::-1], tmp_path / "moved")
    spec = changed_spec(spec.sweep_dir, {"dataset.unlabelled.root": str(moved)})
    assert record_data(spec.sweep_dir, prepare(spec.dataset, 0, spec.sweep_dir.store), scores=True) == ""
    (moved / "1" / "001.png").unlink()
    with refused(SWEEP, SweepDirError, match="the data set has changed since the sweep began"):
        record_data(spec.sweep_dir, prepare(spec.dataset, 0, spec.sweep_dir.store), scores=True)
    with refused(SPEC, SpecError, match="--set dataset.unlabelled: .* -> None: cannot change in an existing sweep"):
        changed_spec(spec.sweep_dir, {"dataset.unlabelled": None})


def test_a_data_set_of_ones_own_takes_files_of_its_number_of_channels(tmp_path, monkeypatch):
    module = "import numpy as np\ndef read(root, split):\n    draw = np.random.default_rng(len(split))\n"
    for channels in (3, 4):
        array = f"draw.integers(0, 256, (40, {channels}, 8, 8), dtype=np.uint8), np.arange(40) % 2"
        (tmp_path / f"own_{channels}_channels.py").write_text(f"{module}    return {array}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    grey = save(np.random.default_rng(9).integers(0, 256, (3, 12, 9), np.uint8), tmp_path / "grey")
    values = {"name": "own_3_channels:read", "resize": 8, "unlabelled": {"root": str(grey)}}
    data = prepare(written(tmp_path).dataset.model_validate(values), 0, Store(tmp_path))
    images = data.split("train", CPU).images
    assert (data.unlabelled, images.shape) == (3, (43, 3, 8, 8))
    assert torch.equal(images[40:, 0], images[40:, 2])
    with refused(DATA, DataError, match="grey: image files are grey or RGB, but the images of .* have 4 channels"):
        prepare(written(tmp_path).dataset.model_validate({**values, "name": "own_4_channels:read"}), 0, Store(tmp_path))
