"""`kdsweep init` writes sweep files that pass `kdsweep validate`."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import kdsweep
from kdsweep import tasks
from kdsweep.config.draft import Draft
from kdsweep.config.text_draft import TextDraft
from kdsweep.datasets import embedded
from kdsweep.datasets.section import TextSection
from kdsweep.errors import InputError, SpecError
from kdsweep.models import InputSpec
from kdsweep.storage.paths import Store
from kdsweep.tasks.text import tokens

PACKAGE = Path(kdsweep.__file__).parents[1]


@pytest.fixture
def images(tmp_path, monkeypatch):
    """A folder of small images, in the current directory."""
    for number, folder in enumerate(["train/cat", "train/dog"]):
        (tmp_path / "my images" / folder).mkdir(parents=True)
        for image in range(8):
            picture = Image.new("RGB", (32, 32), (number, image, 0))
            picture.save(tmp_path / "my images" / folder / f"{image}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "my images"


def draft(path, images="my images", **changes):
    values = {"teacher": "", "teacher_model": "wrn_16_2", "student": "resnet8x4", "epochs": 8, "trials": 6}
    return Draft(Path(path), str(images), **values | changes)


def kdsweep_command(*arguments, folder):
    environment = os.environ | {"PYTHONPATH": str(PACKAGE)}
    command = [sys.executable, "-m", "kdsweep", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_a_file_for_a_folder_of_images_is_valid_and_says_what_it_found(images):
    draft("mine.yaml").write()
    spec = kdsweep.load_spec("mine.yaml")
    assert (spec.name, spec.dataset.root, spec.dataset.resize) == ("mine", str(images), 0)
    assert (spec.train.epochs, spec.teacher.train.epochs, spec.search.trials, spec.train.batch_size) == (8, 8, 6, 16)
    text = Path("mine.yaml").read_text()
    assert "Without a test split, the best students are not confirmed." in text
    assert "# checkpoint: teacher.safetensors" in text
    (images / "test").mkdir()
    for name in ("cat", "dog"):
        (images / "test" / name).mkdir()
        Image.new("RGB", (40, 30)).save(images / "test" / name / "1.png")
    draft("other.yaml", teacher_model="torchvision/resnet18").write()
    spec = kdsweep.load_spec("other.yaml")
    assert (spec.dataset.resize, spec.dataset.normalize) == (64, "imagenet")  # not all images have one size
    assert "measured once on the test split" in Path("other.yaml").read_text()


def test_a_folder_without_classes_is_told_of_the_data_set_for_it(images):
    (images / "train").rename(images / "photos")
    with pytest.raises(SpecError, match="^--images: .*train/ is missing; .* dataset.name: unlabelled_folder"):
        draft("mine.yaml").write()
    (images / "photos" / "cat").rename(images / "train")
    with pytest.raises(SpecError, match="^--images: .*no class folders; .* dataset.name: unlabelled_folder"):
        draft("mine.yaml").write()


def test_a_file_for_a_teachers_weights_is_valid(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = tmp_path / "the teacher.safetensors"
    weights.write_bytes(embedded.path("mnist_mini_teacher.safetensors").read_bytes())
    with pytest.raises(SpecError, match="^--teacher: checkpoint .*the teacher.safetensors"):
        draft("digits.yaml", "mnist_mini", teacher=str(weights), teacher_model="mnist_teacher").write()
    model = kdsweep.models.build("mnist_teacher", (1, 28, 28), 10)
    torch.save(model.state_dict(), weights.with_suffix(".pt"))
    given = {"teacher": "the teacher.pt", "teacher_model": "mnist_teacher", "student": "mnist_student"}
    draft("digits.yaml", "mnist_mini", **given).write()
    spec = kdsweep.load_spec("digits.yaml")
    assert (spec.dataset.name, spec.teacher.checkpoint) == ("mnist_mini", str(weights.with_suffix(".pt")))


def test_what_is_wrong_names_the_option_and_nothing_is_written(images):
    with pytest.raises(SpecError) as raised:
        draft("bad.yaml", "no/such", teacher_model="resnet99", student="convnet", teacher="no.pt").write()
    faults = [fault.split(": ")[0] for fault in raised.value.faults]
    assert faults == ["--images", "--teacher-model", "--teacher", "--student"]
    assert not Path("bad.yaml").exists()
    Path("there.yaml").write_text("mine")
    with pytest.raises(InputError, match=r"^there.yaml: exists already; accepted: the name of a new file$"):
        draft("there.yaml").write()
    assert Path("there.yaml").read_text() == "mine"
    with pytest.raises(InputError, match="cannot be written: No such file"):
        draft("no/folder.yaml").write()


def test_the_command_takes_options_and_says_what_is_missing(images):
    folder = images.parent
    without = kdsweep_command("init", folder=folder)
    assert without.returncode == 2
    assert without.stderr.startswith("--images is missing; accepted: a folder with train/CLASS/IMAGE")
    assert "quickstart" in without.stderr
    half = kdsweep_command("init", "--images", "my images", "--teacher", "t.pt", folder=folder)
    assert (half.returncode, half.stderr.split(":")[0]) == (2, "--teacher")
    arguments = ("--images", "my images", "--teacher-model", "wrn_16_2", "--trials", "3")
    made = kdsweep_command("init", *arguments, folder=folder)
    assert (made.returncode, made.stdout) == (0, "sweep.yaml\n")
    assert kdsweep_command("validate", "sweep.yaml", folder=folder).stdout.startswith(
        "sweep.yaml: valid\nsweep: 3 trials"
    )
    again = kdsweep_command("init", *arguments, folder=folder)
    assert (again.returncode, again.stderr) == (2, "sweep.yaml: exists already; accepted: the name of a new file\n")
    listed = kdsweep_command("init", "--list", folder=folder)
    assert "quickstart" in listed.stdout


@pytest.mark.parametrize(("answers", "code"), [(["my images", "", "wrn_16_2", ""], 0), (["\x03"], 130)])
def test_on_a_terminal_it_asks(images, answers, code):
    leader, follower = pty.openpty()
    environment = os.environ | {"PYTHONPATH": str(PACKAGE), "TERM": "dumb"}
    command = [sys.executable, "-m", "kdsweep", "init", "asked.yaml"]
    process = subprocess.Popen(
        command, cwd=images.parent, env=environment, stdin=follower, stdout=subprocess.DEVNULL, stderr=follower,
        start_new_session=True, preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
    )  # fmt: skip
    shown = b""
    for answer in answers:
        while not shown.rstrip().endswith(b":"):
            shown += os.read(leader, 1000)
        time.sleep(0.2)
        os.write(leader, answer.encode() if code else f"{answer}\n".encode())
        shown = b""
    assert process.wait(60) == code
    os.close(follower)
    os.close(leader)
    if code == 0:
        assert kdsweep.load_spec("asked.yaml").student.model == "resnet8x4"


def texts_draft(path, texts, columns=("text", "label"), **changes):
    values = {"teacher": "", "teacher_model": "bilstm", "student": "bilstm", "epochs": 8, "trials": 6}
    return TextDraft(Path(path), str(texts), **values | changes, columns=columns)


def test_a_file_for_texts_is_valid_and_follows_their_number_and_length(tmp_path, monkeypatch):
    pytest.importorskip("tokenizers")
    monkeypatch.chdir(tmp_path)
    rows = [f'"sentence {number} {"is long " * 20}",{number % 3}' for number in range(700)]
    Path("reviews.csv").write_text("\n".join(["review,stars", *rows]))
    texts_draft("mine.yaml", "reviews.csv", ("review", "stars")).write()
    spec = kdsweep.load_spec("mine.yaml")
    assert (spec.dataset.name, spec.dataset.root) == ("text_files", str(tmp_path / "reviews.csv"))
    assert (spec.dataset.text.text_column, spec.dataset.text.label_column) == ("review", "stars")
    assert (spec.dataset.text.length, spec.dataset.text.vocabulary, spec.train.batch_size) == (64, 500, 64)
    assert (spec.teacher.model, spec.teacher.width, spec.student.model) == ("bilstm", 2.0, "bilstm")
    prepared = tasks.of(spec.dataset).prepare(spec.dataset, 0, Store(tmp_path))  # has as many tokens
    assert prepared.vocabulary == 500
    with pytest.raises(SpecError, match="^--texts: .*no column 'text'"):
        texts_draft("other.yaml", "reviews.csv").write()
    with pytest.raises(SpecError, match="^--texts: .*no such file or directory"):
        texts_draft("other.yaml", "nowhere").write()
    assert not Path("other.yaml").exists()


def test_the_tokenizer_beside_a_teacher_is_taken(tmp_path, monkeypatch):
    pytest.importorskip("tokenizers")
    monkeypatch.chdir(tmp_path)
    Path("few.jsonl").write_text('{"text": "you are", "label": "a"}\n{"text": "are you", "label": "b"}\n' * 20)
    texts = np.array(["you are", "are you"] * 40, object)
    tokens.train(texts, TextSection(vocabulary=258), tmp_path / "tokenizer.json")
    model = kdsweep.models.build("bilstm", InputSpec((32,), "int64", 258, 0), 2)
    torch.save(model.state_dict(), "teacher.pt")
    texts_draft("mine.yaml", "few.jsonl", teacher=str(tmp_path / "teacher.pt")).write()
    spec = kdsweep.load_spec("mine.yaml")
    assert spec.dataset.text.tokenizer == str(tmp_path / "tokenizer.json")
    assert spec.teacher.checkpoint == str(tmp_path / "teacher.pt")
    found = kdsweep_command("init", "--texts", "few.jsonl", "--images", "mnist_mini", "b.yaml", folder=tmp_path)
    assert (found.returncode, found.stderr.strip()) == (2, "--texts: found, beside --images; accepted: one of them")
