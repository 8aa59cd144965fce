"""The latency of a student: measured once per architecture, whatever its weights."""

from __future__ import annotations

import json
import time

import pytest
import torch
from inputs import SPEC, refused
from torch import nn

from kdsweep import models
from kdsweep.config.spec import SweepSpec
from kdsweep.errors import InputError
from kdsweep.models import InputSpec
from kdsweep.storage.paths import SweepDir
from kdsweep.worker.latency import costs, latency_ms, measured, time_ms, within_latency

SAMPLES = torch.zeros(64, 1, 28, 28)
SAMPLE = SAMPLES[:1]


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


def test_costs_add_to_a_measured_latency_and_keep_it(tmp_path):
    sweep = SweepDir(tmp_path)
    first = latency_ms(sweep, student(0.5), SAMPLE)
    (file,) = sweep.latency.glob("*.json")
    assert json.loads(file.read_text()).keys() == {"latency_ms", "latency_iqr_ms", "threads", "device"}
    found = costs(sweep, student(0.5), SAMPLES)
    assert found.keys() == {"latency_ms", "latency_iqr_ms", "throughput", "activation_mb"}
    assert found["latency_ms"] == first
    stored = json.loads(file.read_text())
    assert (stored["batch"], stored["threads"], stored["device"]) == (64, torch.get_num_threads(), "cpu")
    assert found["throughput"] == pytest.approx(1000 * 64 / stored["batch_ms"])
    assert costs(sweep, student(0.5), SAMPLES) == found


def test_a_damaged_measurement_is_made_again(tmp_path):
    sweep = SweepDir(tmp_path)
    latency_ms(sweep, student(0.5), SAMPLE)
    (file,) = sweep.latency.glob("*.json")
    for damaged in ("{", '{"latency_ms": "fast"}', "[1]"):
        file.write_text(damaged)
        found = latency_ms(sweep, student(0.5), SAMPLE)
        assert json.loads(file.read_text())["latency_ms"] == found


class Slow(nn.Module):
    """Sleeps 2 ms."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, samples):
        assert not self.training
        assert torch.is_inference_mode_enabled()
        self.calls += 1
        time.sleep(0.002)
        return samples


def test_times_are_milliseconds_of_several_passes_after_a_warm_up():
    model = Slow()
    median, iqr = time_ms(model, SAMPLE)
    assert median >= 2  # a sleep is never shorter
    assert iqr >= 0
    assert model.calls > 10


def test_one_sample_measures_the_latency_only():
    assert measured(student(0.25), SAMPLE).keys() == {"latency_ms", "latency_iqr_ms", "threads", "device"}


def test_measuring_draws_no_random_numbers(tmp_path):
    model = student(0.5)
    state = torch.get_rng_state()
    costs(SweepDir(tmp_path), model, SAMPLES)
    assert torch.equal(torch.get_rng_state(), state)


# The constraint


def spec_of(limit, width):
    return SweepSpec.model_validate({
        "name": "limited", "dataset": {"name": "mnist_mini"}, "teacher": {"model": "mnist_teacher"},
        "student": {"model": "mnist_student"}, "space": {"method": ["kd"], "width": width},
        "constraints": {"latency_ms": limit},
    })  # fmt: skip


def stored_latencies(sweep, limit, slow):
    """Measure three widths, then make those in `slow` slower than the limit in the store."""
    for width in (0.25, 0.5, 1.0):
        before = set(sweep.latency.glob("*.json"))
        latency_ms(sweep, student(width).to(memory_format=torch.channels_last), SAMPLE)
        (file,) = set(sweep.latency.glob("*.json")) - before
        file.write_text(json.dumps({"latency_ms": 2 * limit if width in slow else limit / 2}))


def test_widths_slower_than_the_constraint_are_not_searched(tmp_path):
    sweep, spec = SweepDir(tmp_path), spec_of(5.0, {"choice": [0.25, 0.5, 1.0]})
    stored_latencies(sweep, 5.0, slow=(1.0,))
    state = torch.get_rng_state()
    space = within_latency(spec, spec.search_space, sweep, SAMPLE, InputSpec(tuple(SAMPLE.shape[1:])), 10)
    assert space.shared["width"].every() == (0.25, 0.5)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_limit_that_no_width_keeps_is_refused_with_the_time_of_the_fastest(tmp_path):
    sweep, spec = SweepDir(tmp_path), spec_of(5.0, {"choice": [0.25, 0.5, 1.0]})
    stored_latencies(sweep, 5.0, slow=(0.25, 0.5, 1.0))
    with refused(
        SPEC, InputError, match=r"^constraints.latency_ms: found 5; accepted: at least 10, the time of mnist_s"
    ):
        within_latency(spec, spec.search_space, sweep, SAMPLE, InputSpec(tuple(SAMPLE.shape[1:])), 10)
