"""Optimizers: bit for bit what PyTorch's fused ones give, resumable, and without PyTorch's compiler."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from inputs import CODE, refused
from torch import nn

from kdsweep.errors import InputError
from kdsweep.testing import OptimizerContract
from kdsweep.training.optimizers import OPTIMIZERS, Optimizer
from kdsweep.training.section import OptimizationSpec, TrainSpec

STEPS = 50
SGD = [
    {"momentum": momentum, "dampening": dampening, "nesterov": nesterov, "weight_decay": decay}
    for momentum in (0.0, 0.9)
    for dampening in (0.0, 0.3)
    for nesterov in (False, True)
    for decay in (0.0, 1e-2)
    if not nesterov or (momentum and not dampening)
]
ADAM = [{"weight_decay": decay} for decay in (0.0, 1e-2)]
CASES = [("sgd", params) for params in SGD] + [(name, p) for name in ("adam", "adamw", "amsgrad") for p in ADAM]


def reference(name: str, weights, lr: float, params) -> torch.optim.Optimizer:
    """What `torch.optim` makes of it."""
    makers = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "amsgrad": torch.optim.Adam, "sgd": torch.optim.SGD}
    more = {"amsgrad": True} if name == "amsgrad" else {}
    return makers[name](weights, lr=lr, fused=True, **params, **more)


def student() -> nn.Module:
    torch.manual_seed(3)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5), nn.Linear(5, 4)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def backward(model: nn.Module, step: int, late: bool) -> None:
    """Gradients of one batch; the last layer gets its first ones at step 10 where it is late, as an adapter might."""
    draw = torch.Generator().manual_seed(step)
    images = torch.randn(6, 3, 8, 8, generator=draw).to(memory_format=torch.channels_last)
    hidden = model[:-1](images)
    output = hidden if late and step < 10 else model[-1](hidden)
    (output**2).mean().backward()


@pytest.mark.parametrize(("name", "params"), CASES, ids=str)
def test_fifty_steps_are_those_of_torchs_fused_optimizer_bit_for_bit(name, params):
    ours, theirs = student(), student()
    optimizer = OPTIMIZERS.create(name, list(ours.parameters()), lr=0.02, **params)
    expected = reference(name, list(theirs.parameters()), 0.02, params)
    for step in range(STEPS):
        rate = 0.02 * (1 - step / STEPS)
        optimizer.rate = torch.tensor(rate) if step % 2 else rate
        expected.param_groups[0]["lr"] = torch.tensor(rate) if step % 2 else rate
        for model, one in ((ours, optimizer), (theirs, expected)):
            one.zero_grad()
            backward(model, step, late=False)
            one.step()
    assert not torch.equal(next(ours.parameters()), next(student().parameters()))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)
    kept = {
        f"{index}/{slot}": tensor
        for index, slots in expected.state_dict()["state"].items()
        for slot, tensor in slots.items()
        if tensor is not None
    }
    assert optimizer.state_dict().keys() == kept.keys()
    assert all(torch.equal(tensor, kept[key]) for key, tensor in optimizer.state_dict().items())


@pytest.mark.parametrize("name", ["adam", "adamw", "amsgrad"])
def test_weights_whose_gradient_comes_late_begin_then_as_with_torch(name):
    ours, theirs = student(), student()
    optimizer = OPTIMIZERS.create(name, list(ours.parameters()), lr=0.02)
    expected = reference(name, list(theirs.parameters()), 0.02, {"weight_decay": 0.0})
    for step in range(15):
        for model, one in ((ours, optimizer), (theirs, expected)):
            one.zero_grad()
            backward(model, step, late=True)
            one.step()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert float(optimizer.state_dict()["6/step"]) == 5


def test_momentum_of_a_weight_whose_gradient_comes_late_begins_with_that_gradient():
    model = student()
    optimizer = OPTIMIZERS.create("sgd", list(model.parameters()), lr=0.02, dampening=0.5)
    for step in range(11):
        optimizer.zero_grad()
        backward(model, step, late=True)
        optimizer.step()
    torch.testing.assert_close(optimizer.state_dict()["6/momentum_buffer"], model[-1].weight.grad)


def matrices() -> list[nn.Parameter]:
    draw = torch.Generator().manual_seed(5)
    return [nn.Parameter(torch.randn(shape, generator=draw)) for shape in ((6, 10), (12, 5))]


def test_muon_moves_matrices_as_torch_does():
    ours, theirs = matrices(), matrices()
    optimizer = OPTIMIZERS.create("muon", ours, lr=0.02, weight_decay=0.1, momentum=0.95)
    expected = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    for _ in range(10):
        for weights, one in ((ours, optimizer), (theirs, expected)):
            one.zero_grad()
            sum(weight.sin().sum() + (weight**2).sum() for weight in weights).backward()
            one.step()
    for a, b, start in zip(ours, theirs, matrices(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(a, start, atol=0.01)


def test_muon_takes_a_kernel_as_a_matrix_and_orthogonalises_its_step():
    draw = torch.Generator().manual_seed(5)
    gradient = torch.randn(4, 3, 3, 3, generator=draw)
    kernel = nn.Parameter(torch.zeros(4, 3, 3, 3).to(memory_format=torch.channels_last))
    kernel.grad = gradient.to(memory_format=torch.channels_last)
    OPTIMIZERS.create("muon", [kernel], lr=0.5, momentum=0.0).step()
    x = gradient.double().numpy().reshape(4, 27)
    x /= np.linalg.norm(x)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    moved = -kernel.detach().double().numpy().reshape(4, 27) / (0.5 * 0.2 * math.sqrt(27))
    np.testing.assert_allclose(moved, x, atol=0.03)  # the iteration is in bfloat16
    values = np.linalg.svd(moved, compute_uv=False)
    assert ((values > 0.5) & (values < 1.5)).all()


def test_muon_leaves_biases_and_norms_to_adamw():
    ours, theirs = student(), student()
    optimizer = OPTIMIZERS.create("muon", list(ours.parameters()), lr=0.02, weight_decay=0.1)
    expected = OPTIMIZERS.create("adamw", list(theirs.parameters()), lr=0.02, weight_decay=0.1)
    for model, one in ((ours, optimizer), (theirs, expected)):
        backward(model, 0, late=False)
        one.step()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b) is (a.ndim < 2), name


def test_lamb_is_the_formula_written_out_in_float64():
    (weight, _), rng = matrices(), np.random.default_rng(0)
    optimizer = OPTIMIZERS.create("lamb", [weight], lr=0.1, weight_decay=0.01)
    w, m, v = weight.detach().double().numpy().copy(), np.zeros((6, 10)), np.zeros((6, 10))
    for step in range(1, 8):
        g = rng.normal(size=(6, 10))
        weight.grad = torch.tensor(g, dtype=torch.float32)
        optimizer.step()
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        u = m / (1 - 0.9**step) / (np.sqrt(v / (1 - 0.999**step)) + 1e-6) + 0.01 * w
        w -= 0.1 * np.linalg.norm(w) / np.linalg.norm(u) * u
    np.testing.assert_allclose(weight.detach().numpy(), w, rtol=1e-4, atol=1e-5)


def test_the_first_step_of_lamb_is_the_rate_times_the_norm_and_adams_from_zero():
    weight, zero = nn.Parameter(torch.tensor([3.0, 4.0])), nn.Parameter(torch.zeros(2))
    for one in (weight, zero):
        one.grad = torch.tensor([2.0, -2.0])
    OPTIMIZERS.create("lamb", [weight, zero], lr=0.1).step()
    assert weight.tolist() == pytest.approx([3 - 0.5 / math.sqrt(2), 4 + 0.5 / math.sqrt(2)])
    assert zero.tolist() == pytest.approx([-0.1, 0.1])


@pytest.mark.parametrize("name", ["torch.optim:RMSprop", "torch.optim:NAdam", "torch.optim:Adagrad"])
def test_a_class_of_torch_optim_steps_as_it_does_and_resumes(name):
    cls = getattr(torch.optim, name.partition(":")[2])
    ours, theirs = student(), student()
    spec = OptimizationSpec(optimizer={"name": name, "eps": 1e-5}, lr=0.01, weight_decay=1e-3, momentum=0.0)
    optimizer = spec.make_optimizer(list(ours.parameters()))
    expected = cls(theirs.parameters(), lr=0.01, weight_decay=1e-3, eps=1e-5)
    for step in range(10):
        if step == 5:
            state = {key: tensor.clone() for key, tensor in optimizer.state_dict().items()}
            optimizer = spec.make_optimizer(list(ours.parameters()))
            optimizer.load_state_dict(state)
        for model, one in ((ours, optimizer), (theirs, expected)):
            one.zero_grad()
            backward(model, step, late=False)
            one.step()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_wrong_parameters_are_refused_in_one_line():
    weights = [nn.Parameter(torch.ones(2))]
    with refused(CODE, InputError, match="optimizer sgd has no parameter 'momentun'; did you mean 'momentum'"):
        OPTIMIZERS.create("sgd", weights, momentun=0.9)
    with refused(CODE, InputError, match="sgd.momentum is 2; accepted: a number from 0 to 1"):
        OPTIMIZERS.create("sgd", weights, momentum=2)
    with refused(CODE, InputError, match="sgd.nesterov is 1; accepted: false, true"):
        OPTIMIZERS.create("sgd", weights, nesterov=1)
    with refused(CODE, InputError, match="sgd.nesterov: found true with momentum 0 and dampening 0; accepted: "):
        OPTIMIZERS.create("sgd", weights, momentum=0.0, nesterov=True)
    with refused(CODE, InputError, match="unknown optimizer 'adamm'; did you mean 'adam'"):
        OPTIMIZERS.create("adamm", weights)
    with refused(CODE, InputError, match="accepted: a subclass of kdsweep.training.optimizers.Optimizer"):
        OPTIMIZERS.create("math:sqrt", weights)


def test_parameters_given_with_a_name_are_kept_while_that_name_is_drawn():
    spec = TrainSpec(optimizer={"name": "adam", "beta1": 0.5})
    weights = [nn.Parameter(torch.ones(2))]
    assert spec.with_searched({"optimizer": "adam", "lr": 0.5}).make_optimizer(weights).beta1 == 0.5
    assert spec.with_searched({"optimizer": "amsgrad"}).make_optimizer(weights).beta1 == 0.9


def test_a_trained_teacher_is_known_by_the_keys_that_earlier_versions_had():
    assert not {"dampening", "nesterov"} & OptimizationSpec().identity().keys()
    assert OptimizationSpec(nesterov=True).identity()["nesterov"] is True


def test_training_imports_neither_torchs_compiler_nor_sympy(tmp_path):
    code = f"""
import sys, torch
from kdsweep.config.spec import SweepSpec
from kdsweep.tasks.image.splits import prepare
from kdsweep.worker.workbench import Workbench, provide_teacher
spec = SweepSpec.model_validate({{
    "name": "s", "dataset": {{"name": "mnist_mini", "subset": 160, "val_fraction": 0.5}},
    "teacher": {{"model": "mnist_teacher", "width": 0.25, "checkpoint": "kdsweep:mnist_mini_teacher"}},
    "student": {{"model": "mnist_student"}}, "space": {{"method": ["kd"]}}, "storage": {str(tmp_path)!r}}})
cpu = torch.device("cpu")
data = prepare(spec.dataset, spec.seed, spec.sweep_dir.store)
card = provide_teacher(spec, spec.sweep_dir, data, cpu, print)
bench = Workbench(spec, spec.sweep_dir, data, card, cpu)
for optimizer in ("adam", "sgd", "muon", "lamb"):
    config = {{"method": "kd", "width": 0.5, "lr": 1e-3, "alpha": 0.5, "temperature": 4.0, "optimizer": optimizer,
        "clip_norm": 1.0, "ema_decay": 0.9}}
    training = bench.training(config, 0, spec.sweep_dir.root / "state")
    training.run_epoch()
    training.save(spec.sweep_dir.root / "state.safetensors")
    training.load(spec.sweep_dir.root / "state.safetensors")
print([name for name in ("torch._dynamo", "torch._inductor", "sympy") if name in sys.modules])
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines()[-1] == "[]"


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("shape", [(4,), (2, 2)])
def test_a_step_does_not_wait_for_a_gpu(name, shape):
    weights = [nn.Parameter(torch.ones(shape, device="cuda"))]
    optimizer = OPTIMIZERS.create(name, weights)
    rates = [0.1, torch.tensor(0.1, device="cuda")]
    weights[0].grad = torch.ones_like(weights[0])
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for optimizer.rate in rates:
            optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (weights[0] < 1).all()


class TestAdam(OptimizerContract):
    def make(self, weights) -> Optimizer:
        return OPTIMIZERS.create("adam", weights, lr=0.02)


class TestAdamW(OptimizerContract):
    def make(self, weights) -> Optimizer:
        return OPTIMIZERS.create("adamw", weights, lr=0.02, weight_decay=0.1)


class TestAMSGrad(OptimizerContract):
    def make(self, weights) -> Optimizer:
        return OPTIMIZERS.create("amsgrad", weights, lr=0.02)


class TestSGD(OptimizerContract):
    def make(self, weights) -> Optimizer:
        return OPTIMIZERS.create("sgd", weights, lr=0.02, nesterov=True)


class TestMuon(OptimizerContract):
    def make(self, weights) -> Optimizer:
        return OPTIMIZERS.create("muon", weights, lr=0.02)


class TestLamb(OptimizerContract):
    def make(self, weights) -> Optimizer:
        return OPTIMIZERS.create("lamb", weights, lr=0.02)


class TestTorchClass(OptimizerContract):
    def make(self, weights) -> Optimizer:
        return OPTIMIZERS.create("torch.optim:RAdam", weights, lr=0.05)
