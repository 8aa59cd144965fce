"""Logits of which only the largest are kept."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from kdsweep.teacher.kept import KeptLogits


def expected(logits, largest):
    """The same by sorting, in float64 and without rounding."""
    rows = []
    for row in logits.double().numpy():
        order = np.argsort(-row)
        others = row[order[largest:]]
        new = row.copy()
        new[order[largest:]] = math.log(np.exp(others).sum() / len(others))
        rows.append(new)
    return np.array(rows)


def test_the_largest_stay_and_the_others_keep_their_total_probability():
    # The others weigh exp(2) + exp(1) + exp(0) = 11.107, each of the three a third of it: log(11.107 / 3) = 1.309.
    seen = KeptLogits(1).seen(torch.tensor([[1.0, 4.0, 0.0, 2.0]]))
    assert seen[0].tolist() == pytest.approx([1.309, 4.0, 1.309, 1.309], abs=0.01)
    assert float(seen.softmax(1)[0, 1]) == pytest.approx(math.exp(4) / (math.exp(4) + 11.107), abs=0.002)  # 0.831


@pytest.mark.parametrize("largest", [1, 2, 5, 9])
def test_what_is_seen_differs_from_exact_logits_by_no_more_than_bfloat16(largest):
    logits = 6 * torch.randn(200, 10, generator=torch.Generator().manual_seed(0))
    wanted, seen = expected(logits, largest), KeptLogits(largest).seen(logits).numpy()
    wanted_gaps, gaps = wanted - wanted.max(1, keepdims=True), seen - seen.max(1, keepdims=True)
    np.testing.assert_allclose(gaps, wanted_gaps, rtol=2**-8, atol=1e-5)
    np.testing.assert_allclose(seen.max(1), wanted.max(1), rtol=2**-8)
    assert (seen.argmax(1) == logits.numpy().argmax(1)).all()


def test_a_sample_takes_four_bytes_per_logit_and_two(tmp_path):
    for largest, classes, size in ((16, 1000, 66), (3, 10, 14), (0, 1000, 4000)):
        kept, packed = KeptLogits(largest), KeptLogits(largest).pack(torch.randn(2, classes))
        assert packed[0].numel() * packed.element_size() == kept.size(classes) == size


def test_classes_beyond_a_byte_are_found_again():
    logits = torch.zeros(1, 32_768)
    logits[0, 32_767], logits[0, 300] = 9.0, 8.0
    seen = KeptLogits(2).seen(logits)
    assert seen.topk(2).indices.tolist() == [[32_767, 300]]
    assert seen[0, 0] == pytest.approx(0.0, abs=0.05)
