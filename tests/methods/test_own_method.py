"""The worked example of docs/own-method.md, run exactly as printed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from inputs import CODE, refused

from kdsweep import methods
from kdsweep.config.load import load_spec
from kdsweep.errors import MethodError, SpecError
from kdsweep.methods import Outputs, reference
from kdsweep.search.space import SearchSpace
from kdsweep.tasks.image import splits as datasets
from kdsweep.worker.workbench import Workbench, provide_teacher

PAGE = Path(__file__).parents[2] / "docs" / "own-method.md"
NAME = "my_methods:SureHint"


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """The working directory, with the page's two files."""
    blocks = dict(re.findall(r"```(python|yaml)\n(.*?)```", PAGE.read_text(), flags=re.DOTALL))
    (tmp_path / "my_methods.py").write_text(blocks["python"])
    (tmp_path / "own.yaml").write_text(blocks["yaml"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_methods", raising=False)
    yield tmp_path
    sys.modules.pop("my_methods", None)


def test_the_example_validates_and_trains(here):
    spec = load_spec(here / "own.yaml", {"dataset.subset": 400, "train.epochs": 2, "storage": str(here / "runs")})
    assert set(spec.search_space.parameters(NAME)) == {"width", "alpha", "lr", f"{NAME}.focus", f"{NAME}.weight"}
    sweep, device = spec.sweep_dir, torch.device("cpu")
    sweep.root.mkdir(parents=True)
    data = datasets.prepare(spec.dataset, spec.seed, sweep.store)
    provide_teacher(spec, sweep, data, device, lambda metrics: None)
    bench = Workbench.of(spec, sweep, data, device)
    common = {"width": 0.25, "alpha": 0.5, "lr": 3e-3, f"{NAME}.focus": 0.5, f"{NAME}.weight": 2.0}
    for method in (NAME, f"kd+{NAME}"):
        training = bench.training({**common, "method": method}, 0, here / "state.safetensors")
        before = [weight.clone() for weight in training.method.parameters()]
        losses = [training.run_epoch()["train_loss"] for _ in range(2)]
        assert losses[1] < losses[0]
        assert training.best_value > 0.3
        assert all(not torch.equal(a, b) for a, b in zip(before, training.method.parameters(), strict=True))
        assert training.inference is training.student


def test_the_example_computes_its_formula(here, monkeypatch):
    monkeypatch.syspath_prepend(here)
    maps = torch.tensor([[[[1.0, 3.0]], [[2.0, 2.0]]], [[[0.0, 0.0]], [[1.0, 1.0]]]])
    student = Outputs(torch.zeros(2, 3), torch.zeros(2, 2), (maps,))
    logits = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]])
    teacher = Outputs(logits, torch.zeros(2, 1), (torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1),))
    method = methods.create(NAME, student, teacher, focus=2.0)
    with torch.no_grad():
        method.adapters.weight.copy_(torch.tensor([0.5, 1.0]).reshape(1, 2, 1, 1))
        method.adapters.bias.fill_(0.25)
        term = method(student, teacher, torch.tensor([1, 1]))
    # The regressed maps are (2.75, 3.75) and (1.25, 1.25), on average 3.25 and 1.25; p_t(y) is 1/3 and .2447.
    expected = ((1 / 3) ** 2 * 2.25**2 + 0.2447285**2 * 2.25**2) / 2
    assert float(term) == pytest.approx(expected, rel=1e-5)


def test_the_example_is_described_and_its_errors_are_reported(here, monkeypatch):
    monkeypatch.syspath_prepend(here)
    described = reference.describe(NAME)
    assert described["summary"].startswith("Regress the teacher's last stage map")
    assert described["needs"] == ["logits", "stage:-1"]
    assert [param["name"] for param in described["params"]] == ["focus", "weight"]
    assert f"  {NAME}:\n    focus: {{uniform: [0, 4]}}" in described["example"]
    outputs = Outputs(torch.zeros(2, 3), torch.zeros(2, 2), (torch.zeros(2, 2, 1, 1),))
    with refused(CODE, MethodError, match="method SureHint has no parameter 'focuss'; did you mean 'focus'"):
        methods.create(NAME, outputs, outputs, focuss=1.0)
    with refused(CODE, MethodError, match="SureHint.focus is -1; accepted: "):
        methods.create(NAME, outputs, outputs, focus=-1)
    space = SearchSpace.parse({"method": [NAME], "temperature": {"uniform": [1, 4]}, "temperature_schedule": "linear"})
    assert not {"temperature", "temperature_schedule"} & space.keys()


def test_a_wrong_name_is_reported_as_an_error_in_the_sweep_file(here):
    path = here / "own.yaml"
    path.write_text(path.read_text().replace('["my_methods:SureHint", ', '["my_methods:SureHnt", '))
    with refused(CODE, SpecError, match=r"space\.method: method 'my_methods:SureHnt': module 'my_methods' has no"):
        load_spec(path)
