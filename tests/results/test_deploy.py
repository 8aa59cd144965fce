"""Files that run without kdsweep: ONNX, torch.export and int8, compared with the student they were made from."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from inputs import COMMAND, STUDENT, refused
from torch import nn

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from kdsweep import cli, models
from kdsweep.datasets.section import DatasetSpec
from kdsweep.errors import InputError
from kdsweep.models import MODELS
from kdsweep.results import deploy
from kdsweep.results.export import CARD, FURTHER, Wanted
from kdsweep.results.frames import load_results
from kdsweep.results.standalone import MODEL
from kdsweep.results.student import evaluate_student, load_student
from kdsweep.results.student_config import CONFIG, INT8, ONNX, TORCH_EXPORT, WEIGHTS, agreement, read_config
from kdsweep.tasks.image.batches import Images
from kdsweep.tasks.image.splits import raw_images

FOR_IMAGES = [name for name in MODELS if MODELS[name].takes == "images"]
SPEC = DatasetSpec(name="mnist_mini", subset=1200, val_fraction=0.5)


@pytest.fixture(scope="module")
def folder(swept, tmp_path_factory):
    """The best student of a sweep with every further file; tests must not change it."""
    out = tmp_path_factory.mktemp("deployed")
    (made,) = load_results(swept).export(out, top=1, onnx=True, torch_export=True, quantize="int8")
    return made


def val_images(folder):
    images = raw_images(load_spec_of(folder), read_config(folder).seed, "val")
    return images.batch(torch.arange(len(images))), images.labels


def load_spec_of(folder):
    return DatasetSpec.model_validate(read_config(folder).dataset)


def run_onnx(path, images):
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"input": images.contiguous().numpy()})
    return torch.from_numpy(logits)


def logits_of(folder, name, images):
    if name == TORCH_EXPORT:
        return torch.export.load(folder / name).module()(images)
    return run_onnx(folder / name, images)


@pytest.mark.parametrize("name", FURTHER)
def test_the_recorded_agreement_is_what_the_written_file_computes(name, folder):
    images, _ = val_images(folder)
    with torch.no_grad():
        ours, theirs = load_student(folder)(images), logits_of(folder, name, images)
    facts = read_config(folder).files[name]
    assert facts.compared == len(images) == 600
    assert facts.equal == (ours.argmax(1) == theirs.argmax(1)).sum()
    assert facts.max_difference == pytest.approx((ours - theirs).abs().max().item(), abs=1e-6)
    if name == INT8:
        assert facts.max_difference > 1e-3  # it is quantised
    else:
        assert facts.equal == 600
        assert facts.max_difference < 1e-4
    assert facts.size_mb * 1024**2 == (folder / name).stat().st_size


def test_an_int8_file_is_smaller_and_its_own_accuracy_is_recorded(folder):
    facts = read_config(folder).files[INT8]
    assert facts.size_mb < 0.6 * read_config(folder).files[ONNX].size_mb
    for split, images in (("val", val_images(folder)), ("test", images_of_test())):
        right = run_onnx(folder / INT8, images[0]).argmax(1) == images[1]
        assert facts.metrics[f"{split}_accuracy"] == pytest.approx(right.double().mean().item())
        with torch.no_grad():
            right = load_student(folder)(images[0]).argmax(1) == images[1]
        assert facts.metrics[f"float_{split}_accuracy"] == pytest.approx(right.double().mean().item())
        assert facts.metrics[f"{split}_accuracy"] > facts.metrics[f"float_{split}_accuracy"] - 0.03


def images_of_test():
    images = raw_images(SPEC, 0, "test")
    return images.batch(torch.arange(len(images))), images.labels


@pytest.mark.parametrize("name", FURTHER)
@pytest.mark.parametrize("count", [1, 7])
def test_every_batch_size_is_taken(count, name, folder):
    images = val_images(folder)[0][:count]
    assert logits_of(folder, name, images).shape == (count, 10)


ALONE = """
import sys
sys.modules["kdsweep"] = None  # importing it fails
import numpy, onnxruntime, torch
folder, samples = sys.argv[1], numpy.load(sys.argv[2])
(logits,) = onnxruntime.InferenceSession(folder + "/model.onnx").run(None, {"input": samples})
program = torch.export.load(folder + "/model.pt2").module()
numpy.savez(sys.argv[3], onnx=logits, pt2=program(torch.from_numpy(samples)).detach().numpy())
"""


def test_onnx_and_torch_export_files_run_without_kdsweep(folder, tmp_path):
    images = val_images(folder)[0][:50].contiguous()
    np.save(tmp_path / "images.npy", images.numpy())
    places = [str(folder), str(tmp_path / "images.npy"), str(tmp_path / "out.npz")]
    subprocess.run([sys.executable, "-c", ALONE, *places], check=True, cwd=tmp_path)
    with torch.no_grad():
        expected = load_student(folder)(images)
    found = np.load(tmp_path / "out.npz")
    for name in ("onnx", "pt2"):
        torch.testing.assert_close(torch.from_numpy(found[name]), expected, atol=1e-4, rtol=1e-4)


def test_no_file_contains_a_path_of_this_machine(folder, swept):
    contents = [path.read_bytes() for path in folder.iterdir()]
    with zipfile.ZipFile(folder / TORCH_EXPORT) as archive:
        contents += [archive.read(name) for name in archive.namelist()]
    sources = Path(models.__file__).parents[2]
    for path in (sources, swept.parent.parent, Path(torch.__file__).parents[1]):
        assert not any(str(path).encode() in content for content in contents)


def test_the_card_tells_the_agreement_of_every_file(folder):
    card = (folder / CARD).read_text()
    facts = read_config(folder).files
    for name in FURTHER:
        (row,) = (line for line in card.splitlines() if line.startswith(f"| `{name}`"))
        assert f"| {facts[name].equal} of 600 | {facts[name].max_difference:.2g} |" in row
    metrics = facts[INT8].metrics
    assert f"validation accuracy {metrics['val_accuracy']:.2%} (the student's: " in card
    assert f"test accuracy {metrics['test_accuracy']:.2%} (the student's: " in card
    assert agreement(read_config(folder))[1].startswith(
        "model.onnx: 600 of 600 validation images predicted as by the student"
    )


def test_the_command_tells_what_int8_costs_and_each_step(swept, tmp_path, monkeypatch, capsys):
    words = ["export", str(swept), "--out", str(tmp_path), "--top", "1", "--quantize", "int8"]
    monkeypatch.setattr(sys, "argv", ["kdsweep", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    told = capsys.readouterr()
    (folder,) = map(Path, told.out.splitlines())
    metrics = read_config(folder).files[INT8].metrics
    change = 100 * (metrics["test_accuracy"] - metrics["float_test_accuracy"])
    assert (
        f"test accuracy {metrics['test_accuracy']:.2%}, the student's {metrics['float_test_accuracy']:.2%} "
        f"({change:+.2f} points)"
    ) in told.err
    steps = [line for line in told.err.splitlines() if line.startswith("student 1 of 1: ")]
    assert [step.split(": ")[1].split()[0] for step in steps] == ["reading", "converting", "quantising", "comparing"]


@pytest.mark.parametrize("name", [ONNX, INT8])
def test_an_onnx_file_is_evaluated_like_its_student(name, folder):
    images, labels = images_of_test()
    found = evaluate_student(folder / name, "test")
    assert found["accuracy"] == pytest.approx(
        (run_onnx(folder / name, images).argmax(1) == labels).double().mean().item()
    )
    assert (found["student"], found["images"]) == (str(folder / name), len(labels))


def test_other_files_are_not_evaluated(folder, tmp_path):
    for name in (TORCH_EXPORT, CARD, WEIGHTS):
        with refused(
            STUDENT, InputError, match=f"{name}: a file; accepted: the student's folder, .*{folder.name}, or an ONNX"
        ):
            evaluate_student(folder / name, "test")
    copy = Path(shutil.copytree(folder, tmp_path / folder.name))
    (copy / "other.onnx").write_bytes(b"x")
    with refused(
        STUDENT, InputError, match="other.onnx: not a file of this student; accepted: its folder, or its ONNX"
    ):
        evaluate_student(copy / "other.onnx", "test")
    (copy / ONNX).write_bytes(b"damaged")
    with refused(STUDENT, InputError, match="model.onnx: damaged: .*; export the student again"):
        evaluate_student(copy / ONNX, "test")


def test_an_export_without_further_files_removes_those_of_an_earlier_one(folder, swept, tmp_path):
    copy = Path(shutil.copytree(folder, tmp_path / folder.name))
    (copy / "notes.txt").write_text("mine")
    assert load_results(swept).export(tmp_path, top=1) == [copy]
    assert sorted(path.name for path in copy.iterdir()) == [CARD, CONFIG, MODEL, WEIGHTS, "notes.txt"]
    assert read_config(copy).files == {}


def test_a_full_disk_leaves_the_export_that_was_there(folder, swept, tmp_path, monkeypatch):
    copy = Path(shutil.copytree(folder, tmp_path / folder.name))
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    write = Path.write_bytes

    def full(path, content):
        if path.name == TORCH_EXPORT:
            raise OSError(28, "No space left on device", str(path))
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with refused(STUDENT, InputError, match="No space left on device"):
        load_results(swept).export(tmp_path, top=1, torch_export=True)
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before


# What is refused, before any work


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    for option, wanted in (("--onnx", Wanted(onnx=True)), ("--quantize int8", Wanted(quantize="int8"))):
        with refused(
            COMMAND, InputError, match=rf"^{option} needs {package}: pip install '\.\[onnx\]' in a checkout of kdsweep$"
        ):
            wanted.check()
    Wanted(torch_export=True).check()


def test_an_unknown_quantisation_is_refused(swept, tmp_path):
    with refused(COMMAND, InputError, match="^--quantize: found 'int4'; accepted: int8$"):
        load_results(swept).export(tmp_path / "students", quantize="int4")
    assert not (tmp_path / "students").exists()


class Branching(nn.Module):
    def forward(self, samples):
        return samples.flatten(1)[:, :10] if samples.sum() > 0 else -samples.flatten(1)[:, :10]


def test_a_model_that_cannot_be_converted_is_reported_in_one_line():
    with (
        refused(STUDENT, InputError, match="^student: ONNX: the student cannot be converted: "),
        deploy._explained("student: ONNX"),
    ):
        deploy.onnx_model(Branching().eval(), torch.zeros(2, 1, 28, 28))


# The comparison can fail


def test_differences_are_counted():
    images = torch.zeros(4, 1, 2, 2, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.tensor([0, 51, 102, 255], dtype=torch.uint8)
    samples = Images(images, torch.zeros(4, dtype=torch.long))
    student = nn.Flatten()

    def other(batch):
        logits = student(batch).clone()
        logits[:, 1] += 0.5  # predicts class 1 for the first three images
        return logits

    equal, largest = deploy.compared(student, other, samples)
    assert (equal, largest) == (1, 0.5)
    assert deploy.compared(student, student, samples) == (4, 0.0)
    nothing = deploy.compared(student, lambda batch: student(batch) * float("nan"), samples)
    assert np.isnan(nothing[1])


# Every family


def family_student(name):
    """A student of 1x28x28 images, or larger ones where the family needs them, and 500 such images.

    It is untrained, but with the batch statistics of the images, and its logits have mean 0 and deviation 1, so that it
    predicts different classes.
    """
    side = 40 if name == "convnet3" else 28
    torch.manual_seed(0)
    model = models.normalised(models.build(name, (1, side, side), 10, width=0.5), [0.1307], [0.3081])
    images = raw_images(SPEC, 0, "val").batch(torch.arange(500))
    if side != 28:
        images = nn.functional.interpolate(images, (side, side))
    with torch.no_grad():
        for _ in range(10):
            model(images[:64])
        logits = model.eval()(images)
        head = model.model.get_submodule(MODELS[name].taps.head)
        head.weight /= logits.std(dim=0)[:, None]
        head.bias.copy_((head.bias - logits.mean(dim=0)) / logits.std(dim=0))
    return model.requires_grad_(False), images.contiguous()


@pytest.mark.slow
@pytest.mark.parametrize("name", FOR_IMAGES)
def test_every_family_computes_the_same_in_onnx_and_torch_export(name):
    student, images = family_student(name)
    example, expected = torch.zeros(2, *images.shape[1:]), student(images)
    content = deploy.torch_program(student, example)
    torch.testing.assert_close(torch.export.load(io.BytesIO(content)).module()(images), expected)
    found = deploy.OnnxStudent(deploy.onnx_model(student, example))(images)
    # Of the deepest, resnet110, PyTorch's own float32 logits are 9e-5 from those in float64.
    torch.testing.assert_close(found, expected, atol=5e-4, rtol=1e-4)
    assert (found.argmax(1) == expected.argmax(1)).all()
    assert len(expected.argmax(1).unique()) > 5


@pytest.mark.slow
@pytest.mark.parametrize("name", FOR_IMAGES)
def test_every_family_can_be_quantised(name):
    student, images = family_student(name)
    pixels = (images * 255).round().to(torch.uint8)
    train = Images(pixels, torch.zeros(len(pixels), dtype=torch.long))
    content = deploy.onnx_model(student, torch.zeros(2, *images.shape[1:]))
    quantized = deploy.OnnxStudent(deploy.int8_model(content, train))(images)
    # How close the logits are says nothing here: those of an untrained network hardly depend on its input.
    assert quantized.shape == student(images).shape
    assert quantized.isfinite().all()
    assert len(quantized.unique(dim=0)) > 5


def test_the_description_of_the_files_is_read_back(folder):
    written = json.loads((folder / CONFIG).read_text())["files"]
    assert written.keys() == set(FURTHER)
    assert written[ONNX].keys() == {"size_mb", "compared", "equal", "max_difference", "metrics", "versions"}
    assert written[ONNX]["versions"].keys() == {"torch", "onnx", "onnxruntime"}
