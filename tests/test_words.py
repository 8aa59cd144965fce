"""Numbers and types in messages."""

from __future__ import annotations

import numpy as np
import pytest

from kdsweep.words import count_of, kind_of


@pytest.mark.parametrize(("number", "told"), [
    (1, "1 CPU"), (0, "0 CPUs"), (2, "2 CPUs"), (1.0, "1 CPU"), (0.5, "0.5 CPUs"), (np.int64(1), "1 CPU"),
])  # fmt: skip
def test_one_thing_is_counted_in_the_singular(number, told):
    assert count_of(number, "CPU") == told


def test_irregular_plurals_are_given():
    assert [count_of(number, "class", "classes") for number in (1, 3)] == ["1 class", "3 classes"]


@pytest.mark.parametrize(("value", "told"), [
    (None, "None"), (1, "an int"), ("a", "a str"), (object(), "an object"), (int, "the class int"), ({}, "a dict"),
])  # fmt: skip
def test_types_are_named_as_one_says_them(value, told):
    assert kind_of(value) == told
