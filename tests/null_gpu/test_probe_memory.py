"""The probe measures what a trial takes on a GPU: training and evaluation, and nothing that other work left behind."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from trainings import GPU, SMALL, begun, opened

from kdsweep.tasks.image.batches import Images
from kdsweep.training.batches import GPU_BYTES
from kdsweep.training.evaluate import evaluate
from kdsweep.worker import gpu, probe
from kdsweep.worker.capacity import Probe

pytestmark = pytest.mark.null_gpu

MB = 1e6


def probed(root: str, space: dict[str, Any], left_behind: int) -> dict[str, float]:
    bench = opened(root, {**SMALL, "space": space, "dataset": {"name": "mnist_mini", "val_fraction": 0.5}})
    torch.empty(left_behind, dtype=torch.uint8, device=GPU)  # PyTorch keeps it for later
    found = asdict(probe.measure(bench.spec, bench))
    gpu.release()
    torch.cuda.reset_peak_memory_stats()
    begun(bench, method="kd").run_epoch()
    evaluation = torch.cuda.max_memory_reserved()
    return {**found, "evaluation": evaluation}


def test_the_probe_covers_training_and_evaluation_and_leaves_out_what_others_left(on_null_gpu, tmp_path):
    space = {"method": "kd", "width": {"choice": [0.5, 4.0]}}
    found = on_null_gpu(probed, str(tmp_path / "first"), space, 0)
    after = on_null_gpu(probed, str(tmp_path / "second"), space, 700_000_000)
    assert found["gpu"] == "Null H100"
    assert found["gpu_bytes"] == 80 << 30
    assert after["trial_bytes"] == pytest.approx(found["trial_bytes"], rel=0.05)
    assert found["evaluation"] <= 2 * found["trial_bytes"]


def test_the_probe_measures_the_largest_batches_that_the_space_can_draw(on_null_gpu, tmp_path):
    space = {"method": ["none", "kd"], "width": 4.0}
    small = on_null_gpu(probed, str(tmp_path / "small"), space, 0)
    large = on_null_gpu(probed, str(tmp_path / "large"), space | {"batch_size": {"choice": [8, 1000]}}, 0)
    assert large["trial_bytes"] > 1.5 * small["trial_bytes"]


def evaluated(name: str, side: int) -> list[float]:
    """Evaluate a model on 600 images; return the peak of its memory in MB and the number of batches."""
    from kdsweep import models

    images = torch.zeros(1, 3, side, side, dtype=torch.uint8, device=GPU).expand(600, -1, -1, -1)
    samples = Images(images, torch.zeros(600, dtype=torch.long, device=GPU))
    model = models.build(name, (3, side, side), num_classes=10, width=1.0).to(GPU)
    batches = []
    model.register_forward_hook(lambda module, inputs, output: batches.append(len(output)))
    before = torch.cuda.memory_allocated()
    evaluate(model, samples, {})
    return [(torch.cuda.max_memory_allocated() - before) / MB, max(batches)]


@pytest.mark.parametrize(
    ("name", "side"), [("lightnn", 32), ("torchvision/resnet18", 224), ("torchvision/densenet121", 128)]
)
def test_evaluation_batches_are_sized_by_bytes(name, side, on_null_gpu):
    peak, largest = on_null_gpu(evaluated, name, side)
    assert peak < 1.3 * GPU_BYTES / MB
    assert largest == 600 if name == "lightnn" else 8 < largest < 50


def on_another_card(root: str) -> list[dict[str, Any]]:
    bench = opened(root)
    first = probe.provide(bench.spec, bench.spec.sweep_dir, bench)
    other = replace(first, gpu="Other", gpu_bytes=16 << 30, trial_bytes=1, precision="bfloat16")
    probe.write_json(bench.spec.sweep_dir.probe, asdict(other))
    again = probe.provide(bench.spec, bench.spec.sweep_dir, bench)
    return [asdict(first), asdict(again)]


def after_changes(root: str) -> list[bool]:
    bench = opened(root)
    spec = bench.spec
    found = replace(Probe("float32", {}, 1, 80 << 30, gpu="Null H100"), cohort_setting=1)
    captured = spec.replaced(train=spec.train.model_copy(update={"capture": True}))
    together = spec.replaced(train=spec.train.model_copy(update={"cohort": 8}))
    half, auto = (
        spec.replaced(resources=spec.resources.model_copy(update={"gpus_per_trial": gpus})) for gpus in (0.5, "auto")
    )
    return [
        *(probe._applies(found, one, bench) for one in (spec, captured, together)),
        probe._conditions(half, bench)["memory"] == probe._conditions(auto, bench)["memory"],
    ]


def test_measurements_end_with_the_settings_that_they_are_for(on_null_gpu, tmp_path):
    assert on_null_gpu(after_changes, str(tmp_path)) == [True, False, False, False]


def test_a_sweep_that_goes_on_with_another_card_is_probed_again_and_keeps_its_precision(on_null_gpu, tmp_path):
    first, again = (Probe(**found) for found in on_null_gpu(on_another_card, str(tmp_path)))
    assert again == replace(first, precision="bfloat16")
