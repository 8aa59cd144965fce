"""Steps that are captured as CUDA graphs on the null GPU: launches, what cannot be captured, memory."""

from __future__ import annotations

import gc
from typing import Any

import null_cuda
import pytest
import torch
from test_syncs import AUGMENTS
from trainings import SMALL, begun, opened

from kdsweep import methods
from kdsweep.errors import ModelError
from kdsweep.methods import METHODS, Method
from kdsweep.tasks.image import splits

pytestmark = pytest.mark.null_gpu

GRAPH = "KERNEL graph"


class Waits(Method):
    """Waits for the GPU in every step, which a graph cannot."""

    formula = "0"
    source = "this test"
    needs = frozenset({"logits"})
    stacks = frozenset()

    def term(self, student, teacher, labels):
        return student.logits.sum() * float(labels[0])


def begun_at(root: str, subset: int, **config: Any) -> Any:
    dataset = {**SMALL["dataset"], "subset": subset, "augment": "crop_flip"}
    bench = opened(root, {**SMALL, "name": f"of-{subset}", "student": {"model": "lightnn"}, "dataset": dataset})
    return begun(bench, capture=True, **config)


def calls_of_epoch(training: Any) -> dict[str, int]:
    training.run_epoch()
    null_cuda.reset()
    training.run_epoch()
    return null_cuda.counts()


def launches(root: str) -> dict[str, dict[str, float]]:
    """Count what each replayed step calls: the difference of an epoch of 8 steps and one of 4."""
    found = {}
    settings: dict[str, dict[str, Any]] = {
        "float32": {"precision": "float32"},
        "bfloat16": {"precision": "bfloat16"},
        "all": {"optimizer": "sgd", "clip_norm": 1.0, "ema_decay": 0.9, "alpha_schedule": "linear"},
    }
    for name, config in settings.items():
        few, more = (calls_of_epoch(begun_at(root, subset, method="kd", **config)) for subset in (64, 128))
        found[name] = {
            "graphs": (more[GRAPH] - few[GRAPH]) / 4,
            "launches": (null_cuda.total(more, "KERNEL") - null_cuda.total(few, "KERNEL")) / 4,
            "waits": null_cuda.syncs(more) - null_cuda.syncs(few),
            "pageable": null_cuda.total(more, "COPY H2D pageable") - null_cuda.total(few, "COPY H2D pageable"),
            "captured": null_cuda.total(more, "CAPTURED KERNEL"),
        }
    return found


def test_a_step_is_one_launch_of_a_graph_and_never_waits(on_null_gpu, tmp_path):
    found = on_null_gpu(launches, str(tmp_path))
    for name, most in (("float32", 4), ("bfloat16", 4), ("all", 6)):
        assert found[name]["graphs"] == 1
        assert found[name]["waits"] == found[name]["pageable"] == 0
        # Beside the graph: the learning rate, the state of dropout; with all settings also alpha and the average.
        assert found[name]["launches"] <= most, found[name]
        assert found[name]["captured"] > 40


def all_methods(root: str) -> dict[str, int]:
    """Return how many graphs the second epoch of four steps launches, by method."""
    bench = opened(root)
    return {name: calls_of_epoch(begun(bench, capture=True, method=name)).get(GRAPH, 0) for name in METHODS}


def test_the_steps_of_all_methods_that_train_in_cohorts_are_captured(on_null_gpu, tmp_path):
    stacked = {name for name in METHODS if methods.stacks(name) is not None}
    assert on_null_gpu(all_methods, str(tmp_path)) == {name: 3 if name in stacked else 0 for name in METHODS}


def all_views(root: str) -> dict[str, int]:
    """Return the same for kd, by augmentation."""
    found = {}
    for number, augment in enumerate(AUGMENTS):
        bench = opened(root, {**SMALL, "name": f"{number}", "dataset": {**SMALL["dataset"], "augment": augment}})
        found[augment] = calls_of_epoch(begun(bench, capture=True, method="kd")).get(GRAPH, 0)
    return found


def test_steps_are_captured_with_every_augmentation(on_null_gpu, tmp_path):
    assert on_null_gpu(all_views, str(tmp_path)) == dict.fromkeys(AUGMENTS, 3)


def left_out(root: str) -> dict[str, Any]:
    """Train what cannot be captured."""
    found: dict[str, Any] = {}
    try:
        begun_at(root, 64, method="test_captured_steps:Waits").run_epoch()
    except ModelError as error:
        found["waits"] = str(error)
    found["after"] = calls_of_epoch(begun_at(root, 64, method="kd"))[GRAPH]
    splits.RESIDENT_SHARE = 0.0
    found["host"] = calls_of_epoch(begun_at(root, 32, method="kd")).get(GRAPH, 0)
    return found


def test_what_cannot_be_captured_trains_plainly_or_says_so(on_null_gpu, tmp_path):
    found = on_null_gpu(left_out, str(tmp_path))
    assert found["host"] == 0
    assert found["waits"].startswith("train.capture: this step cannot be captured (CUDA error: ")
    assert found["after"] == 3  # of four steps


def left_on_the_gpu(root: str) -> list[int]:
    gc.disable()
    bench = opened(root)
    found = []
    for _ in range(3):
        before = torch.cuda.memory_allocated()
        training = begun(bench, method="kd", capture=True)
        training.run_epoch()
        training.run_epoch()
        del training
        found.append(torch.cuda.memory_allocated() - before)
    return found[1:]


def test_captured_runs_leave_nothing_on_the_gpu(on_null_gpu, tmp_path):
    assert on_null_gpu(left_on_the_gpu, str(tmp_path)) == [0, 0]
