"""A worker's cohort on the null GPU: trained, saved, resumed and evaluated, and what is left of it on the GPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import null_cuda
import pytest
import torch
from test_lane_faults import lane_of, told
from trainings import GPU, SMALL, opened

from kdsweep.methods import Method
from kdsweep.search.trial import Trial
from kdsweep.seeds import digest_of
from kdsweep.training import cohort as cohorts
from kdsweep.tune import cohorts as runs
from kdsweep.tune import work
from kdsweep.tune.trainable import Lane
from kdsweep.worker import gpu

pytestmark = pytest.mark.null_gpu

MEMBERS = 4
PRECISIONS = ("float32", "bfloat16")


class Greedy(Method):
    """Takes more memory than there is if it trains in a cohort, from the second epoch on."""

    formula = "0"
    source = "this test"
    needs = frozenset({"logits"})
    stacks = frozenset()

    def advance(self, progress, index):
        self.late = progress >= 1 / 3

    def term(self, student, teacher, labels):
        if self.late and torch._C._functorch.is_batchedtensor(student.logits):
            self.taken = [torch.empty(100 << 20, dtype=torch.uint8, device=GPU) for _ in range(20)]
        return student.logits.float().sum()


def trials(method: str, precision: str) -> list[Trial]:
    shared = {"method": method, "width": 0.25, "precision": precision}
    configs = [{**shared, "lr": 1e-3 * (1 + n), "alpha": 0.2 * (1 + n)} for n in range(MEMBERS)]
    return [Trial(n, f"{n:04}-{digest_of([method, precision])[:6]}", config) for n, config in enumerate(configs)]


def place_of(bench: Any) -> Any:
    """Return the place of a sweep whose lanes have this workbench."""
    cohorts.math = SimpleNamespace(isfinite=lambda value: True)  # type: ignore[attr-defined]  # no kernel runs
    runs.warm_workbench = work.warm_workbench = lambda place, alone: bench
    return SimpleNamespace(sweep=bench.spec.sweep_dir, fetch=lambda: None)


def ended(lane: Lane) -> None:
    """Let a lane drop its work, as it does when the next one begins."""
    lane._work, lane._steps = work.Work(), iter(())
    gpu.release()


def worked(root: str) -> dict[str, Any]:
    """Train trials as one to their first rung, then go on from their files in a new run."""
    rule = {"name": "asha", "grace_epochs": 1, "reduction_factor": 2}
    train = {**SMALL["train"], "cohort": MEMBERS, "epochs": 4}
    bench = opened(root, {**SMALL, "student": {"model": "lightnn"}, "train": train, "scheduler": rule})
    place = place_of(bench)
    found = {}
    for precision in PRECISIONS:
        for again in range(2):
            gpu.release()
            before = torch.cuda.memory_allocated()
            of = trials("kd", precision)
            lane = lane_of(runs.CohortRun(place, of))
            reports: dict[str, list[Any]] = {"before": [], "epochs": [], "failures": [], "ended": []}
            while not reports["ended"]:
                report = lane.step()
                assert not told(report), report
                for kind, values in reports.items():
                    values += report.get(kind, [])
            ended(lane)
            found[f"{precision} {again}"] = {
                "before": len(reports["before"]),
                "epochs": sorted({row["epoch"] for row in reports["epochs"]}),
                "together": sorted({row["cohort"] for row in reports["epochs"]}),
                "failures": len(reports["failures"]),
                "saved": [runs.saved_epoch(bench.spec.sweep_dir.trial(trial.key).state) for trial in of],
                "left": torch.cuda.memory_allocated() - before,
            }
    return found


def test_a_run_of_several_trials_saves_them_at_a_rung_and_goes_on_from_there(on_null_gpu, tmp_path):
    found = on_null_gpu(worked, str(tmp_path))
    for precision in PRECISIONS:
        first, second = found[f"{precision} 0"], found[f"{precision} 1"]
        assert first | {"left": 0} == {
            "before": 0, "epochs": [1], "together": [MEMBERS], "failures": 0, "saved": [1] * MEMBERS, "left": 0,
        }  # fmt: skip
        assert second == {
            "before": MEMBERS, "epochs": [2], "together": [MEMBERS], "failures": 0, "saved": [2] * MEMBERS, "left": 0,
        }  # fmt: skip


def waits(root: str) -> dict[str, list[int]]:
    """Count the waits of an epoch of few steps and of one of more."""
    found = {}
    for precision in PRECISIONS:
        for subset in (64, 128):
            dataset = {**SMALL["dataset"], "subset": subset}
            bench = opened(root, {**SMALL, "name": f"{precision}-{subset}", "dataset": dataset})
            place_of(bench)
            cohort = bench.cohort([trial.config for trial in trials("kd", precision)], 0)
            cohort.run_epoch()
            null_cuda.reset()
            cohort.run_epoch()
            found[f"{precision} {subset}"] = null_cuda.syncs(null_cuda.counts())
    return found


def test_an_epoch_of_more_steps_and_more_validation_waits_no_more_often(on_null_gpu, tmp_path):
    found = on_null_gpu(waits, str(tmp_path))
    for precision in PRECISIONS:
        assert found[f"{precision} 64"] == found[f"{precision} 128"] > 0


def greedy(root: str) -> dict[str, Any]:
    """Train to the first rung; let the cohort run out of memory, alone on the GPU, too; go on one by one."""
    rule = {"name": "asha", "grace_epochs": 1, "reduction_factor": 2}
    bench = opened(root, {**SMALL, "train": {**SMALL["train"], "cohort": MEMBERS}, "scheduler": rule})
    place, of = place_of(bench), trials("test_cohort_runs:Greedy", "float32")
    lane = lane_of(runs.CohortRun(place, of))
    found: dict[str, Any] = {"first": told(lane.step())}
    ended(lane)
    before = torch.cuda.memory_reserved()
    again = runs.CohortRun(place, of)
    for name, one in (("beside others", again), ("alone", again.by_itself())):
        lane = lane_of(one)
        report = lane.step()
        found[name] = [told(report), len(report.get("epochs", ())), torch.cuda.memory_reserved() - before]
    found["one by one"] = []
    for trial in of:
        lane = lane_of(work.TrialRun(place, trial.key, trial.config))
        report = lane.step()
        found["one by one"].append([told(report), len(report["before"]), report["epochs"][0]["epoch"]])
        ended(lane)
    return found


def test_trials_whose_cohort_is_out_of_memory_go_on_one_by_one_from_their_last_rung(on_null_gpu, tmp_path):
    found = on_null_gpu(greedy, str(tmp_path), gb=1)
    assert found["first"] == {}
    for name in ("beside others", "alone"):
        reported, epochs, left = found[name]
        assert reported.pop("failure").startswith("out of GPU memory: CUDA out of memory")
        assert (reported, epochs, left) == ({"out_of_memory": True}, 0, 0)
    assert found["one by one"] == [[{}, 1, 2]] * MEMBERS
