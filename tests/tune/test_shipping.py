"""What is sent with a submitted sweep, and what is refused before anything is sent."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from kdsweep import cli
from kdsweep.errors import InputError, SpecError
from kdsweep.registry import import_from
from kdsweep.tune.shipping import shipment

OWN = """\
from shipped_parts.terms import zero
from kdsweep.methods import Method

class Quiet(Method):
    formula = "0"
    source = "this test"
    needs = frozenset({"logits"})

    def term(self, student, teacher, labels):
        return zero(student)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A directory with the user's own code, data and runs."""
    (tmp_path / "shipped_parts").mkdir()
    (tmp_path / "shipped_parts/__init__.py").touch()
    (tmp_path / "shipped_parts/terms.py").write_text("def zero(student):\n    return student.logits.sum() * 0\n")
    (tmp_path / "shipped_own.py").write_text(OWN)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/images.bin").write_bytes(bytes(1000))
    (tmp_path / "runs/old").mkdir(parents=True)
    (tmp_path / "runs/old/spec.yaml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    import_from(str(tmp_path))
    return tmp_path


def written(folder: Path, **changes) -> Path:
    values = {
        "dataset": {"name": "mnist_mini"},
        "teacher": {"model": "mnist_teacher", "width": 0.25, "checkpoint": "kdsweep:mnist_mini_teacher"},
        "student": {"model": "mnist_student"},
        "space": {"method": ["kd", "shipped_own:Quiet"]},
        "storage": "/shared/runs",
    } | changes
    path = folder / "sent.yaml"
    path.write_text(json.dumps(values))
    return path


def test_the_sweep_file_and_the_users_code_are_sent_and_nothing_else(here, tmp_path):
    shipped = shipment(written(here), {}, [], resume=False)
    assert set(shipped.files) == {
        "sent.yaml", "shipped_own.py", "shipped_parts/__init__.py", "shipped_parts/terms.py"
    }  # fmt: skip
    shipped.pack(tmp_path / "packed")
    assert (tmp_path / "packed/shipped_parts/terms.py").read_text().startswith("def zero")
    assert str(shipped.directory) == "/shared/runs/sent"


def test_the_command_runs_or_resumes_the_sweep_on_the_cluster(here):
    spec = written(here)
    shipped = shipment(spec, {"name": "other"}, [], resume=False)
    assert shipped.command(spec, ["train.epochs=2"], resume=False) == (
        "python -m kdsweep run sent.yaml --name other --storage /shared/runs --set train.epochs=2 "
        "--set dataset.root=/shared/runs/data"
    )
    assert shipped.command(spec, [], resume=True) == "python -m kdsweep resume /shared/runs/other"


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"storage": "runs"}, "storage: found 'runs'; accepted: a directory that every node"),
        ({"storage": ""}, "storage: missing; accepted: "),
        ({"dataset": {"name": "mnist_mini", "root": "data"}}, "dataset.root: found 'data'; accepted: an absolute path"),
        ({"teacher": {"model": "mnist_teacher", "checkpoint": "a.pt"}}, "teacher.checkpoint: found 'a.pt'; accepted: "),
        ({"search": {"warm_start": ["runs/a"]}}, "search.warm_start.0: found 'runs/a'; accepted: "),
    ],
)
def test_a_path_of_this_machine_is_refused(here, changes, refused):
    with pytest.raises(InputError, match=refused):
        shipment(written(here, **changes), {}, [], resume=False)


def test_a_sweep_in_an_object_store_keeps_its_uri_and_downloads_no_data_there(here):
    path = written(here, storage="s3://bucket/runs")
    shipped = shipment(path, {}, [], resume=False)
    assert shipped.directory == "s3://bucket/runs/sent"
    assert shlex.split(shipped.command(path, [], resume=True))[-2:] == ["resume", "s3://bucket/runs/sent"]
    begun = shlex.split(shipped.command(path, [], resume=False))
    assert begun[begun.index("--storage") + 1] == "s3://bucket/runs"
    assert "s3://bucket/runs/data" not in " ".join(begun)


def test_faults_are_reported_here_except_those_that_only_the_cluster_can_judge(here):
    images = {"name": "image_folder", "root": "/shared/images"}
    shipped = shipment(written(here, dataset=images), {}, [], resume=False)
    assert len(shipped.unchecked) == 1
    assert "dataset.root: /shared/images" in shipped.unchecked[0]
    with pytest.raises(SpecError, match="unknown key 'epoch'") as refused:
        shipment(written(here, dataset=images, train={"epoch": 3}), {}, [], resume=False)
    assert len(refused.value.faults) == 1


def test_further_code_is_sent_and_a_missing_one_refused(here):
    (here / "tools").mkdir()
    (here / "tools/a.py").touch()
    (here / "tools/weights.pt").touch()
    assert "tools/a.py" in shipment(written(here), {}, [Path("tools")], resume=False).files
    assert "tools/weights.pt" not in shipment(written(here), {}, [Path("tools")], resume=False).files
    with pytest.raises(InputError, match="^--code none: no such file or directory"):
        shipment(written(here), {}, [Path("none")], resume=False)


@pytest.mark.cluster  # needs the extra of the same name
@pytest.mark.parametrize(
    ("line", "refused"),
    [
        ("submit {spec} --address 127.0.0.1:6379", "--address 127.0.0.1:6379: accepted: the address of the cluster's"),
        ("submit {spec} --address http://127.0.0.1:1", "--address http://127.0.0.1:1: nothing answers there: "),
        ("submit {spec} --address http://h --driver-resource head", "--driver-resource head: accepted: NAME=NUMBER"),
        ("jobs --address http://127.0.0.1:1", "--address http://127.0.0.1:1: nothing answers there: "),
        ("jobs", "Missing option '--address'"),
    ],
)
def test_a_wrong_address_is_one_line_with_exit_code_2(here, line, refused, monkeypatch, capfd):
    pytest.importorskip("aiohttp")  # ray[default]
    monkeypatch.setattr(sys, "argv", ["kdsweep", *line.format(spec=written(here)).split()])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    err = capfd.readouterr().err
    assert (ended.value.code, err.count("\n")) == (2, 1)
    assert err.startswith(refused)
