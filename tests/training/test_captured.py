"""Steps from static buffers, as a CUDA graph repeats them, give the run of plain steps. A CPU captures nothing."""

from __future__ import annotations

import pytest
import ray
import torch
from test_training import open_bench, written

from kdsweep.config.spec import ResourcesSection
from kdsweep.errors import InputError
from kdsweep.training.captured import Replays
from kdsweep.tune.cluster import share

SHARED = {"method": "kd", "width": 0.25, "lr": 1e-2, "alpha": 0.5}
# Only the learning rate differs, which is a float32 in the buffer.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return open_bench(written(tmp_path_factory.mktemp("captured")))


def trained(bench, capture, monkeypatch, **config):
    """Train two epochs; return the run and how many of its steps were replayed."""
    replayed = []
    run = Replays.run
    with monkeypatch.context() as patch:
        patch.setattr(Replays, "run", lambda self, *given: (run(self, *given), replayed.append(self.count)))
        training = bench.training({**SHARED, **config, "capture": capture}, 0, bench.spec.sweep_dir.root / "none")
        for _ in range(2):
            training.run_epoch()
    return training, replayed


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"optimizer": "sgd", "clip_norm": 0.1, "ema_decay": 0.9, "weight_decay": 1e-3},
        {"optimizer": "amsgrad", "alpha_schedule": "linear", "temperature_schedule": "cosine", "method": "kd+at"},
        {"optimizer": "adamw", "precision": "bfloat16", "method": "none", "alpha": 0.0, "warmup_epochs": 1.0},
        {"method": "ctkd"},
    ],
    ids=lambda config: " ".join(map(str, config.values())) or "kd",
)
def test_static_buffers_and_a_learning_rate_in_a_tensor_change_nothing(bench, config, monkeypatch):
    plain, none = trained(bench, False, monkeypatch, **config)
    static, replayed = trained(bench, True, monkeypatch, **config)
    steps = -(-len(bench.train) // bench.spec.train.batch_size)
    assert none == []
    assert len(replayed) == 2 * steps
    assert replayed[steps - 1] >= steps - 2 > 0  # all but the first step, and a last batch of another size
    for ours, theirs in zip(static.history, plain.history, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - {"seconds"}:
            assert ours[name] == pytest.approx(theirs[name], rel=TOLERANCE, abs=TOLERANCE), name
    for ours, theirs in zip(static.student.parameters(), plain.student.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("config", [{"method": "crd"}, {"optimizer": "lamb"}], ids=["crd", "lamb"])
def test_what_keeps_state_on_the_host_takes_plain_steps(bench, config, monkeypatch):
    _, replayed = trained(bench, True, monkeypatch, **config)
    assert replayed == []


def test_data_on_the_host_take_plain_steps(bench, monkeypatch):
    monkeypatch.setattr(type(bench.train), "resident", False)
    _, replayed = trained(bench, True, monkeypatch)
    assert replayed == []


@pytest.mark.parametrize(
    ("gpus", "can_grow", "why"),
    [
        ("auto", False, "the cluster has no GPU"),
        (0, False, "resources.gpus_per_trial is 0"),
        (0, True, "resources.gpus_per_trial is 0"),
    ],
)
def test_capture_is_refused_without_a_gpu(gpus, can_grow, why, monkeypatch):
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])
    with pytest.raises(InputError, match="train.capture") as caught:
        share(ResourcesSection(gpus_per_trial=gpus, max_concurrent=2), can_grow, tell=print, capture=True)
    assert str(caught.value) == f"train.capture: found true, but {why}; accepted: false, or trials with GPUs"
    share(ResourcesSection(gpus_per_trial=gpus, max_concurrent=2), can_grow, tell=print)
