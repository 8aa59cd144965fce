"""Random returns of a data set function, and damaged images: refused in one line, or used as they are."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inputs import CODE, DATA, RANDOM, either
from PIL import Image

from kdsweep import datasets
from kdsweep.datasets import Source

SHAPES = [(), (0,), (3,), (3, 4), (3, 4, 4), (3, 1, 4, 4), (3, 5, 5, 1), (3, 3, 4, 4), (0, 1, 4, 4), (3, 1, 0, 4),
          (3, 5, 4, 4), (1, 1, 1, 1), (3, 1, 4, 4, 1)]  # fmt: skip
TYPES = ["uint8", "int64", "float32", "float64", "bool", "int8", "complex64", "U3", "object", "datetime64[s]"]
LABELS = [[0, 1, 1], [0, 1], [], [-1, 0, 1], [0, 1, 10**12], [0.0, 1.0, 1.0], ["a", "b", "c"], [None, 0, 1],
          [[0], [1], [1]], [True, False, True], 3, None, "abc", [0, 1, float("nan")], [0, 1, 2**70]]  # fmt: skip
NAMES = [("a", "b"), ["a", "a"], [], "ab", None, [1, 2], ("a",), ("a", "b", "c"), {"a": 0}]


def pixels(images):
    """The images as [N, C, H, W], as docs/own-model.md describes it."""
    if images.ndim == 3:
        return images[:, None]
    return images.transpose(0, 3, 1, 2) if images.shape[3] <= 4 < images.shape[1] else images


@settings(RANDOM, max_examples=120)
@given(data=st.data())
def test_whatever_a_data_set_function_returns_is_refused_or_used_as_it_is(data):
    usual = data.draw(st.booleans())
    shape = (3, 1, 4, 4) if usual else data.draw(st.sampled_from(SHAPES))
    kind = "uint8" if usual else data.draw(st.sampled_from(TYPES))
    images = np.zeros(shape, kind)
    if kind == "uint8":
        images += np.arange(images.size, dtype=np.uint8).reshape(shape)
    labels = data.draw(st.sampled_from(LABELS))
    names = data.draw(st.sampled_from(NAMES))
    returned = data.draw(st.sampled_from([(images, labels), (images, labels, names), (images,), images, None,
                                          [images, np.array([0, 1, 1])]]))  # fmt: skip

    def right(split):
        assert split.images.dtype == np.uint8
        assert split.labels.tolist() == [int(label) for label in returned[1]]
        return np.array_equal(split.images, pixels(images))

    with pytest.MonkeyPatch.context() as patch:
        module = ModuleType("random_arrays")
        module.data = lambda source, split: returned
        patch.setitem(sys.modules, "random_arrays", module)
        either(CODE, lambda: datasets.get("random_arrays:data").load(Source(Path("/nowhere")), "train"), right)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "webp", "tiff", "ppm"])
def test_a_damaged_image_is_refused_or_read_in_the_right_size(suffix, tmp_path):
    draw = np.random.default_rng(len(suffix) + ord(suffix[0]))
    for name in ("ant", "bee"):
        (tmp_path / "train" / name).mkdir(parents=True)
        image = Image.fromarray(draw.integers(0, 256, (12, 10, 3), np.uint8))
        image.save(tmp_path / "train" / name / f"0.{suffix}")
        image.save(tmp_path / "train" / name / f"1.{suffix}")
    file, source = tmp_path / "train" / "bee" / f"1.{suffix}", Source(tmp_path)
    whole = file.read_bytes()
    for round_number in range(10):
        cut = round_number % 2
        damaged = bytearray(whole[: draw.integers(0, len(whole))] if cut else whole)
        for _ in range(0 if cut else 5):
            damaged[draw.integers(0, len(damaged))] = draw.integers(0, 256)
        file.write_bytes(damaged)
        either(
            DATA,
            lambda: datasets.get("image_folder").load(source, "train"),
            lambda split: split.images.shape == (4, 3, 12, 10) and split.labels.tolist() == [0, 0, 1, 1],
        )
