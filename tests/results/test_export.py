"""Exported students: what is in the files, that they load elsewhere, and what is refused."""

from __future__ import annotations

import json
import math
import re
import resource
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from inputs import RANDOM, STUDENT, either, refused
from markdown_it import MarkdownIt
from PIL import Image
from safetensors.torch import load_file, save_file

import kdsweep
from kdsweep import cli, models
from kdsweep.config.spec import SweepSpec
from kdsweep.datasets import embedded
from kdsweep.datasets.images import resized
from kdsweep.errors import CheckpointError, DataError, InputError, SweepDirError
from kdsweep.results import card as cards
from kdsweep.results.card import card as card_of
from kdsweep.results.confirmed import verdict_of
from kdsweep.results.export import CARD
from kdsweep.results.frames import load_results, write_frames
from kdsweep.results.standalone import MODEL
from kdsweep.results.student import evaluate_student, load_student
from kdsweep.results.student_config import CONFIG, WEIGHTS, StudentConfig, read_config
from kdsweep.search.study import Study
from kdsweep.search.trial import State
from kdsweep.storage.files import write_json
from kdsweep.storage.paths import SweepDir
from kdsweep.tasks.image.splits import prepare, split_arrays
from kdsweep.training.trainer import Training
from kdsweep.worker.workbench import Workbench, provide_teacher

CPU = torch.device("cpu")


def sweep_by_hand(root, points, student="mnist_student", **sections):
    """A finished sweep over given configurations, made in this process without Ray."""
    methods = list(dict.fromkeys(point["method"] for point in points))
    spec = SweepSpec.model_validate({
        "name": "byhand",
        "dataset": {"name": "mnist_mini", "subset": 300, "val_fraction": 0.5},
        "teacher": {"model": "mnist_teacher", "width": 0.25, "checkpoint": "kdsweep:mnist_mini_teacher"},
        "student": {"model": student},
        "space": {"method": methods, "width": {"uniform": [0.1, 1]}, "lr": 0.003},
        "train": {"epochs": 2, "batch_size": 32},
        "search": {"sampler": "random", "trials": len(points), "points": points},
        "storage": str(root),
    } | sections)  # fmt: skip
    sweep = spec.sweep_dir
    data = prepare(spec.dataset, spec.seed, sweep.store)
    card = provide_teacher(spec, sweep, data, CPU, lambda metrics: None)
    spec.save(sweep.spec)
    write_json(sweep.data, data.described())
    bench = Workbench(spec, sweep, data, card, CPU)
    study = Study(spec, sweep, spec.search_space)
    for _ in points:
        trial = study.ask()
        training = bench.training(trial.config, 1, sweep.trial(trial.key).state)
        while not training.done:
            step(study, trial.key, training)
        training.save(sweep.trial(trial.key).state, sweep.trial(trial.key).best)
        study.finish(trial.key, State.COMPLETE)
    study.close()
    write_frames(sweep)
    return load_results(sweep.root)


def step(study: Study, key: str, training: Training) -> None:
    metrics = training.run_epoch()
    student = training.inference
    size = {"parameters": models.count_parameters(student), "size_mb": models.size_mb(student)}
    study.report(key, {"epoch": training.epoch, **metrics, **size})


def point(method, width=0.5, alpha=0.6):
    return {"method": method, "width": width} | ({"alpha": alpha} if method != "none" else {})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Three finished trials; tests must not change it."""
    return sweep_by_hand(tmp_path_factory.mktemp("made"), [point("hint"), point("simkd"), point("none")])


def key_of(results, method):
    return results.trials.set_index("method").loc[method, "trial"]


@pytest.fixture
def student(made, tmp_path):
    """The folder of one student, to be damaged."""
    return made.export(tmp_path / "students", trial=key_of(made, "hint"))[0]


def test_a_student_is_exported_to_an_object_store_and_loaded_from_there(made, bucket):
    (exported,) = made.export_to(f"{bucket.uri}/students", trial=key_of(made, "hint"))
    place = exported.place
    assert str(place) == f"s3://sweeps/students/byhand-{key_of(made, 'hint')}"
    files = {key.rsplit("/")[-1] for key in bucket.listed()} - {""}
    assert files == {CONFIG, WEIGHTS, CARD, MODEL}
    local = load_student(made.export(Path(bucket.environment["KDSWEEP_CACHE"]) / "x", trial=exported.config.trial)[0])
    images = torch.rand(4, 1, 28, 28)
    assert torch.equal(load_student(str(place))(images), local(images))
    assert evaluate_student(str(place), "val")["student"] == str(place)
    with pytest.raises(InputError, match="results.export_to takes a URI"):
        made.export("s3://sweeps/students")


def rewrite(folder, **changes):
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# A student loads elsewhere

ELSEWHERE = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
import kdsweep
from kdsweep.tasks.image.splits import split_arrays
from kdsweep.results.student import evaluate_student
from kdsweep.datasets.section import DatasetSpec

found = {}
for folder in map(Path, sys.argv[1:]):
    config = json.loads((folder / "config.json").read_text())
    images, labels = split_arrays(DatasetSpec.model_validate(config["dataset"]), config["seed"])[1]
    student = kdsweep.load_student(folder)
    with torch.no_grad():
        right = student(torch.from_numpy(images) / 255).argmax(1) == torch.from_numpy(labels)
    told = evaluate_student(folder, "val")
    counted = right.sum().item() / len(labels)
    found[config["trial"]] = [config["val_accuracy"], told["accuracy"], counted, told["images"]]
print(json.dumps(found))
"""


def elsewhere(folders):
    """What a fresh process measures: for each trial its accuracy as recorded, as evaluated and by hand."""
    command = [sys.executable, "-c", ELSEWHERE, *map(str, folders)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_a_fresh_process_measures_exactly_the_recorded_accuracy(swept, made, tmp_path):
    results = load_results(swept)
    folders = results.export(tmp_path / "swept", top=3)
    recorded = results.trials.set_index("trial")["val_accuracy"]
    recorded_by_hand = made.trials.set_index("trial")["val_accuracy"]
    folders_by_hand = made.export(tmp_path / "made", top=3)
    assert len(folders) == len(folders_by_hand) == 3
    found = elsewhere([*folders, *folders_by_hand])
    assert len(found) == 6
    for key, (written, told, counted, images) in found.items():
        expected, count = (recorded[key], 600) if key in recorded else (recorded_by_hand[key], 150)
        assert written == told == counted == expected
        assert images == count


def test_a_student_normalises_its_own_input(student):
    config = read_config(student)
    images = torch.rand(5, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    bare = models.build("mnist_student", (1, 28, 28), 10, width=0.5)
    bare.load_state_dict(load_file(student / WEIGHTS))
    loaded = load_student(student)
    assert not loaded.training
    torch.testing.assert_close(loaded(images), bare.eval()((images - 0.1307) / 0.3081))
    assert (config.mean, config.std) == ((0.1307,), (0.3081,))


def test_the_best_are_exported_best_first_each_configuration_once(swept, tmp_path):
    results = load_results(swept)
    folders = results.export(tmp_path / "students", top=2)
    expected = [f"small-{key}" for key in results.distinct(2)["trial"]]
    assert [folder.name for folder in folders] == expected
    assert sorted(path.name for path in (tmp_path / "students").iterdir()) == sorted(expected)
    assert sorted(path.name for path in folders[0].iterdir()) == [
        "README.md",
        "config.json",
        "model.py",
        "model.safetensors",
    ]


# What is in the files


def test_adapters_are_not_exported(student):
    state = load_file(student / WEIGHTS)
    assert state.keys() == models.build("mnist_student", (1, 28, 28), 10, width=0.5).state_dict().keys()


def test_the_head_of_simkd_is_exported_counted_and_used(made, tmp_path):
    (folder,) = made.export(tmp_path, trial=key_of(made, "simkd"))
    config, state = read_config(folder), load_file(folder / WEIGHTS)
    assert {"head.classifier.weight", "student.conv1.weight"} <= state.keys()
    loaded = load_student(folder)
    assert (
        config.parameters
        == models.count_parameters(loaded)
        > models.count_parameters(models.build("mnist_student", (1, 28, 28), 10, width=0.5))
    )
    teacher = load_file(made.sweep.teacher_weights)
    assert torch.equal(state["head.classifier.weight"], teacher["fc.weight"])
    with torch.no_grad():
        loaded.model.head.classifier.weight.zero_()
        logits = loaded(torch.rand(3, 1, 28, 28))
    torch.testing.assert_close(logits, teacher["fc.bias"].expand(3, 10))


def test_the_description_is_complete(made, student):
    config = json.loads((student / CONFIG).read_text())
    row = made.trial(key_of(made, "hint"))
    assert config.keys() == {*StudentConfig.model_fields, "val_accuracy"}
    assert config["model"] == "mnist_student"
    assert (config["width"], config["input_shape"], config["head"]) == (0.5, [1, 28, 28], {})
    assert config["class_names"] == list("0123456789")
    assert (config["mean"], config["std"]) == ([0.1307], [0.3081])
    assert config["parameters"] == row["parameters"] == models.count_parameters(load_student(student))
    assert config["size_mb"] == row["size_mb"]
    assert config["val_accuracy"] == row["val_accuracy"]
    assert config["dataset"]["name"] == "mnist_mini"
    assert config["settings"]["method"] == "hint"
    assert config["settings"]["train"]["epochs"] == 2
    assert config["settings"].items() >= made.config(row["trial"]).items()
    assert config["teacher"] == made.teacher
    assert (config["sweep"], config["trial"], config["kdsweep"]) == ("byhand", row["trial"], kdsweep.__version__)


def test_what_was_confirmed_is_told(swept, tmp_path):
    results = load_results(swept)
    (folder,) = results.export(tmp_path, top=1)
    (row,) = results.confirmed.to_dict("records")
    told = read_config(folder).confirmed
    assert told["test_accuracy"] == row["test_accuracy"]
    assert told["kd_gain"] == row["kd_gain"]
    card = (folder / CARD).read_text()
    assert f"| test, these settings on 2 fresh seeds | {row['test_accuracy']:.2%} ± " in card
    assert told["verdict"] == row["verdict"]
    low, mean, high = (f"{row[name] * 100:+.2f}" for name in ("kd_gain_low", "kd_gain", "kd_gain_high"))
    verdict = verdict_of(row, "kd_gain").conclusion("accuracy")
    assert f"| {mean} points (95 % CI {low} to {high}), {verdict} |" in card
    assert f"Norm of the first layer before training: {row['first_layer_norm']:.4f}" in card


def rendered(card):
    """The card as a page; its metadata, which the Hub shows apart, are left out."""
    _, metadata, card = card.split("---\n", 2)
    assert metadata.startswith("library_name: kdsweep\n")
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(card)


def test_the_card_says_what_it_is_and_how_to_load_it(made, student):
    card = (student / CARD).read_text()
    page = rendered(card)
    assert page.count("<table>") == 2
    assert page.count("<h2>") == 4
    assert f"<td>{read_config(student).val_accuracy:.2%}</td>" in page
    assert f"<td>{made.teacher['val_accuracy']:.2%}</td>" in page
    code = card.split("```python\n")[1].split("```")[0]
    logits = {}
    exec(
        code.replace('load_student(".")', f"load_student({str(student)!r})"),
        {"images": torch.rand(2, 1, 28, 28)},
        logits,
    )
    assert logits["logits"].shape == (2, 10)


HOSTILE = (
    "<img src=x onerror=alert(1)>", "](http://evil.example) [x", "| a | b |", "*bold* _it_", "`code`", "# heading",
    "two\nlines\r\n# head", "![a](b)", "back\\slash\\", "&lt;b&gt;", "~~gone~~", "$x^2$",
)  # fmt: skip


def test_the_card_lists_only_the_settings_that_were_used(student):
    config = read_config(student)
    train = config.settings["train"] | {
        "optimizer": "sgd",
        "schedule": "step",
        "milestones": [1],
        "task_loss": "multi_margin",
    }
    changed = config.model_copy(update={"settings": config.settings | {"train": train}})
    listed = {line.split(" | ")[0].strip("| ") for line in card_of(config).splitlines() if line.startswith("| ")}
    assert {"optimizer", "schedule", "label_smoothing", "precision"} <= listed
    assert listed.isdisjoint({"momentum", "dampening", "nesterov", "milestones", "gamma"})
    listed = {line.split(" | ")[0].strip("| ") for line in card_of(changed).splitlines() if line.startswith("| ")}
    assert {"momentum", "dampening", "nesterov", "milestones", "gamma"} <= listed
    assert "label_smoothing" not in listed
    assert "moving average" not in card_of(config)
    averaged = config.model_copy(update={"settings": config.settings | {"ema_decay": 0.99}})
    assert "are an exponential moving average over training (decay 0.99 at each step)" in card_of(averaged)


def test_class_names_cannot_break_out_of_the_card(student):
    config = read_config(student)
    plain = rendered(card_of(config.model_copy(update={"model": "own.module:build"})))  # it has no model.py
    hostile = config.model_copy(update={"class_names": HOSTILE, "model": HOSTILE[1], "sweep": HOSTILE[2]})
    page = rendered(card_of(hostile))
    for tag in ("<img", "<a ", "<em>", "<strong>", "<s>"):
        assert tag not in page
    for tag in ("<table>", "<h1>", "<h2>", "<code", "<p>", "<td>"):
        assert page.count(tag) == plain.count(tag), tag
    text = unescape(page)
    for name in HOSTILE:
        assert " ".join(name.split()) in " ".join(text.split())


# Which are exported


def test_more_than_there_are_is_all_of_them(made, tmp_path):
    assert len(made.export(tmp_path, top=50)) == 3


def test_a_configuration_that_was_tried_twice_is_exported_once(tmp_path):
    results = sweep_by_hand(tmp_path, [point("none"), point("none")])
    assert len(results.trials) == 2
    assert len(results.export(tmp_path / "students", top=2)) == 1


def test_a_second_export_replaces_the_first(made, tmp_path):
    (folder,) = made.export(tmp_path, top=1)
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / CARD).write_text("mine")
    (folder / WEIGHTS).write_bytes(b"broken")
    assert made.export(tmp_path, top=1) == [folder]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, CARD])
def test_a_full_disk_leaves_the_export_that_was_there(name, made, tmp_path, monkeypatch):
    (folder,) = made.export(tmp_path / "students", top=1)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with monkeypatch.context() as context:
        context.setattr(Path, "write_bytes", full_at(name, Path.write_bytes))
        with refused(
            STUDENT, InputError, match=r"^--out .*: cannot be written: No space left on device; choose a writable "
        ):
            made.export(tmp_path / "students", top=1)
        with refused(STUDENT, InputError, match="No space left"):
            made.export(tmp_path / "fresh", top=1)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in (tmp_path / "students").iterdir()] == [folder.name]
    assert list((tmp_path / "fresh").iterdir()) == []


def full_at(name, write_bytes):
    """A disk that takes half of one file."""

    def write(path, content):
        if path.name != name:
            return write_bytes(path, content)
        write_bytes(path, content[: len(content) // 2])
        raise OSError(28, "No space left on device", str(path))

    return write


def test_anything_in_the_way_of_an_export_is_kept_and_reported_in_one_line(made, tmp_path):
    (folder,) = made.export(tmp_path / "good", top=1)
    name = folder.name
    kinds = {
        "a file as directory": lambda out: out.write_text("mine"),
        "a file as folder": lambda out: (out.mkdir(), (out / name).write_text("mine")),
        "a folder as file": lambda out: (out / name / WEIGHTS / "mine").mkdir(parents=True),
        "a dangling link": lambda out: (out.mkdir(), (out / name).symlink_to(tmp_path / "nowhere")),
        "a dangling directory": lambda out: out.symlink_to(tmp_path / "nowhere"),
        "a link to itself": lambda out: out.symlink_to(out),
        "too long a name": lambda out: out.mkdir(),
    }
    for kind, put in kinds.items():
        out = tmp_path / kind.replace(" ", "-")
        put(out)
        before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
        target = out / ("x" * 300) if kind.startswith("too") else out
        with refused(STUDENT, InputError, match="cannot be written") as caught:
            made.export(target, top=1)
        assert "\n" not in str(caught.value)
        assert "free space" not in str(caught.value)
        assert ("remove what is in the way" in str(caught.value)) == (not kind.startswith("too"))
        assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before, kind
    assert (tmp_path / "a-file-as-folder" / name).read_text() == "mine"


def test_an_export_does_not_write_through_links(made, tmp_path):
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    (folder,) = made.export(tmp_path / "students", top=1)
    for path in folder.iterdir():
        path.unlink()
        path.symlink_to(precious)
    made.export(tmp_path / "students", top=1)
    assert precious.read_text() == "mine"
    assert load_student(folder) is not None
    real = tmp_path / "real"
    real.mkdir()
    shutil.rmtree(folder)
    folder.symlink_to(real)
    made.export(tmp_path / "students", top=1)
    assert sorted(path.name for path in real.iterdir()) == ["README.md", "config.json", "model.py", "model.safetensors"]


def test_weights_that_were_not_kept_end_in_a_line_that_lists_those_that_were(made, tmp_path):
    copy = SweepDir(shutil.copytree(made.path, tmp_path / "byhand"))
    lost, *kept = (load_results(copy.root).best(3))["trial"]
    copy.trial(lost).best.unlink()
    with refused(STUDENT, InputError, match="weights were not kept") as caught:
        load_results(copy.root).export(tmp_path / "students", top=3)
    assert str(caught.value).endswith(f"accepted: {', '.join(sorted(kept))}")
    assert not (tmp_path / "students").exists()
    assert len(load_results(copy.root).export(tmp_path / "students", trial=kept[0])) == 1


def test_kept_weights_that_are_damaged_are_refused_in_one_line(made, tmp_path):
    copy = SweepDir(shutil.copytree(made.path, tmp_path / "byhand"))
    key = key_of(made, "hint")
    copy.trial(key).best.write_bytes(copy.trial(key).best.read_bytes()[:-100])
    with refused(STUDENT, InputError, match=r"best\.safetensors: unreadable: ") as caught:
        load_results(copy.root).export(tmp_path / "students", trial=key)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "students").exists()


def test_a_sweep_without_results_has_nothing_to_export(made, tmp_path):
    sweep = SweepDir(tmp_path / "empty")
    sweep.root.mkdir()
    shutil.copy(made.sweep.spec, sweep.spec)
    with refused(STUDENT, InputError, match="no trial has finished an epoch yet"):
        load_results(sweep.root).export(tmp_path / "students")


def test_a_trial_that_still_runs_is_exported_with_the_accuracy_of_its_kept_weights(made, tmp_path):
    copy = SweepDir(shutil.copytree(made.path, tmp_path / "byhand"))
    shutil.copytree(made.sweep.store.root, copy.store.root)
    spec = made.spec.replaced(
        storage=str(tmp_path),
        search=made.spec.search.model_copy(update={"trials": 4}),
        train=made.spec.train.model_copy(update={"epochs": 20}),
    )
    study = Study(spec, copy, spec.search_space)
    trial = study.ask()
    data = prepare(spec.dataset, spec.seed, copy.store)
    training = Workbench.of(spec, copy, data, CPU).training(trial.config, 1, copy.trial(trial.key).state)
    step(study, trial.key, training)
    training.save(copy.trial(trial.key).state, copy.trial(trial.key).best)
    kept = training.best_value
    while training.best_value == kept:
        step(study, trial.key, training)
    study.close()
    results = load_results(copy.root)
    assert results.trial(trial.key)["state"] == "RUNNING"
    assert results.trial(trial.key)["val_accuracy"] > kept
    (folder,) = results.export(tmp_path / "students", trial=trial.key)
    assert read_config(folder).val_accuracy == kept == evaluate_student(folder, "val")["accuracy"]


# What is refused

WRONG = {
    "an unknown key": ({"evil": 1}, "evil: unknown key"),
    "another format": ({"format": 2}, "format: "),
    "a width of text": ({"width": "wide"}, "width: "),
    "a negative width": ({"width": -1}, "width: "),
    "an infinite width": ({"width": 1e300}, "width: "),
    "an unknown model": ({"model": "mnist_studnt"}, "did you mean 'mnist_student'?"),
    "a path as model": ({"model": "../../etc/passwd"}, "unknown model"),
    "an unknown option": ({"options": {"depth": 3}}, "has no option 'depth'"),
    "an option that names an argument": ({"options": {"name": "x"}}, "the model in config.json cannot be built"),
    "other classes": ({"class_names": ["a", "b"]}, "fc.weight is [10, "),
    "no classes": ({"class_names": []}, "num_classes 0"),
    "another shape": ({"input_shape": [3, 28, 28]}, "conv1.weight is [8, 1, 3, 3], accepted: [8, 3, 3, 3]"),
    "a huge shape": ({"input_shape": [1, 1000000, 1000000]}, "fc.weight is [10, "),
    "a negative shape": ({"input_shape": [1, -28, 28]}, "input_shape is (1, -28, 28)"),
    "two sizes": ({"input_shape": [28, 28]}, "input_shape"),
    "a deviation of zero": ({"std": [0.0]}, "std above 0"),
    "no mean": ({"mean": [], "std": []}, "0 means for 1 channels"),
    "an unknown head": ({"head": {"evil": 1}}, "the model in config.json cannot be built"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_description_is_refused_in_one_line(fault, student):
    changes, message = WRONG[fault]
    rewrite(student, **changes)
    with refused(STUDENT, InputError) as caught:
        load_student(student)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_description_of_a_giant_takes_no_memory(student):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    giant = {"in_channels": 8, "out_channels": 100_000, "height": 1, "width": 1, "pooled": True, "num_classes": 10}
    for changes in ({"model": "resnet110", "width": 100}, {"model": "torchvision/mobilenet_v2", "width": 30},
                    {"model": "torchvision/vit_b_16", "width": 1, "options": {"head_hidden": [100_000, 100_000]}},
                    {"head": {"kind": "transfer", **giant}}):  # fmt: skip
        whole = (student / CONFIG).read_text()
        rewrite(student, **changes)
        with refused(STUDENT, InputError):
            load_student(student)
        (student / CONFIG).write_text(whole)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000  # kB, most of it torchvision's import


def test_a_head_says_its_kind_and_one_of_an_earlier_version_need_not(made, tmp_path, evil):
    (folder,) = made.export(tmp_path / "out", trial=key_of(made, "simkd"))
    head = read_config(folder).head
    assert head["kind"] == "transfer"
    images = torch.rand(3, 1, 28, 28)
    expected = load_student(folder)(images)
    rewrite(folder, head={key: value for key, value in head.items() if key != "kind"})
    assert torch.equal(load_student(folder)(images), expected)
    rewrite(folder, head=head | {"kind": "transfr"})
    with refused(STUDENT, InputError, match="unknown head 'transfr'; did you mean 'transfer'"):
        load_student(folder)
    rewrite(folder, head={"kind": "evil_student:build"})
    with refused(STUDENT, InputError, match="its head is user code, 'evil_student:build'; pass trust_code=True"):
        load_student(folder)
    assert not evil.exists()


def test_exporting_and_evaluating_do_without_the_compiler(made, student, tmp_path):
    code = f"""
import sys
from kdsweep.cli import app
app(["export", {str(made.path)!r}, "--out", {str(tmp_path / "out")!r}], standalone_mode=False)
app(["evaluate", {str(student)!r}], standalone_mode=False)
print([name for name in ("torch._dynamo", "torch._inductor", "sympy", "ray") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


ODD = [None, True, -1, 0, 1.5, 10**29, -0.5, "", "x", "\u202e", "a:b", "kd", "../x", [], {}, [1], [[]], ["a", "a"],
       {"a": {}}, [0] * 10, [28, 28], [1, 28, 28, 1], "mnist_teacher", "resnet20", [-1.0],
       {"kind": "transfer"}]  # fmt: skip


@settings(RANDOM, max_examples=80)
@given(data=st.data())
def test_a_mutated_description_is_refused_or_gives_the_student_that_it_describes(data, exported):
    images = torch.zeros(2, 1, 28, 28)
    with TemporaryDirectory() as folder:
        student = Path(shutil.copytree(exported, Path(folder) / "student"))
        described = json.loads((student / CONFIG).read_text())
        key = data.draw(st.sampled_from(sorted(described)))
        how = data.draw(st.sampled_from(["delete", "rename", "replace", "replace", "replace", "inside"]))
        inner = described[key]
        if how in ("delete", "rename"):
            value = described.pop(key)
            if how == "rename":
                described[data.draw(st.sampled_from(["x", "val_x", "Model", "\n", ""]))] = value
        elif how == "inside" and isinstance(inner, dict | list) and inner:
            place = data.draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner))))
            inner[place] = data.draw(st.sampled_from(ODD))
        else:
            described[key] = data.draw(st.sampled_from(ODD))
        (student / CONFIG).write_text(json.dumps(described))

        def right(loaded):
            assert loaded.class_names == tuple(described["class_names"])
            logits = loaded(images)
            return logits.shape == (2, 10) and bool(logits.isfinite().all())

        either(STUDENT, lambda: load_student(student), right)


@pytest.fixture(scope="module")
def exported(made, tmp_path_factory):
    """The folder of one student; tests must not change it."""
    return made.export(tmp_path_factory.mktemp("exported"), trial=key_of(made, "hint"))[0]


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "[" * 100_000, '{"format": 1}', "\x00"])
def test_a_description_that_is_none_is_refused_in_one_line(content, student):
    (student / CONFIG).write_text(content)
    with refused(STUDENT, InputError) as caught:
        load_student(student)
    assert str(student) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_student_is_refused(tmp_path, student):
    missing = r"not an exported student: config.json is missing; accepted: a folder of kdsweep export$"
    with refused(STUDENT, InputError, match=missing):
        load_student(tmp_path)
    with refused(STUDENT, InputError, match="config.json: a file; accepted: the student's folder, "):
        load_student(student / CONFIG)


def test_weights_that_are_damaged_missing_or_another_models_are_refused(student):
    weights = student / WEIGHTS
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with refused(STUDENT, CheckpointError, match=r"model\.safetensors: unreadable"):
        load_student(student)
    weights.unlink()
    with refused(STUDENT, CheckpointError, match="no such file"):
        load_student(student)
    save_file({"fc.weight": torch.zeros(10, 3)}, weights)
    with refused(STUDENT, CheckpointError, match="fc.weight is"):
        load_student(student)


EVIL = "from pathlib import Path\nPath({marker!r}).touch()\ndef build(*arguments, **options):\n    raise RuntimeError\n"


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A module that leaves a mark where it is imported."""
    (tmp_path / "evil_student.py").write_text(EVIL.format(marker=str(tmp_path / "mark")))
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "mark"
    sys.modules.pop("evil_student", None)


def test_code_that_a_student_names_is_not_imported(student, evil):
    rewrite(student, model="evil_student:build")
    for load in (load_student, lambda folder: evaluate_student(folder, "val")):
        with refused(STUDENT, InputError, match="is user code, 'evil_student:build'; pass trust_code=True"):
            load(student)
    assert not evil.exists()
    with refused(STUDENT, InputError, match="evil_student:build"):
        load_student(student, trust_code=True)
    assert evil.exists()


def test_a_student_of_images_without_labels_asks_for_a_labelled_data_set(student, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    classes = list(load_student(student).class_names)
    rewrite(student, dataset=read_config(student).dataset | {"name": "unlabelled_folder", "classes": classes})
    told = (
        r"images without labels \(unlabelled_folder\), and is evaluated on labelled ones; accepted: --dataset image_f"
    )
    with refused(STUDENT, DataError, match=told):
        evaluate_student(student, "test")
    with refused(STUDENT, DataError, match="gone: no such directory; accepted: a folder of images, or one with"):
        evaluate_student(student, "test", root="gone")


def test_code_that_a_students_data_set_names_is_not_imported(student, evil):
    rewrite(student, dataset=read_config(student).dataset | {"name": "evil_student:build"})
    with refused(STUDENT, InputError, match="its data set is user code, 'evil_student:build'"):
        evaluate_student(student, "val")
    assert not evil.exists()
    assert evaluate_student(student, "test", dataset="mnist_mini")["images"] == 2000
    assert not evil.exists()
    with refused(STUDENT, DataError, match="evil_student:build"):
        evaluate_student(student, "val", trust_code=True)
    assert evil.exists()


def test_a_students_own_model_loads_where_its_code_lies_and_is_trusted(tmp_path, monkeypatch, capsys):
    (tmp_path / "own_student.py").write_text(
        "from torch import nn\n"
        "def build(input_shape, num_classes, width):\n"
        "    hidden = round(32 * width)\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(784, hidden), nn.Linear(hidden, num_classes))\n"
    )
    with monkeypatch.context() as context:
        context.syspath_prepend(tmp_path)
        results = sweep_by_hand(tmp_path, [point("none")], student="own_student:build")
    monkeypatch.chdir(tmp_path)
    for command in (["export", str(results.path), "--out", "students"],
                    ["evaluate", "students/byhand-{key}", "--split", "val", "--trust-code"]):  # fmt: skip
        monkeypatch.delitem(sys.modules, "own_student")
        monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(tmp_path)])
        arguments = [argument.format(key=results.trials["trial"][0]) for argument in command]
        monkeypatch.setattr(sys, "argv", ["kdsweep", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert re.search(rf"^accuracy +{results.trials['val_accuracy'][0]:.2%}$", out, re.MULTILINE)
    (folder,) = (tmp_path / "students").iterdir()
    with refused(STUDENT, InputError, match="trust_code"):
        load_student(folder)


# Misuse of a student is reported


def damage(folder, change):
    state = load_file(folder / WEIGHTS)
    change(state)
    save_file(state, folder / WEIGHTS)


BROKEN = {
    "NaN": (lambda state: state["fc.weight"].view(-1)[3].fill_(math.nan), "fc.weight contains NaN or an infinity"),
    "an infinity": (lambda state: state["fc.bias"][0].fill_(-math.inf), "fc.bias contains NaN or an infinity"),
    "int8": (lambda s: s.update({"fc.weight": s["fc.weight"].to(torch.int8)}), "fc.weight is int8; accepted: floating"),
    "bool": (lambda state: state.update({"fc.bias": state["fc.bias"] > 0}), "fc.bias is bool; accepted: floating"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_weights_that_are_not_finite_floats_are_refused(kind, student):
    change, message = BROKEN[kind]
    damage(student, change)
    with refused(STUDENT, CheckpointError, match="student .*model.safetensors: ") as caught:
        load_student(student)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"val_accuracy": ', '"val_accuracy": NaN, "x": '), ('"val_accuracy": ', '"val_accuracy": 1e999, "x": '),
        ('"seed": ', '"seed": -Infinity, "x": '), ('"seed": ', '"seed": ' + "9" * 5000 + ', "x": '),
        ('"parameters": ', '"parameters": ' + "9" * 100 + ', "x": '), ('"mean": [', '"mean": [NaN, '),
        ('"width": ', '"width": Infinity, "x": '),
    ],
)  # fmt: skip
def test_numbers_that_are_infinite_or_absurd_are_refused_in_a_description(old, new, student):
    path = student / CONFIG
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with refused(STUDENT, InputError, match=r"config\.json: unreadable: found .*; accepted: ") as caught:
        load_student(student)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["hint", "simkd"])
def test_prefixed_weights_load_as_the_same_student(method, made, tmp_path):
    (student,) = made.export(tmp_path / "students", trial=key_of(made, method))
    images = torch.rand(3, 1, 28, 28)
    expected = load_student(student)(images)
    state = load_file(student / WEIGHTS)
    save_file({f"module.{name}": tensor for name, tensor in state.items()}, student / WEIGHTS)
    assert torch.equal(load_student(student)(images), expected)


def test_uint8_images_are_scaled_and_other_integers_refused(student):
    loaded = load_student(student)
    pixels = torch.randint(0, 256, (4, 1, 28, 28), dtype=torch.uint8)
    assert torch.equal(loaded(pixels), loaded(pixels / 255))
    for dtype in (torch.int64, torch.int32, torch.int8, torch.bool):
        with refused(STUDENT, DataError, match="accepted: floating point in 0..1, or uint8"):
            loaded(pixels.to(dtype))


def test_a_student_has_its_class_names_and_its_preprocessing(student, tmp_path):
    loaded = load_student(student)
    assert isinstance(loaded, torch.nn.Module)
    assert loaded.class_names == tuple("0123456789")
    pixels = torch.randint(0, 256, (28, 28), dtype=torch.uint8)
    picture = Image.fromarray(pixels.numpy())
    picture.save(tmp_path / "digit.png")
    expected = pixels[None, None] / 255
    for image in (picture, picture.convert("RGB"), tmp_path / "digit.png", str(tmp_path / "digit.png")):
        assert torch.equal(loaded.preprocess(image), expected)
    with refused(
        STUDENT, DataError, match="^image: 30 x 28 pixels; accepted: 28 x 28, because the training images were"
    ):
        loaded.preprocess(Image.new("L", (30, 28)))
    with refused(STUDENT, DataError, match="pixel format is I; accepted: 8 bits per channel"):
        loaded.preprocess(Image.new("I", (28, 28)))
    with refused(STUDENT, DataError, match=f"{CONFIG}: not an image; accepted: JPEG, "):
        loaded.preprocess(student / CONFIG)
    rewrite(student, preprocessing={"resize": 28, "interpolation": "bilinear", "crop": "centre"})
    wide = Image.effect_noise((90, 60), 80)
    cut = resized(np.asarray(wide)[None, None], 28)
    assert torch.equal(load_student(student).preprocess(wide), torch.from_numpy(cut) / 255)


@pytest.mark.parametrize("resize", [0, 28])
def test_a_student_of_version_0_1_0_resizes_as_its_data_set_did(resize, student):
    path = student / CONFIG
    config = json.loads(path.read_text())
    del config["preprocessing"]
    path.write_text(json.dumps(config | {"dataset": config["dataset"] | {"root": "/gone", "resize": resize}}))
    assert load_student(student).resize == resize
    assert evaluate_student(student, "val")["images"] == 150


def test_a_damaged_description_of_the_data_is_reported_in_one_line(made, tmp_path):
    copy = SweepDir(shutil.copytree(made.path, tmp_path / "byhand"))
    copy.data.write_text("{")
    with refused(
        STUDENT, SweepDirError, match=r"data\.json: damaged: .*; restore it from a backup, or delete it and run"
    ):
        load_results(copy.root).export(tmp_path / "students")


def test_an_export_contains_no_local_path(tmp_path):
    checkpoint = shutil.copy(embedded.path("mnist_mini_teacher.safetensors"), tmp_path / "mine.safetensors")
    teacher = {"model": "mnist_teacher", "width": 0.25, "checkpoint": str(checkpoint)}
    dataset = {"name": "mnist_mini", "subset": 300, "val_fraction": 0.5, "root": str(tmp_path / "data")}
    results = sweep_by_hand(tmp_path, [point("none")], teacher=teacher, dataset=dataset)
    (folder,) = results.export(tmp_path / "students")
    for name in (CONFIG, CARD):
        assert str(tmp_path) not in (folder / name).read_text()
    assert read_config(folder).teacher["origin"] == "mine.safetensors"


def test_classes_of_other_names_or_order_are_refused(student):
    names = [*"1023456789"]
    rewrite(student, class_names=names)
    with refused(STUDENT, DataError, match=r"dataset 'mnist_mini': class 0 is '0'; accepted: '1', as in training"):
        evaluate_student(student, "val")


def test_control_and_bidirectional_characters_are_escaped_in_the_card(student):
    config = read_config(student).model_copy(update={"class_names": ("a\u202eb", "c\x1b[31md", "e\u200bf", "é")})
    card = card_of(config)
    assert all(char.isprintable() or char == "\n" for char in card)
    assert "u202e" in card
    assert "é" in card


def test_the_card_counts_unreadable_images_that_were_left_out(student):
    config = read_config(student)
    assert "left out" not in card_of(config)
    card = card_of(config.model_copy(update={"skipped": {"train": 3, "test": 1}}))
    assert "\nUnreadable images were left out: 3 in train, 1 in test.\n" in card


def test_the_card_of_a_distilled_student_counts_images_without_labels(student):
    config = read_config(student).model_copy(update={"unlabelled": 1200})
    told = "\nIt also learnt from 1,200 images without labels, from the teacher alone.\n"
    for method in ("kd", "none"):
        settings = {**config.settings, "method": method}
        assert (told in card_of(config.model_copy(update={"settings": settings}))) is (method == "kd")


def test_gain_and_interval_in_the_card_have_one_unit():
    measured = {
        "seeds": 2.0, "kd_gain": 0.0272, "kd_gain_std": 0.0011, "kd_gain_low": 0.0173, "kd_gain_high": 0.0371,
        "kd_gain_p": 0.02, "verdict": "gain", "more_seeds": 0.0, "failed_seeds": 0.0, "margin": 0.005,
    }  # fmt: skip
    rows = cards._confirmed_rows(measured | {"test_accuracy": 0.9, "test_accuracy_std": 0.01}, "accuracy")
    gain = "| difference from that plain student, paired by seed |"
    assert f"{gain} +2.72 points (95 % CI +1.73 to +3.71), gain |" in rows
    assert "| test, these settings on 2 fresh seeds | 90.00% ± 1.00% |" in rows
    rows = cards._confirmed_rows(measured | {"test_loss": 0.4}, "loss")
    assert f"{gain} +0.0272 (95 % CI +0.0173 to +0.0371), gain |" in rows
    assert "| test, these settings on 2 fresh seeds | 0.4 |" in rows


def test_a_plain_student_is_not_compared_with_itself_in_the_card():
    measured = {
        "seeds": 1.0, "test_accuracy": 0.9, "plain_test_accuracy": 0.9, "tuned_plain_test_accuracy": 0.9,
    }  # fmt: skip
    assert cards._confirmed_rows(measured, "accuracy", plain=True) == [
        "| test, these settings on 1 fresh seed | 90.00% |"
    ]


def test_a_judged_leader_in_the_card_has_the_number_of_its_judged_seeds():
    measured = {"seeds": 3.0, "judged_seeds": 8.0, "test_accuracy": 0.9, "test_accuracy_std": 0.01}
    assert cards._confirmed_rows(measured, "accuracy") == ["| test, these settings on 8 fresh seeds | 90.00% ± 1.00% |"]


def test_a_gain_of_an_earlier_version_in_the_card_has_no_verdict():
    measured = {"seeds": 2.0, "test_accuracy": 0.9, "kd_gain": 0.0272, "kd_gain_std": 0.0011}
    rows = cards._confirmed_rows(measured, "accuracy")
    assert "| difference from that plain student, paired by seed | +2.72 points |" in rows


# Evaluation


def test_evaluation_reads_the_split_it_is_asked_for(made, student):
    found = {split: evaluate_student(student, split) for split in ("train", "val", "test")}
    assert [facts["images"] for facts in found.values()] == [150, 150, 2000]
    images, labels = split_arrays(made.spec.dataset, made.spec.seed)[0]
    with torch.no_grad():
        logits = load_student(student)(torch.from_numpy(images) / 255)
    assert found["train"]["accuracy"] == (logits.argmax(1) == torch.from_numpy(labels)).double().mean().item()
    assert found["train"]["loss"] == pytest.approx(
        torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)).item(), rel=1e-5
    )


def test_a_data_set_that_does_not_fit_the_student_is_refused(student):
    with refused(STUDENT, DataError, match=r"has images \(3, 32, 32\) of 10 classes; accepted: \(1, 28, 28\) of 10"):
        evaluate_student(student, "test", dataset="cifar10")
    with refused(STUDENT, InputError, match="unknown dataset 'mnist_min'; did you mean 'mnist_mini'?"):
        evaluate_student(student, "test", dataset="mnist_min")
    rewrite(student, dataset={"name": "mnist_mini", "subset": "many"})
    with refused(STUDENT, InputError, match=r"config\.json: dataset: subset: .*found 'many'"):
        evaluate_student(student, "val")
