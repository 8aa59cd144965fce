"""Modules and functions of the program as models of a sweep."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kdsweep import models
from kdsweep.errors import ModelError, UnknownNameError
from kdsweep.models.given import GivenFactory, give_student, give_teacher, unwrapped
from kdsweep.registry import give, given, load_user_object

SHAPE = (1, 8, 8)


def small(width):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, round(8 * width)), nn.ReLU(), nn.Linear(round(8 * width), 3))


def teacher(seed=0):
    torch.manual_seed(seed)
    return small(2)


def named(factory, widths=(0.5, 1.0)):
    return give_student(GivenFactory(factory), SHAPE, 3, widths)


def test_a_teacher_is_known_by_its_layers_and_weights():
    assert give_teacher(teacher(), "big") == give_teacher(teacher(), "big") != give_teacher(teacher(1), "big")
    name = give_teacher(teacher(), "big")
    assert name.startswith("object:big_")
    built = models.architecture(name, SHAPE, 3)
    assert (built[1].weight == teacher()[1].weight).all()
    assert built is not models.architecture(name, SHAPE, 3)
    assert models.taps(name, built, SHAPE).head == "3"


def test_a_student_is_known_by_what_it_builds():
    assert named(small) == named(lambda width: small(width=width)) != named(lambda width: small(2 * width))
    assert named(small).startswith("object:Sequential_")
    assert models.build(named(small), SHAPE, 3, 0.5)[1].weight.shape == (4, 64)


def test_a_student_is_called_with_what_it_takes():
    assert models.build(named(lambda: small(3), (1.0,)), SHAPE, 3)[1].out_features == 24
    sized = named(
        lambda num_classes, width, input_shape: small(width) if (num_classes, input_shape) == (3, SHAPE) else 0
    )
    assert models.build(sized, SHAPE, 3, 1.0)[1].out_features == 8
    assert models.build(named(lambda **given: small(given["width"])), SHAPE, 3, 1.0)[1].out_features == 8
    assert not GivenFactory(lambda: small(1)).has_width


def test_naming_a_student_leaves_the_random_state_as_it_was():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    named(small)
    assert torch.rand(1) == expected


def test_wrappers_are_taken_off_and_the_users_module_is_left_alone():
    module = teacher().train()
    copied = unwrapped(nn.DataParallel(module))
    assert type(copied) is nn.Sequential
    assert not copied.training
    assert module.training
    with torch.no_grad():
        module[1].weight.zero_()
    assert copied[1].weight.any()


class WithExtra(nn.Linear):
    def get_extra_state(self):
        return {"more": 1}


def test_what_is_no_model_is_said_in_one_line():
    built = small(1)
    with pytest.raises(ModelError, match="^student: returned the same module twice; accepted: a function that builds"):
        named(lambda width: built)
    with pytest.raises(ModelError, match=r"^student: returned a str; accepted: a torch\.nn\.Module"):
        named(lambda width: "net")
    with pytest.raises(ModelError, match=r"^student: cannot be built with width 0\.5: division by zero"):
        named(lambda width: 1 / 0)
    with pytest.raises(ModelError, match="^teacher: _extra_state in its state dict is a dict; accepted: tensors"):
        give_teacher(WithExtra(2, 2), "big")


def test_an_object_of_another_process_is_not_found():
    give("mine", 3)
    assert given("object:mine") == load_user_object("object:mine", "model") == 3
    with pytest.raises(UnknownNameError, match="^'object:gone' is a Python object that this process does not have"):
        models.build("object:gone", SHAPE, 3)
