"""The section `tracking` of a sweep file: what it accepts, and what is said before anything starts."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from inputs import SET, SPEC, refused

import kdsweep
from kdsweep import cli
from kdsweep.config.changes import changed_spec
from kdsweep.errors import InputError, SpecError
from kdsweep.storage.paths import SweepDir
from kdsweep.tracking.base import TRACKERS
from kdsweep.tracking.section import TrackingSection, WandbSection

FINISHED = SweepDir(Path(__file__).parents[1] / "data" / "finished_0.1.0")


@pytest.fixture(autouse=True)
def _installed(monkeypatch):
    """Whatever is installed here: as if all trackers were."""
    there = importlib.util.find_spec
    packages = {TRACKERS[name].package for name in TRACKERS}
    monkeypatch.setattr("kdsweep.tracking.section.find_spec", lambda name: name if name in packages else there(name))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_every_tracker_has_a_key_and_every_key_a_tracker():
    assert list(TRACKERS) == sorted(TrackingSection.model_fields) == ["mlflow", "tensorboard", "wandb"]
    everything = TrackingSection(tensorboard=True, mlflow="http://host", wandb=WandbSection(project="p"))
    assert {tracker.name for tracker in everything.chosen()} == set(TRACKERS)
    assert TrackingSection().chosen() == {}


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"tensorbord": True}, "tracking.tensorbord: unknown key 'tensorbord'; did you mean 'tensorboard'?"),
        ({"tensorboard": "yes"}, "tracking.tensorboard: found 'yes'; accepted: true or false"),
        ({"mlflow": 5}, "tracking.mlflow: found 5; accepted: a URI such as http://host:5000 or "),
        ({"wandb": {"projekt": "p"}}, "unknown key 'projekt'; did you mean 'project'? accepted: entity, project"),
        ({"wandb": "p"}, "tracking.wandb: found 'p'; accepted: a mapping of keys"),
        ({"wandb": {"entity": "me"}}, "tracking.wandb.entity: found without a project"),
        ({"mlflow": True}, "tracking.mlflow: found true, but MLFLOW_TRACKING_URI is not set; accepted: a URI, or true"),
    ],
)
def test_a_fault_is_one_line_that_says_what_is_accepted(sweep_file, written, message):
    with refused(SPEC, SpecError) as caught:
        kdsweep.load_spec(sweep_file, {"tracking": written})
    assert message in str(caught.value)
    assert len(caught.value.faults) == 1


@pytest.mark.parametrize(
    "uri",
    ["https://me:s3cret@host/path", "https://s3cret@host", "postgresql://me:s3cret@db/x", "http://h?token=s3cret"],
)
def test_a_uri_with_credentials_is_refused_without_repeating_them(sweep_file, uri):
    with refused(SPEC, SpecError, match="MLFLOW_TRACKING_USERNAME") as caught:
        kdsweep.load_spec(sweep_file, {"tracking.mlflow": uri})
    assert "s3cret" not in str(caught.value)
    with refused(SET, SpecError, match="--set tracking.mlflow: found a URI with credentials") as caught:
        changed_spec(FINISHED, {"tracking.mlflow": uri})
    assert "s3cret" not in str(caught.value)


def test_a_package_that_is_missing_is_named_before_anything_starts(sweep_file, monkeypatch):
    spec = kdsweep.load_spec(sweep_file, {"tracking.wandb.project": "p"})
    monkeypatch.setattr("kdsweep.tracking.section.find_spec", lambda name: None)
    with refused(
        SPEC,
        SpecError,
        match=r"tracking.wandb: wandb is not installed: pip install '\.\[wandb\]' in a checkout of kdsweep",
    ):
        kdsweep.load_spec(sweep_file, {"tracking.wandb.project": "p"})
    with refused(
        SPEC,
        InputError,
        match=r"^tracking.wandb: wandb is not installed: pip install '\.\[wandb\]' in a checkout of kdsweep",
    ):
        kdsweep.run(spec)
    assert not spec.sweep_dir.root.exists()


def test_local_stores_do_not_depend_on_the_current_directory(sweep_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = [
        kdsweep.load_spec(sweep_file, {"tracking.mlflow": uri}).tracking.mlflow
        for uri in ("sqlite:///mlflow.db", "mlruns", "http://host:5000", "databricks")
    ]
    assert found == [f"sqlite:///{tmp_path}/mlflow.db", f"{tmp_path}/mlruns", "http://host:5000", "databricks"]


def test_trackers_can_be_added_to_an_existing_sweep():
    changed = changed_spec(FINISHED, {"tracking.tensorboard": True})
    assert changed.tracking.tensorboard


def test_validate_shows_what_will_be_tracked(sweep_file, tmp_path, capsys, monkeypatch):
    options = [
        "tracking.tensorboard=true",
        "tracking.mlflow=http://host:5000",
        "tracking.wandb={project: p, entity: me}",
    ]
    arguments = [part for option in options for part in ("--set", option)]
    monkeypatch.setattr("sys.argv", ["kdsweep", "validate", str(sweep_file), *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"small: logged to tensorboard ({tmp_path}/runs/small/tensorboard), "
        "mlflow (http://host:5000, experiment small), wandb (project me/p)"
    )
