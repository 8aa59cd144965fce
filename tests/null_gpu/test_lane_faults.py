"""A lane whose work fails on the GPU: what it reports, and what is left on the GPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import null_cuda
import pytest
import ray
import torch
from ray.exceptions import RayActorError
from trainings import GPU, begun, opened

from kdsweep.errors import DeviceError
from kdsweep.methods import Method
from kdsweep.tune import lease, work
from kdsweep.tune.trainable import Lane
from kdsweep.tune.work import ConfirmRun, Report, Work
from kdsweep.worker import gpu

pytestmark = pytest.mark.null_gpu

CARD = 1 << 30


class Trial(Work):
    """Trains two epochs of a method."""

    name = "trial"

    def __init__(self, bench, method):
        self._bench, self._method = bench, method

    def steps(self):
        training = begun(self._bench, method=self._method)
        for _ in range(2):
            yield Report("epochs", training.run_epoch(), pause=True)


class Greedy(Method):
    """Takes more memory than there is, in pieces."""

    formula = "0"
    source = "this test"
    needs = frozenset({"logits"})

    def term(self, student, teacher, labels):
        self.taken = [torch.empty(100 << 20, dtype=torch.uint8, device=GPU) for _ in range(20)]
        return student.logits.sum()


class Poisons(Method):
    """Accesses memory that is not there, in the second epoch."""

    formula = "0"
    source = "this test"
    needs = frozenset({"logits"})

    def term(self, student, teacher, labels):
        if self.poisonous:
            null_cuda.poison()
        return student.logits.sum()

    def advance(self, progress, index):
        self.poisonous = progress >= 1 / 3


def lane_of(work: Work) -> Lane:
    lane = Lane.__new__(Lane)
    lane._where = {}  # described already: that would join or start a Ray
    lane._begin(work)
    return lane


def told(report: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in report.items() if key in ("failure", "out_of_memory", "broken")}


def greedy(root: str) -> dict[str, Any]:
    bench = opened(root)
    usual = lane_of(Trial(bench, "kd"))
    usual.step()
    usual._work, usual._steps = Work(), iter(())
    gpu.release()
    before = torch.cuda.memory_reserved()
    lane = lane_of(Trial(bench, "test_lane_faults:Greedy"))
    report = lane.step()
    left = torch.cuda.memory_reserved() - before
    return {"told": told(report), "left": left, "next": told(lane_of(Trial(bench, "kd")).step())}


def test_a_trial_out_of_memory_says_so_and_returns_all_of_its_memory(on_null_gpu, tmp_path):
    found = on_null_gpu(greedy, str(tmp_path), gb=1)
    assert found["told"].pop("failure").startswith("out of GPU memory: CUDA out of memory. Tried to allocate")
    assert found["told"] == {"out_of_memory": True}
    assert found["left"] == 0
    assert found["next"] == {}


def confirmed_greedily(root: str) -> dict[str, Any]:
    bench = opened(root)
    place = SimpleNamespace(sweep=bench.spec.sweep_dir, fetch=lambda: None)
    config = {"method": "test_lane_faults:Greedy", "width": 0.25, "lr": 1e-3, "alpha": 0.5}
    found = {}
    work.warm_workbench = lambda place, alone: bench
    for run in (ConfirmRun(place, config, 1), ConfirmRun(place, config, 2).by_itself()):
        report = lane_of(run).step()
        measured = report.get("confirmed", [{}])[0]
        missing = sorted(name for name, value in measured.items() if value != value)
        found[run.alone] = [
            told(report).get("out_of_memory", False), missing, "parameters" in measured, report.get("exhausted")
        ]  # fmt: skip
        assert not place.sweep.confirmation(run.name).result.exists()
    return {"beside others": found[False], "alone": found[True]}


def test_a_confirmation_run_out_of_memory_even_alone_is_reported_as_unmeasured_and_not_kept(on_null_gpu, tmp_path):
    found = on_null_gpu(confirmed_greedily, str(tmp_path), gb=1)
    assert found["beside others"] == [True, [], False, None]  # it is repeated alone
    out_of_memory, missing, has_size, exhausted = found["alone"]
    assert exhausted == [True]
    assert not out_of_memory
    assert {"val_accuracy", "test_accuracy"} <= set(missing)
    assert has_size


def poisoned(root: str) -> dict[str, Any]:
    bench = opened(root)
    lane = lane_of(Trial(bench, "test_lane_faults:Poisons"))
    first, second = told(lane.step()), told(lane.step())
    lane.cleanup()  # saves nothing
    refused = []
    for more in (lane.step, lambda: lane.reset_config({"work": Trial(bench, "kd")})):
        with pytest.raises(RayActorError) as caught:
            more()
        refused.append(caught.value.preempted)
    return {"first": first, "second": second, "refused": refused}


def test_a_worker_whose_gpu_broke_says_so_and_leaves_its_work_to_another(on_null_gpu, tmp_path):
    found = on_null_gpu(poisoned, str(tmp_path))
    assert found["first"] == {}
    assert found["second"]["broken"] == "CUDA error: an illegal memory access was encountered"
    assert found["second"]["failure"].startswith("AcceleratorError: CUDA error: an illegal memory access")
    assert found["refused"] == [True, True]


def devices(shares: list[float]) -> list[list[Any]]:
    found: list[list[Any]] = []
    lease.leased_share = lambda: shares[-1]
    for gpus, alone in ((["0"], False), (["0"], True), ([], False)):
        ray.get_gpu_ids = lambda gpus=gpus: gpus
        device = lease.leased_device(alone)
        limits = torch.cuda.get_per_process_memory_fraction() if device.type == "cuda" else 0
        found.append([device.type, round(limits, 4), gpu.described(device).get("name", "")])
    torch.empty(1 << 20, device=GPU)
    segments = torch.cuda.memory.memory_snapshot()
    return [*found, [segment["is_expandable"] for segment in segments], [torch.are_deterministic_algorithms_enabled()]]


def test_a_lease_gives_its_share_of_the_memory_and_without_one_the_device_is_the_cpu(on_null_gpu):
    leased, alone, without, expandable, deterministic = on_null_gpu(devices, [0.25], gb=80)
    assert leased == ["cuda", pytest.approx(0.25 - 0.6e9 / (80 << 30), abs=1e-3), "Null H100"]
    assert alone == ["cuda", 1.0, "Null H100"]
    assert without == ["cpu", 0, ""]
    assert set(expandable) == {True}
    assert deterministic == [True]


def without_a_gpu() -> str:
    ray.get_gpu_ids = lambda: ["3"]
    ray.util.get_node_ip_address = lambda: "10.0.0.1"
    torch.cuda.is_available = lambda: False
    with pytest.raises(DeviceError) as caught:
        lease.leased_device(False)
    return str(caught.value)


def test_a_leased_gpu_that_torch_does_not_see_is_an_error(on_null_gpu):
    assert on_null_gpu(without_a_gpu).startswith("Ray leased GPU 3 to a worker on 10.0.0.1, but PyTorch")
