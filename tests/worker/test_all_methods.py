"""Every method end to end: its drawn settings, its teacher outputs and its result columns."""

from __future__ import annotations

import optuna
import pandas as pd
import pytest
import torch

from kdsweep.config.spec import SweepSpec
from kdsweep.methods import METHODS, get, softens, terms
from kdsweep.search.faults import point_faults
from kdsweep.search.space import SearchSpace
from kdsweep.tasks.image.splits import prepare
from kdsweep.worker.workbench import Workbench, provide_teacher

SOFTENING = {"kd", "lskd", "dkd", "dist", "nkd", "tfkd"}
SUMS = ("kd+at", "hint+cosine", "dkd+crd")
SHARED = {"method", "width", "alpha", "alpha_schedule", "temperature", "temperature_schedule"}

SWEEP = """\
name: all
dataset: {{name: mnist_mini, subset: 300, val_fraction: 0.33}}
teacher: {{model: mnist_teacher, width: 0.25, checkpoint: "kdsweep:mnist_mini_teacher"}}
student: {{model: mnist_student}}
space:
  method: [{methods}]
  width: 0.25
  alpha: {{uniform: [0.3, 0.9]}}
  temperature: {{loguniform: [2, 8]}}
  temperature_schedule: {{choice: [constant, linear]}}
train: {{epochs: 1, batch_size: 50}}
search: {{sampler: random, trials: {count}, points: [{points}]}}
scheduler: {{name: none}}
confirm: {{top: 0}}
storage: {storage}
"""


def test_the_list_of_softening_methods_is_complete():
    assert {name for name in METHODS if softens(name)} == SOFTENING


def test_a_search_over_all_methods_draws_only_the_settings_that_each_method_uses():
    space = SearchSpace.parse(
        {
            "method": [*METHODS, *SUMS],
            "temperature": {"uniform": [2, 8]},
            "temperature_schedule": {"choice": ["constant", "cosine"]},
            "alpha_schedule": {"choice": ["constant", "linear"]},
            "dkd": {"beta": {"uniform": [1, 2]}},
            "crd": {"temperature": {"loguniform": [0.05, 0.2]}},
        }
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen: dict[str, set[str]] = {}
    for _ in range(600):
        config = space.suggest(study.ask())
        assert point_faults(space, config) == []
        found = seen.setdefault(str(config["method"]), set(config))
        assert found == set(config)
    assert seen.keys() == {*METHODS, *SUMS}
    for method, keys in seen.items():
        names = terms(method)
        soft = bool(SOFTENING.intersection(names))
        assert ("temperature" in keys, "temperature_schedule" in keys) == (soft, soft)
        assert ("alpha" in keys, "alpha_schedule" in keys) == ((method != "none"),) * 2
        own = {key for key in keys if "." in key}
        assert keys - own <= SHARED
        searched = {f"{term}.{key}" for term in names for key, param in get(term).params().items() if param.search}
        searched -= {f"{term}.temperature" for term in SOFTENING}
        if "crd" in names:
            searched.add("crd.temperature")
        assert own == searched


@pytest.fixture(scope="module")
def benches(tmp_path_factory) -> dict[str, Workbench]:
    """Two workbenches of one sweep: one with stored teacher outputs, one with the teacher in the loop."""
    storage = tmp_path_factory.mktemp("benches")
    found = {}
    for name, cache_gb in (("files", 1.0), ("loop", 0.0)):
        spec = SweepSpec.model_validate(
            {
                "name": name,
                "dataset": {"name": "mnist_mini", "subset": 90, "val_fraction": 0.34},
                "teacher": {
                    "model": "mnist_teacher", "width": 0.25, "checkpoint": "kdsweep:mnist_mini_teacher",
                    "cache_gb": cache_gb,
                },
                "student": {"model": "mnist_student"},
                "space": {"method": list(METHODS), "width": 0.25},
                "train": {"epochs": 1, "batch_size": 30},
                "storage": str(storage),
            }
        )  # fmt: skip
        device = torch.device("cpu")
        data = prepare(spec.dataset, spec.seed, spec.sweep_dir.store)
        provide_teacher(spec, spec.sweep_dir, data, device, lambda metrics: None)
        found[name] = Workbench.of(spec, spec.sweep_dir, data, device)
    return found


@pytest.mark.parametrize("method", METHODS)
def test_stored_outputs_give_the_same_loss_as_the_teacher_in_the_loop(benches, method, tmp_path):
    needs = get(method).teacher_needs({})
    assert benches["files"].outputs.store.holds(needs)
    assert not needs or not benches["loop"].outputs.store.holds(needs)
    config = {"method": method, "width": 0.25, "alpha": 1.0, "lr": 1e-9}
    stored, live = (
        bench.training(config, 0, tmp_path / "none").run_epoch()["train_loss"] for bench in benches.values()
    )
    assert stored == pytest.approx(live, rel=1e-2 if needs - {"logits", "embedding"} else 1e-5)


@pytest.fixture(scope="module")
def swept_all(local_ray, tmp_path_factory):
    """The results of a sweep with one trial for each method."""
    import kdsweep

    folder = tmp_path_factory.mktemp("all")
    names = [*METHODS, "kd+at"]
    points = ", ".join(f"{{method: {name}}}" for name in names)
    text = SWEEP.format(methods=", ".join(names), count=len(names), points=points, storage=folder / "runs")
    (folder / "all.yaml").write_text(text)
    return kdsweep.run(kdsweep.load_spec(folder / "all.yaml"))


@pytest.mark.cluster
def test_a_sweep_over_all_methods_trains_each_and_has_dotted_parameter_columns(swept_all):
    trials = swept_all.trials.set_index("method")
    assert set(trials.index) == {*METHODS, "kd+at"}
    assert set(trials["state"]) == {"COMPLETE"}, trials["error"].to_list()
    assert trials["val_accuracy"].notna().all()
    shown = {column for column in trials.columns if "." in column}
    declared = {f"{name}.{key}" for name in METHODS for key, param in get(name).params().items() if param.search}
    assert shown == declared - {f"{name}.temperature" for name in SOFTENING}
    for method, row in trials.iterrows():
        names = terms(str(method))
        soft = bool(SOFTENING.intersection(names))
        assert pd.notna(row["temperature"]) == soft
        assert (row["temperature_schedule"] in ("constant", "linear")) == soft
        own = {column for column in shown if column.split(".")[0] in names}
        assert {column for column in shown if pd.notna(row[column])} == own
    sizes = trials["parameters"]
    assert sizes["simkd"] == sizes.max() > sizes["kd"] == sizes["none"] == sizes.min()
