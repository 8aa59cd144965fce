"""Every method between models of different families: it trains, or says in one line why it cannot."""

from __future__ import annotations

import pytest
import torch
from inputs import CODE, refused

from kdsweep import methods, models
from kdsweep.errors import MethodError
from kdsweep.methods import METHODS, Outputs

INPUT, CLASSES, BATCH = (3, 64, 64), 10, 4
NAMES = ("resnet20", "wrn_16_1", "tutorial_teacher", "torchvision/mobilenet_v2", "torchvision/shufflenet_v2_x1_0")
PAIRS = [
    ("resnet20", "torchvision/mobilenet_v2"),
    ("torchvision/mobilenet_v2", "resnet20"),
    ("wrn_16_1", "torchvision/shufflenet_v2_x1_0"),
    ("torchvision/shufflenet_v2_x1_0", "wrn_16_1"),
    ("tutorial_teacher", "torchvision/mobilenet_v2"),
    ("torchvision/mobilenet_v2", "tutorial_teacher"),
]
# The tutorial's classifier reads a hidden layer, which no stage map is.
REFUSED = {("simkd", "tutorial_teacher"): ("[4, 32, 16, 16]", "[4, 512]")}


@pytest.fixture(scope="module")
def shown() -> dict[str, Outputs]:
    """The outputs of each model for the same images."""
    torch.manual_seed(0)
    images = torch.randn(BATCH, *INPUT)
    found = {}
    with torch.no_grad():
        for name in NAMES:
            model = models.build(name, INPUT, CLASSES).eval()
            found[name] = models.Tapped(model, models.taps(name, model, INPUT))(images)
    return found


def leaves(given: Outputs) -> tuple[Outputs, list[torch.Tensor]]:
    """The same values, each a leaf that takes gradient."""
    parts = [part.detach().clone().requires_grad_() for part in (given.logits, given.embedding, *given.features)]
    return Outputs(parts[0], parts[1], tuple(parts[2:]), given.classifier), parts


@pytest.mark.parametrize(("teacher", "student"), PAIRS, ids=[f"{t} to {s}" for t, s in PAIRS])
@pytest.mark.parametrize("name", METHODS)
def test_a_method_bridges_two_families_or_names_both_shapes(shown, name, teacher, student):
    torch.manual_seed(1)
    if (name, teacher) in REFUSED:
        with refused(CODE, MethodError) as caught:
            methods.create(name, shown[student], shown[teacher])
        assert all(shape in str(caught.value) for shape in REFUSED[name, teacher])
        assert "\n" not in str(caught.value)
        return
    method = methods.create(name, shown[student], shown[teacher])
    method.prepare(20)
    method.advance(0.5, torch.arange(BATCH))
    ours, parts = leaves(shown[student])
    term = method(ours, shown[teacher], torch.arange(BATCH))
    assert term.isfinite()
    if name == "none":
        return
    term.backward()
    reached = [part.grad for part in parts if part.grad is not None]
    assert any(grad.any() for grad in reached)
    assert all(grad.isfinite().all() for grad in reached)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())


def test_a_method_without_a_map_to_bridge_names_both_models(shown):
    flat = shown["resnet20"]._replace(features=(torch.zeros(BATCH, 7, 5),))
    for name in ("at", "nst", "vid", "reviewkd", "ofd"):
        with refused(CODE, MethodError, match=r"student has \[4, 7, 5\], the teacher \[4, 16, 64, 64\]"):
            methods.create(name, flat, shown["resnet20"])
