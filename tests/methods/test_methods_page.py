"""docs/methods.md is up to date, its sweep files are valid, and each gives the loss of its paper."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import optuna
import pytest
import torch
from ruamel.yaml import YAML
from torch.nn import functional as F

from kdsweep import methods
from kdsweep.config.recipes import method_params
from kdsweep.methods import METHODS, Outputs, reference
from kdsweep.search.faults import point_faults
from kdsweep.search.space import SearchSpace

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "methods.md").read_text()
SNIPPETS = re.findall(r"([^\n]+)\n\n```yaml\n(.*?)```", TEXT, flags=re.DOTALL)
CLASSES = 10


@pytest.fixture
def page(monkeypatch):
    """The script that generates the page."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    yield importlib.import_module("methods_page")
    sys.modules.pop("methods_page")


def parsed(text: str):
    return YAML(typ="safe").load(text)


def drawn(space: SearchSpace) -> dict:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return space.suggest(optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask())


def test_the_page_is_up_to_date(page):
    assert page.page(TEXT, page.measurements()) == TEXT, "regenerate it: python benchmarks/methods_page.py"


def test_the_page_covers_every_method():
    for name in METHODS:
        assert f"\n### {name}\n" in TEXT


def test_every_measured_method_beats_guessing(page):
    measured = page.measurements()
    if not measured:
        pytest.skip("benchmarks/methods.py was not run yet")
    for setting in measured["settings"]:
        ran = [row for row in setting["rows"] if "skipped" not in row]
        assert min(min(row["accuracies"]) for row in ran) > setting["trivial"]
        assert all(len(row["accuracies"]) >= 3 for row in ran)


def test_a_method_that_was_not_measured_says_so(page):
    measured = page.measurements()
    assert page.results(measured, ["kd", "brand_new"]).endswith("\n\nNot measured yet: `brand_new`.")
    known = {row["method"] for setting in measured["settings"] for row in setting["rows"]}
    assert "Not measured yet" not in page.results(measured, sorted(known))


@pytest.mark.parametrize("text", [text for _, text in SNIPPETS], ids=[f"{title[:40]}" for title, _ in SNIPPETS])
def test_sweep_files_of_the_page_are_valid(text):
    written = parsed(text)
    space = SearchSpace.parse(written["space"])
    for point in [drawn(space), *written.get("search", {}).get("points", [])]:
        assert point_faults(space, point) == []


@pytest.mark.parametrize("name", METHODS)
def test_the_example_of_a_method_is_valid_and_searches_its_default_ranges(name):
    space = SearchSpace.parse(parsed(reference.describe(name)["example"])["space"])
    assert name in space.methods()
    default = SearchSpace.parse({"method": [name]})
    assert space.parameters(name) == default.parameters(name)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_documents_its_adapters(name):
    shape = (4, 6, 4, 4)
    given = [
        Outputs(torch.zeros(4, 5), maps.mean((2, 3)), (maps, maps), (torch.zeros(5, width), torch.zeros(5)))
        for width in (6, 7)
        for maps in [torch.zeros(4, width, *shape[2:])]
    ]
    trained = any(True for _ in methods.create(name, *given).parameters())
    assert ("Adapters" in reference.describe(name)["details"]) == trained


def kl(student, teacher, temperature):
    """Summed over classes, mean over the batch, without T²."""
    p, q = ((z / temperature).softmax(1) for z in (teacher, student))
    return (p * (p / q).log()).sum(1).mean()


def standardised(z):
    return (z - z.mean(1, keepdim=True)) / z.std(1, keepdim=True)


def ce(student, labels):
    return F.cross_entropy(student, labels)


# Each source's loss for student logits, teacher logits and labels, and its ratio to ours.
LOSSES = {
    "The tutorial": (1, lambda s, t, y: 0.75 * ce(s, y) + 0.25 * 4 * kl(s, t, 2)),
    "The Keras example": (1, lambda s, t, y: 0.1 * ce(s, y) + 0.9 * kl(s, t, 10)),
    "The DenseNet notebook": (
        1,
        lambda s, t, y: (
            0.5 * ce(s, y) + 0.5 * 16 * F.kl_div((s / 4).log_softmax(1), (t / 4).softmax(1), reduction="none").mean()
        ),
    ),
    "RepDistiller's kd": (1, lambda s, t, y: 0.1 * ce(s, y) + 0.9 * 16 * kl(s, t, 4)),
    "mdistiller's kd": (1, lambda s, t, y: 0.1 * ce(s, y) + 0.9 * 16 * kl(s, t, 4)),
    "mdistiller's dkd": (2, lambda s, t, y: ce(s, y) + dkd(s, t, y)),
    "torchdistill's kd": (1, lambda s, t, y: 0.5 * ce(s, y) + (1 - 0.5) * 16 * kl(s, t, 4)),
    "Logit standardisation": (
        1,
        lambda s, t, y: 0.1 * ce(s, y) + 9 * 4 * kl(standardised(s), standardised(t), 2),
    ),
}


def dkd(student, teacher, labels):
    """The paper's loss: alpha 1 and beta 8 at T 4."""
    own = F.one_hot(labels, CLASSES).bool()
    ours, theirs = ((z / 4).softmax(1) for z in (student, teacher))
    two = [torch.stack([p[own], 1 - p[own]], 1) for p in (ours, theirs)]
    rest = [(z / 4)[~own].reshape(len(labels), -1).softmax(1) for z in (student, teacher)]
    target, others = ((b * (b / a).log()).sum(1).mean() for a, b in (two, rest))
    return 16 * (target + 8 * others)


@pytest.mark.parametrize("source", LOSSES)
def test_a_papers_setting_gives_its_loss(source):
    (text,) = [text for title, text in SNIPPETS if title.startswith(source)]
    config = drawn(SearchSpace.parse(parsed(text)["space"]))
    draw = torch.Generator().manual_seed(0)
    s, t = (3 * torch.randn(8, CLASSES, generator=draw, dtype=torch.float64) for _ in range(2))
    labels = torch.randint(0, CLASSES, (8,), generator=draw)
    outputs = [Outputs(z.float(), torch.zeros(8, 2)) for z in (s, t)]
    method = methods.create(str(config["method"]), *outputs, **method_params(config))
    alpha = config["alpha"]
    ours = (1 - alpha) * ce(s, labels) + alpha * method.weight * method(*outputs, labels)
    times, loss = LOSSES[source]
    assert float(times * ours) == pytest.approx(float(loss(s, t, labels)), rel=1e-4)


def test_repdistillers_weights_are_the_defaults():
    found = {name: METHODS[name].params()["weight"].default for name in ("at", "sp", "nst", "rkd", "pkt", "cc", "vid")}
    assert found == {"at": 1000, "sp": 3000, "nst": 50, "rkd": 1, "pkt": 30000, "cc": 0.02, "vid": 1}
    assert METHODS["crd"].params()["weight"].default == 0.8
