"""The worked example of docs/own-task.md, exactly as it stands there: tokens instead of images."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from inputs import CODE, refused

import kdsweep
from kdsweep.config.load import load_spec
from kdsweep.errors import DataError, InputError, SpecError
from kdsweep.results.student import evaluate_student
from kdsweep.results.student_config import read_config
from kdsweep.storage.paths import SweepDir
from kdsweep.worker.workbench import Workbench, provide_teacher

PAGE = Path(__file__).parents[2] / "docs" / "own-task.md"
CPU = torch.device("cpu")
OBJECTIVE = "val_worst_topic_accuracy"


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A directory with the page's two files, from which kdsweep is called."""
    blocks = dict(re.findall(r"```(python|yaml)\n(.*?)```", PAGE.read_text(), flags=re.DOTALL))
    (tmp_path / "my_texts.py").write_text(blocks["python"])
    (tmp_path / "texts.yaml").write_text(blocks["yaml"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_texts", raising=False)
    yield tmp_path
    sys.modules.pop("my_texts", None)


def least_accuracy(model, samples):
    """The objective, by NumPy."""
    with torch.no_grad():
        found = model(samples.samples).argmax(1).numpy()
    labels = samples.labels.numpy()
    return min(float(np.mean(found[labels == topic] == topic)) for topic in range(4))


@pytest.mark.slow
def test_a_whole_sweep_of_tokens_runs_and_goes_by_the_users_metric(local_ray, here):
    # With this seed the best student is distilled, by a wide margin, so that there is a gain to confirm.
    results = kdsweep.run(load_spec(here / "texts.yaml", {"storage": str(here / "runs"), "seed": 4}))
    trials, sweep = results.trials, SweepDir(results.path)
    assert set(trials["state"]) <= {"COMPLETE", "PRUNED"}
    assert results.best()[OBJECTIVE][0] == results.epochs[OBJECTIVE].max() > 0.3
    assert {OBJECTIVE, f"{OBJECTIVE}_last", "val_accuracy", "val_loss"} <= set(trials.columns)
    # The teacher spoke once, for all trials.
    assert {path.name for path in sweep.store.root.glob("outputs/*/view/*.bin")} == {"logits.bin", "embedding.bin"}
    (row,) = results.confirmed.to_dict("records")
    gain = row["test_worst_topic_accuracy"] - row["plain_test_worst_topic_accuracy"]
    assert row["kd_gain"] == pytest.approx(gain)
    assert 0 < results.teacher["test_worst_topic_accuracy"] <= results.teacher["test_accuracy"] <= 1
    (folder,) = results.export(here / "students", top=1)
    with refused(CODE, InputError, match="is user code, 'my_texts:bag'; pass trust_code=True"):
        kdsweep.load_student(folder)
    student = kdsweep.load_student(folder, trust_code=True)
    data = json.loads(sweep.data.read_text())
    assert (data["task"], data["input_shape"]) == ("my_texts:Texts", [12])
    val = Workbench.of(results.spec, sweep, prepared(results.spec), CPU).val
    assert least_accuracy(student, val) == pytest.approx(results.best()[OBJECTIVE][0])
    assert read_config(folder).measured == {OBJECTIVE: results.best()[OBJECTIVE][0]}
    told = evaluate_student(folder, "val", trust_code=True)
    assert (told["texts"], told["accuracy"]) == (300, pytest.approx(results.best()["val_accuracy"][0]))


def prepared(spec):
    from kdsweep import tasks

    return tasks.of(spec.dataset).prepare(spec.dataset, spec.seed, spec.sweep_dir.store)


def test_a_run_reads_stored_outputs_and_records_what_its_loss_is_made_of(here):
    spec = load_spec(here / "texts.yaml", {"storage": str(here / "runs")})
    data = prepared(spec)
    spec.sweep_dir.root.mkdir(parents=True)
    provide_teacher(spec, spec.sweep_dir, data, CPU, lambda metrics: None)
    bench = Workbench.of(spec, spec.sweep_dir, data, CPU)
    config = {"method": "kd", "width": 0.5, "alpha": 0.7, "lr": 1e-2, "kd.temperature": 2.0, "kd.weight": 1.0}
    training = bench.training(config, 0, here / "state")
    assert not isinstance(bench.source(training.recipe), type(bench.teacher))
    before = {name: tensor.clone() for name, tensor in training.student.state_dict().items()}
    told = [training.run_epoch() for _ in range(3)]
    assert any(not torch.equal(before[name], now) for name, now in training.student.state_dict().items())
    for epoch in told:
        assert epoch["train_loss"] == pytest.approx(0.3 * epoch["task_loss"] + 0.7 * epoch["distill_loss"], rel=1e-5)
    assert told[2]["task_loss"] < told[0]["task_loss"]
    assert told[2][OBJECTIVE] == pytest.approx(least_accuracy(training.student.eval(), bench.val))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset.augment": "flip"}, r"dataset\.augment: found 'flip'; accepted: 'none': texts are used unchanged"),
        ({"objective.metric": "val_acuracy"}, r"objective\.metric: unknown metric .*did you mean 'val_accuracy'\?"),
        ({"objective.metric": "my_texts:bag"}, r"objective\.metric: metric 'my_texts:bag': a function; accepted: a kd"),
        ({"objective.mode": "min"}, r"objective\.mode: found 'min'; accepted: 'max', which is best for my_texts:worst"),
        ({"objective": {"metric": "val_top5_accuracy"}}, r"objective\.metric: .*accepted: a metric for 4 classes"),
        (
            {"space": {"method": ["kd"], "augment": ["none", "flip"]}, "objective": {}},
            r"space\.augment: found transforms of images; accepted: no such key, because texts are used unchanged",
        ),
        ({"space": {"method": ["at"]}, "objective": {}}, r"space\.method: at: "),
        ({"metrics": ["my_texts:bag"]}, r"metrics\.0: metric 'my_texts:bag': a function; accepted: a kdsweep"),
        ({"metrics": ["val_ece"]}, r"metrics\.0: found 'val_ece'; .*because val_ece is measured anyway"),
        (
            {"metrics": ["my_texts:worst_topic_accuracy"]},
            r"metrics\.0: found .*worst_topic_accuracy is measured anyway",
        ),
        ({"metrics": ["val_top5_accuracy"]}, r"metrics\.0: found .*val_top5_accuracy is measured anyway"),
        ({"metrics": ["os:getcwd"]}, r"metrics\.0: metric 'os:getcwd': a builtin_function_or_method; accepted: a kd"),
    ],
)
def test_what_the_task_cannot_do_is_a_fault_of_the_sweep_file(changes, message, here):
    with refused(CODE, SpecError, match=message):
        load_spec(here / "texts.yaml", changes)


def test_samples_of_another_type_or_shape_are_refused(here):
    spec = load_spec(here / "texts.yaml", {"storage": str(here / "runs")})
    module = sys.modules["my_texts"]
    for wrong, message in (
        ("int32", r"texts are int32 of shape \(600, 12\); accepted: int64 of shape N x 12"),
        ("int64", r"texts are int64 of shape \(600, 6\); accepted: int64 of shape N x 12"),
    ):
        whole = module.read(None, "train").images
        samples = whole.astype("int32") if wrong == "int32" else whole[:, :6]
        labels = np.zeros(600, int)
        module.topics = replace(module.topics, read=lambda source, split, x=samples, y=labels: (x, y))
        with refused(CODE, DataError, match=message):
            prepared(spec)


def test_further_metrics_of_ones_own_are_columns_and_do_not_steer_the_search(here):
    changes = {"objective": {}, "metrics": ["my_texts:worst_topic_accuracy"], "storage": str(here / "runs")}
    spec = load_spec(here / "texts.yaml", changes)
    assert spec.goal.column == "val_accuracy"
    data = prepared(spec)
    spec.sweep_dir.root.mkdir(parents=True)
    card = provide_teacher(spec, spec.sweep_dir, data, CPU, lambda metrics: None)
    bench = Workbench.of(spec, spec.sweep_dir, data, CPU)
    training = bench.training({"method": "none", "width": 0.5, "lr": 1e-2}, 0, here / "state")
    epoch = training.run_epoch()
    assert epoch[OBJECTIVE] == pytest.approx(least_accuracy(training.student.eval(), bench.val))
    assert "val_top5_accuracy" not in epoch  # there are four topics
    assert set(card.measured) == {name for name in epoch if name.startswith("val_")}


def test_a_metric_of_ones_own_that_fails_is_a_fault_of_the_sweep_file(here):
    text = (here / "my_texts.py").read_text()
    broken = 'worst_topic_accuracy = Metric("", "max", lambda logits, labels: logits[:, 99].sum())\n'
    (here / "my_texts.py").write_text(text + broken)
    for changes, where in (
        ({}, r"objective\.metric"),
        ({"objective": {}, "metrics": ["my_texts:worst_topic_accuracy"]}, r"metrics\.0"),
    ):
        with pytest.raises(
            SpecError, match=where + r": metric 'my_texts:worst_topic_accuracy': sums raised IndexError: "
        ):
            load_spec(here / "texts.yaml", changes)
