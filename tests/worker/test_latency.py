"""The latency of a student: measured once per architecture, whatever its weights."""

from __future__ import annotations

import json
import time

import torch
from torch import nn

from kdsweep import models
from kdsweep.storage.paths import SweepDir
from kdsweep.worker.latency import latency_ms, measure_ms

SAMPLE = torch.zeros(1, 1, 28, 28)


def student(width):
    return models.build("mnist_student", (1, 28, 28), 10, width=width)


def test_equal_students_have_equal_latencies_and_others_their_own(tmp_path):
    sweep = SweepDir(tmp_path)
    first = latency_ms(sweep, student(0.5), SAMPLE)
    assert first > 0
    assert latency_ms(sweep, student(0.5), SAMPLE) == first  # other weights, the same layers
    assert len(list(sweep.latency.glob("*.json"))) == 1
    latency_ms(sweep, student(1.0), SAMPLE)
    assert len(list(sweep.latency.glob("*.json"))) == 2


def test_a_damaged_measurement_is_made_again(tmp_path):
    sweep = SweepDir(tmp_path)
    latency_ms(sweep, student(0.5), SAMPLE)
    (file,) = sweep.latency.glob("*.json")
    file.write_text("{")
    found = latency_ms(sweep, student(0.5), SAMPLE)
    assert json.loads(file.read_text())["latency_ms"] == found


class Slow(nn.Module):
    def __init__(self, seconds):
        super().__init__()
        self.seconds = list(seconds)

    def forward(self, sample):
        assert not self.training
        assert torch.is_inference_mode_enabled()
        time.sleep(self.seconds.pop(0))
        return sample


def test_the_latency_is_the_median_after_the_warm_up():
    # Ten slow passes, then a hundred of which a third are slow: neither counts.
    seconds = [0.02] * 10 + [0.02, 0.001, 0.001] * 34
    assert 1 <= measure_ms(Slow(seconds), SAMPLE) < 15


def test_a_slow_student_is_measured_a_few_times_only(monkeypatch):
    monkeypatch.setattr("kdsweep.worker.latency.MOST_SECONDS", 0.05)
    assert measure_ms(Slow([0.03] * 3), SAMPLE) >= 29  # a busy machine sleeps longer, never shorter


def test_measuring_draws_no_random_numbers(tmp_path):
    model = student(0.5)
    state = torch.get_rng_state()
    latency_ms(SweepDir(tmp_path), model, SAMPLE)
    assert torch.equal(torch.get_rng_state(), state)
