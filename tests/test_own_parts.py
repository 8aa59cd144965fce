"""The worked examples of docs/own-parts.md, exactly as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from inputs import CODE, refused
from torch.nn import functional as F

from kdsweep.config.load import load_spec
from kdsweep.errors import SpecError
from kdsweep.search.samplers import SAMPLERS
from kdsweep.search.stopping import STOPPING_RULES
from kdsweep.search.study import State, Study
from kdsweep.tasks.image.splits import prepare
from kdsweep.tasks.losses import LOSSES
from kdsweep.training.schedules import SCHEDULES
from kdsweep.worker.workbench import Workbench, provide_teacher

PAGE = Path(__file__).parents[1] / "docs" / "own-parts.md"
PARTS, CONTRACTS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
(SWEEP,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A directory with the page's files, from which kdsweep is called."""
    (tmp_path / "my_parts.py").write_text(PARTS)
    (tmp_path / "test_my_parts.py").write_text(CONTRACTS)
    (tmp_path / "own.yaml").write_text(SWEEP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_parts", raising=False)
    yield tmp_path
    sys.modules.pop("my_parts", None)


def test_the_examples_train_a_student_that_goes_on_bit_for_bit(here):
    spec = load_spec(here / "own.yaml", {"dataset.subset": 400, "train.epochs": 3, "storage": str(here / "runs")})
    cpu = torch.device("cpu")
    data = prepare(spec.dataset, spec.seed, spec.sweep_dir.store)
    card = provide_teacher(spec, spec.sweep_dir, data, cpu, lambda metrics: None)
    bench = Workbench(spec, spec.sweep_dir, data, card, cpu)
    config = {
        "method": "kd",
        "width": 0.25,
        "lr": 1e-3,
        "alpha": 0.5,
        "temperature": 4.0,
        "task_loss": "my_parts:Focal",
    }
    whole = bench.training(config, 0, here / "none")
    assert (whole._optimizer.beta, whole._schedule.share, whole._task_loss.gamma) == (0.95, 0.2, 2.0)
    losses = [whole.run_epoch()["train_loss"] for _ in range(3)]
    assert losses[2] < losses[0]
    half = bench.training(config, 0, here / "none")
    half.run_epoch()
    half.save(here / "state.safetensors")
    resumed = bench.training(config, 0, here / "state.safetensors")
    assert [resumed.run_epoch()["train_loss"] for _ in range(2)] == losses[1:]


def test_the_examples_search_and_stop(here):
    spec = load_spec(here / "own.yaml", {"storage": str(here / "runs")})
    study = Study(spec, spec.sweep_dir, spec.search_space)
    while (trial := study.ask()) is not None:
        # The first improves to the end; each other one stands still from its second epoch on.
        for epoch in range(1, 9):
            accuracy = epoch / 10 if trial.number == 0 else 0.1 * min(epoch, 2)
            told = {"epoch": epoch, "val_accuracy": accuracy, "seconds": 0.1}
            if study.report(trial.key, told):
                assert (trial.number > 0, epoch) == (True, 4)
                study.finish(trial.key, State.PRUNED)
                break
        else:
            study.finish(trial.key, State.COMPLETE)
    study.close()
    assert (study.counts[State.COMPLETE], study.counts[State.PRUNED]) == (1, 15)
    copied = [t.params.get("lr") == study.leader.config["lr"] for t in study._study.get_trials()]
    assert 3 <= sum(copied) <= 14


def test_the_examples_compute_what_they_say(here):
    schedule = SCHEDULES.create("my_parts:WarmUp", 10, share=0.5)
    assert [schedule.factor(p) for p in (0, 0.25, 0.5, 0.75)] == pytest.approx([0, 0.5, 1, 0.5])
    logits, labels = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])
    right = logits.softmax(1)[:, 0]
    expected = ((1 - right) ** 2 * -right.log()).mean()
    torch.testing.assert_close(LOSSES.create("my_parts:Focal")(logits, labels), expected)
    plain = LOSSES.create("my_parts:Focal", gamma=0.0)(logits, labels)
    torch.testing.assert_close(plain, F.cross_entropy(logits, labels))
    rule = STOPPING_RULES.create("my_parts:Patience", 8, patience=2)
    assert [rule.reached((), "a", epoch, value) for epoch, value in ((1, 0.5), (2, 0.5), (3, 0.5))] == [
        False,
        False,
        True,
    ]
    assert SAMPLERS.create("my_parts:NearBest").chance == 0.3


def test_the_contracts_of_the_page_hold(here):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_parts.py"]
    ended = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout
    assert "17 passed" in ended.stdout


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("beta: 0.95", "beta: 1.5", "11: train.optimizer.beta: found 1.5; accepted: a number from 0 to 1"),
        ("beta: 0.95", "btea: 0.9", "11: train.optimizer.btea: unknown parameter 'btea' of my_parts:Lion; did you"),
        ("patience: 2", "patience: 0", "14: scheduler.name.patience: found 0; accepted: a whole number from 1"),
        ("my_parts:Focal", "my_parts:Lion", "7: space.task_loss: task loss 'my_parts:Lion' is .* a subclass of"),
        ("my_parts:NearBest", "my_parts:Near", "13: search.sampler.name: sampler 'my_parts:Near': module"),
    ],
)
def test_a_fault_is_one_line_with_file_and_line(here, before, after, message):
    path = here / "own.yaml"
    path.write_text(path.read_text().replace(before, after))
    with refused(CODE, SpecError, match=f"own.yaml:{message}") as caught:
        load_spec(path)
    assert len(caught.value.faults) == 1
