"""The null CUDA runtime itself: PyTorch's own checks work on it, and what PyTorch does is counted."""

from __future__ import annotations

import null_cuda
import pytest
import torch

pytestmark = pytest.mark.null_gpu


def what_torch_does() -> dict[str, object]:
    weights = torch.randn(5, 3).cuda().requires_grad_()
    inputs = torch.randn(4, 3).cuda()
    null_cuda.reset()
    (inputs @ weights.T).relu().sum().backward()
    step = null_cuda.counts()
    null_cuda.reset()
    torch.randn(1000).pin_memory().to("cuda", non_blocking=True)
    pinned = null_cuda.counts()
    null_cuda.reset()
    float(inputs.sum())
    item = null_cuda.counts()
    with pytest.raises(RuntimeError, match="two devices, cuda:0 and cpu"):
        inputs + torch.randn(4, 3)
    return {
        "name": torch.cuda.get_device_name(0),
        "values": torch.arange(3.0).cuda().tolist(),
        "gradient": str(weights.grad.device),
        "kernels": null_cuda.total(step, "KERNEL"),
        "gemms": null_cuda.total(step, "KERNEL cublas"),
        "syncs": null_cuda.syncs(step),
        "pinned": [pinned.get("COPY H2D pinned", 0), null_cuda.syncs(pinned)],
        "syncs_of_item": null_cuda.syncs(item),
    }


def test_pytorch_runs_and_its_kernels_copies_and_waits_are_counted(on_null_gpu):
    found = on_null_gpu(what_torch_does)
    assert found["name"] == "Null H100"
    assert len(found["values"]) == 3
    assert found["gradient"] == "cuda:0"
    assert found["kernels"] >= 5  # two products, relu and its derivative, the sum
    assert found["gemms"] == 2
    assert found["syncs"] == 0
    assert found["pinned"] == [1, 0]
    assert found["syncs_of_item"] == 1


def more_than_there_is(expandable: bool) -> list[object]:
    torch.cuda.init()
    before = null_cuda.used_bytes()
    small = torch.empty(100 << 20, dtype=torch.uint8, device="cuda")
    taken = null_cuda.used_bytes() - before
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    torch.cuda.set_per_process_memory_fraction(0.5)
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(200 << 20, dtype=torch.uint8, device="cuda")
    del small
    torch.cuda.empty_cache()
    return [taken, null_cuda.used_bytes() - before]


@pytest.mark.parametrize("expandable", [False, True])
def test_memory_has_a_limit_and_is_returned(expandable, on_null_gpu):
    setting = f"expandable_segments:{expandable}"
    taken, left = on_null_gpu(more_than_there_is, expandable, gb=0.5, PYTORCH_ALLOC_CONF=setting)
    assert 100 << 20 <= taken < 110 << 20
    assert left == 0


def after_an_illegal_access() -> list[str]:
    found = []
    weights = torch.ones(3, device="cuda")
    null_cuda.poison()
    for use in (lambda: weights + 1, torch.cuda.synchronize, lambda: torch.zeros(2, device="cuda")):
        with pytest.raises(RuntimeError) as caught:
            use()
        found.append(str(caught.value).splitlines()[0])
    return found


def test_an_illegal_access_is_reported_by_every_later_call(on_null_gpu):
    assert on_null_gpu(after_an_illegal_access) == ["CUDA error: an illegal memory access was encountered"] * 3
