"""Sweeps on a real Ray that are stored on a real S3 server, with faults."""

from __future__ import annotations

import pytest
import ray
from faulty_store import FaultyStore
from object_store import forget
from torch import nn

import kdsweep

pytestmark = pytest.mark.slow
TIMES = ["train_seconds", "started_at", "ended_at", "node", "device", "latency_ms", "latency_iqr_ms", "throughput"]


@pytest.fixture(autouse=True)
def _own_ray():
    """End the Ray that tests share: its workers were started without the address and the keys of the store."""
    ray.shutdown()


@pytest.fixture
def faulty(bucket, s3_server, monkeypatch):
    """The bucket through a proxy that gives a tenth of the answers a fault."""
    proxy = FaultyStore(s3_server, share=0.1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
    forget()
    yield proxy
    proxy.close()


def comparable(results):
    trials = results.trials.drop(columns=TIMES, errors="ignore").to_json()
    confirmed = [column for column in results.confirmed.columns if "test" in column or column == "trial"]
    return trials, results.confirmed[confirmed].to_json()


def test_a_sweep_in_a_faulty_store_equals_a_local_one_and_goes_on_elsewhere(
    faulty, bucket, minimal, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name, storage in (("local", tmp_path / "runs"), ("remote", "s3://sweeps/runs")):
        text = minimal.format(name="same", storage=storage).replace("trials: 10", "trials: 6")
        text = text.replace("batch_size: 64", "batch_size: 64, precision: float32")  # auto is measured anew for each
        (tmp_path / f"{name}.yaml").write_text(text)
    local = kdsweep.run(tmp_path / "local.yaml", "local", progress=False)
    remote = kdsweep.run(tmp_path / "remote.yaml", "local", progress=False)
    assert faulty.count, "there were no faults"
    assert str(remote.sweep) == "s3://sweeps/runs/same"
    assert comparable(remote) == comparable(local)
    with pytest.raises(kdsweep.errors.SweepDirError, match="s3://sweeps/runs/same already contains this sweep"):
        kdsweep.run(tmp_path / "remote.yaml", "local", progress=False)

    monkeypatch.setenv("KDSWEEP_CACHE", str(tmp_path / "elsewhere"))
    forget()
    assert comparable(kdsweep.load_results("s3://sweeps/runs/same")) == comparable(local)
    more = kdsweep.resume("s3://sweeps/runs/same", trials=8, address="local", progress=False)
    assert len(more.trials) == 8
    kept = {key.split("/")[3] for key in bucket.listed() if key.startswith("runs/same/trials/")}
    assert kept <= set(more.trials["trial"])
    assert not any(key.endswith(("state.safetensors", ".lease")) for key in bucket.listed())


def test_a_sweep_of_objects_is_kept_in_a_bucket(bucket, tmp_path, monkeypatch):
    import torch

    monkeypatch.chdir(tmp_path)
    draw = torch.Generator().manual_seed(0)
    samples = torch.randn(200, 4, generator=draw)
    data = [(sample, int(sample.sum() > 0)) for sample in samples]

    def swept(trials):
        return kdsweep.sweep(
            teacher={"wide": nn.Sequential(nn.Linear(4, 2))}, student=lambda: nn.Linear(4, 2), train=data,
            methods=["none"], epochs=2, trials=trials, confirm=0, storage="s3://sweeps/runs", name="given",
            address="local", progress=False,
        )  # fmt: skip

    torch.manual_seed(0)
    first = swept(2)
    assert str(first.sweep) == "s3://sweeps/runs/given"
    assert first.spec.teacher.checkpoint.startswith("s3://sweeps/runs/.cache/objects/")
    torch.manual_seed(0)
    assert len(swept(3).trials) == 3
