"""The search space: conditional parameters, points, grids and limits."""

from __future__ import annotations

import optuna
import pytest

from kdsweep import distributions
from kdsweep.search.faults import point_faults
from kdsweep.search.parsing import SpaceError
from kdsweep.search.space import SearchSpace

optuna.logging.set_verbosity(optuna.logging.WARNING)


def draws(space, count=200, seed=0):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [space.suggest(study.ask()) for _ in range(count)]


def test_temperature_and_own_parameters_are_drawn_only_where_they_are_used():
    space = SearchSpace.parse(
        {"method": ["kd", "dkd", "hint", "none", "kd+at"], "temperature": {"uniform": [2, 8]}, "dkd": {"beta": 3.0}}
    )
    seen = {}
    for config in draws(space):
        seen.setdefault(config["method"], set()).add(frozenset(config))
    common = {"method", "width"}
    assert seen["kd"] == {frozenset(common | {"alpha", "temperature"})}
    assert seen["dkd"] == {frozenset(common | {"alpha", "temperature", "dkd.beta"})}
    assert seen["hint"] == {frozenset(common | {"alpha", "hint.weight"})}
    assert seen["none"] == {frozenset(common)}
    assert seen["kd+at"] == {frozenset(common | {"alpha", "temperature", "at.weight"})}


def test_without_a_shared_temperature_each_method_has_its_own_range():
    space = SearchSpace.parse({"method": ["kd", "tfkd"]})
    for config in draws(space, 50):
        own = "kd.temperature" if config["method"] == "kd" else "tfkd.temperature"
        low, high = (1, 16) if own.startswith("kd") else (4, 40)
        assert low <= config[own] <= high
        assert "temperature" not in config


def test_a_contrastive_temperature_is_not_the_one_that_softens():
    space = SearchSpace.parse({"method": ["crd"], "temperature": {"uniform": [2, 8]}})
    assert space.keys() == {"method", "width", "alpha", "crd.weight"}


def test_a_grid_lists_every_combination_once_per_method():
    space = SearchSpace.parse(
        {"method": ["kd", "none"], "temperature": {"choice": [2, 4]}, "alpha": {"choice": [0.1, 0.9]}, "width": 1.0}
    )
    grid = list(space.grid())
    assert len(grid) == 2 * 2 + 1
    assert {"method": "none", "width": 1.0} in grid
    assert {"method": "kd", "width": 1.0, "temperature": 4, "alpha": 0.9} in grid


def test_a_grid_over_a_continuous_range_is_refused():
    with pytest.raises(SpaceError, match="sampler grid cannot enumerate"):
        list(SearchSpace.parse({"method": ["kd"], "alpha": {"uniform": [0, 1]}}).grid())
    drawn_by_the_second = SearchSpace.parse({"method": ["kd", "hint"], "alpha": 0.5, "temperature": 4.0})
    with pytest.raises(SpaceError, match="sampler grid cannot enumerate"):
        next(drawn_by_the_second.grid())


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ({"choice": [0.25, 0.5, 1.0]}, {"choice": [0.25, 0.5]}),
        ({"choice": [0.5]}, {"choice": [0.5]}),
        (0.5, 0.5),
    ],
)
def test_widths_that_break_a_constraint_are_taken_out_of_the_space(written, kept):
    space = SearchSpace.parse({"method": ["none"], "width": written}).limit_width(lambda _, width: width <= 0.6)
    assert space.shared["width"].written() == kept


def test_a_range_of_widths_is_cut_at_the_constraint():
    space = SearchSpace.parse({"method": ["none"], "width": {"uniform": [0.1, 2.0]}})
    cut = space.limit_width(lambda _, width: width <= 0.6).shared["width"]
    assert cut.low == 0.1
    assert cut.high == pytest.approx(0.6, abs=1e-9)
    assert space.limit_width(lambda _, width: False) is None


def test_a_point_is_held_against_the_space_of_its_method():
    space = SearchSpace.parse({"method": ["kd", "hint"], "temperature": {"uniform": [2, 8]}})
    assert point_faults(space, {"method": "kd", "temperature": 4}) == []
    assert point_faults(space, {"temperature": 4}) == []
    ((path, message),) = point_faults(space, {"method": "hint", "temperature": 4})
    assert path == ("temperature",)
    assert "is not drawn for hint" in message


@pytest.mark.parametrize(
    ("written", "inside", "outside"),
    [
        ({"uniform": [0, 1]}, 0.5, 1.5),
        ({"loguniform": [1e-3, 1]}, 0.01, 0.0001),
        ({"quniform": [0, 1, 0.25]}, 0.75, 0.8),
        ({"randint": [1, 5]}, 5, 2.5),
        ({"lograndint": [1, 64]}, 64, 65),
        ({"choice": ["a", 2]}, 2, 3),
        (7, 7, 8),
    ],
)
def test_a_distribution_draws_what_it_contains_and_reads_what_it_writes(written, inside, outside):
    parsed = distributions.parse(written)
    assert parsed.contains(inside)
    assert not parsed.contains(outside)
    assert distributions.parse(parsed.written()) == parsed
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    assert all(parsed.contains(parsed.suggest(study.ask(), "x")) for _ in range(50))


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (None, "found None; accepted: a constant, or one of choice"),
        ({}, "found {}; accepted: a constant"),
        ({"uniform": 3}, "uniform has 3; accepted: a list, as in {uniform: [low, high]}"),
        ({"uniform": [1]}, "uniform: wrong number of values, 1; accepted: {uniform: [low, high]}"),
        ({"randint": [1, 2.5]}, "randint bound is 2.5; accepted: a whole number"),
        ({"uniform": [1, "2"]}, "uniform bound is '2'; accepted: a finite number"),
        ({"uniform": [True, 2]}, "uniform bound is True; accepted: a finite number"),
        ({"quniform": [0, 1, 0]}, "quniform step is 0; accepted: a number above 0"),
        ({"choice": [1, 1]}, "choice repeats a value: [1, 1]"),
        ({"choice": [[1]]}, "choice contains [1]; accepted: numbers, strings, true, false"),
        (float("inf"), "found inf; accepted: a finite number"),
    ],
)
def test_a_wrong_distribution_says_what_was_found_and_what_is_accepted(written, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared below
        distributions.parse(written)
    assert message in str(caught.value)


@pytest.mark.parametrize("written", [{"uniform": [16, 64]}, {"quniform": [16, 64, 16]}])
def test_a_whole_number_is_not_drawn_from_a_continuous_range(written):
    with pytest.raises(SpaceError, match="accepted: a choice, randint or lograndint"):
        SearchSpace.parse({"method": ["none"], "batch_size": written})


def test_settings_of_parts_are_drawn_only_where_they_have_an_effect():
    written = {
        "method": ["none"], "nesterov": [True, False], "dampening": [0.0, 0.5], "momentum": [0.0, 0.9],
        "optimizer": ["adam", "sgd"], "label_smoothing": [0.0, 0.1], "task_loss": ["cross_entropy", "multi_margin"],
    }  # fmt: skip
    space = SearchSpace.parse(written)
    found = draws(space, 400)
    for config in found:
        sgd, moves = config["optimizer"] == "sgd", config.get("momentum") == 0.9
        assert ("momentum" in config) is sgd
        assert ("dampening" in config) is (sgd and moves)
        assert ("nesterov" in config) is (sgd and moves and config["dampening"] == 0)
        assert ("label_smoothing" in config) is (config["task_loss"] == "cross_entropy")
    # For the optimizers: adam, sgd without momentum, sgd dampened, sgd with nesterov or not; for the losses: 2 + 1.
    assert len(list(space.grid())) == 5 * 3
    assert {frozenset(config.items()) for config in found} == {frozenset(config.items()) for config in space.grid()}


def test_settings_that_every_searched_part_takes_are_drawn_in_the_order_written():
    written = {"method": ["none"], "weight_decay": [0.0, 0.1], "momentum": [0.5, 0.9], "optimizer": ["sgd"]}
    assert list(SearchSpace.parse(written).parameters("none")) == ["width", "weight_decay", "momentum", "optimizer"]
    assert list(SearchSpace.parse({**written, "optimizer": ["adam", "sgd"]}).parameters("none")) == [
        "width", "weight_decay", "optimizer", "momentum"
    ]  # fmt: skip


def test_a_point_with_a_setting_that_has_no_effect_is_refused():
    space = SearchSpace.parse({"method": ["none"], "optimizer": ["adam", "sgd"], "momentum": [0.5, 0.9]})
    assert point_faults(space, {"optimizer": "sgd", "momentum": 0.9}) == []
    ((path, message),) = point_faults(space, {"optimizer": "adam", "momentum": 0.9})
    assert path == ("momentum",)
    assert "has no effect with the point's other values" in message


def test_a_list_is_a_choice_and_true_is_not_1():
    assert distributions.parse([True, False]) == distributions.Choice((True, False))
    with pytest.raises(SpaceError, match="found 1; accepted: false, true"):
        SearchSpace.parse({"method": ["none"], "nesterov": [1, False]})
