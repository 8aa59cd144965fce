"""search.balance: widths are drawn in turn, and samplers see results relative to the best of their width."""

from __future__ import annotations

import math
from collections import Counter

import optuna
import pytest
from optuna.trial import TrialState

from kdsweep.config.load import load_spec
from kdsweep.search.proposer import BoundedMemory, Proposer
from kdsweep.search.section import SearchSection
from kdsweep.search.space import SearchSpace

WIDTHS = [0.25, 0.5, 1.0]
SPACE = SearchSpace.parse({
    "method": ["kd", "none"], "width": {"choice": WIDTHS}, "temperature": 4, "alpha": 0.5,
    "lr": {"loguniform": [1e-5, 1.0]},
})  # fmt: skip


def value_of(config):
    """Wide students are much better, distilled ones a little, and each width needs its own learning rate."""
    best = {0.25: -1, 0.5: -2, 1.0: -3}[config["width"]]
    gain = 0.02 * (config["method"] == "kd")
    return 0.5 + gain + 0.3 * config["width"] - 0.02 * abs(math.log10(config["lr"]) - best)


def proposals(proposer, first, last):
    configs = []
    for number in range(first, last):
        config = proposer.propose(number)
        proposer.tell(config, TrialState.COMPLETE, [0.5 * value_of(config), value_of(config)])
        configs.append(config)
    return configs


def widths(configs):
    return Counter(config["width"] for config in configs if config["method"] != "none")


@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_widths_get_equally_many_proposals_that_are_not_plain(sampler, share):
    search = SearchSection(trials=36, balance="width", sampler=sampler, plain_share=share, startup_trials=8)
    counted = widths(proposals(Proposer.of(search, SPACE, 0), 0, 36))
    assert max(counted.values()) - min(counted.values()) <= 1
    assert sum(counted.values()) >= 9


def test_without_balance_the_sampler_prefers_the_best_width():
    space = SearchSpace.parse(SPACE.written() | {"method": ["kd"]})
    counted = widths(proposals(Proposer.of(SearchSection(trials=60, startup_trials=8), space, 0), 0, 60))
    assert counted[1.0] > 2 * counted[0.25]


def test_points_count():
    points = [{"method": "kd", "width": 1.0}] * 2 + [{"method": "kd", "width": 0.25}]
    search = SearchSection(trials=9, balance="width", plain_share=0.0, points=points, sampler="random")
    space = SearchSpace.parse({"method": ["kd"], "width": {"choice": WIDTHS}, "lr": {"loguniform": [1e-4, 1.0]}})
    configs = proposals(Proposer.of(search, space, 0), 0, 6)
    assert [config["width"] for config in configs] == [1.0, 1.0, 0.25, 0.5, 0.25, 0.5]


def test_each_width_is_drawn_with_the_learning_rates_that_suit_it():
    space = SearchSpace.parse(SPACE.written() | {"method": ["kd"]})
    configs = proposals(Proposer.of(SearchSection(trials=90, balance="width", startup_trials=15), space, 1), 0, 90)
    for width, best in ((0.25, -1), (0.5, -2), (1.0, -3)):
        rates = sorted(math.log10(config["lr"]) for config in configs[45:] if config["width"] == width)
        assert rates[len(rates) // 2] == pytest.approx(best, abs=0.75)


def test_a_search_taken_up_again_proposes_the_same():
    search = SearchSection(trials=60, balance="width", startup_trials=8)
    whole = Proposer.of(search, SPACE, 0)
    configs = proposals(whole, 0, 24)
    again = Proposer.of(search, SPACE, 0)
    for config in configs:
        again.recall(config)
    for config in configs[::-1]:
        again.tell(config, TrialState.COMPLETE, [0.5 * value_of(config), value_of(config)])
    assert proposals(whole, 24, 32) == proposals(again, 24, 32)


def test_samplers_see_values_minus_the_best_of_the_same_width_at_the_same_epoch():
    memory = BoundedMemory(recent=10, group_of=lambda params: params["width"])
    study = optuna.create_study(storage=memory, direction="maximize")
    trials = []
    for width, values in ((0.25, [0.3, 0.5]), (0.25, [0.4]), (1.0, [0.7, 0.9]), (1.0, [0.6, 0.8])):
        study.enqueue_trial({"width": width})
        trial = study.ask()
        trial.suggest_categorical("width", WIDTHS)
        trial.report(values[-1], len(values))
        memory.note_values(trial._trial_id, values)
        trials.append((trial, values))
    for trial, values in trials:
        complete = len(values) == 2
        study.tell(trial, values[-1] if complete else None, None if complete else TrialState.PRUNED)
    seen = study.get_trials(deepcopy=False)
    assert [max(t.intermediate_values.values()) for t in seen] == pytest.approx([0.0, 0.0, 0.0, -0.1])
    assert [t.value for t in seen if t.state is TrialState.COMPLETE] == pytest.approx([0.0, 0.0, -0.1])


def test_a_grid_and_a_range_of_widths_are_not_balanced(sweep_file):
    grid = {"space": {"method": ["kd", "none"], "width": {"choice": WIDTHS}, "temperature": 4, "alpha": 0.5},
            "search": {"sampler": "grid", "trials": 9, "balance": "width"}}  # fmt: skip
    spec = load_spec(sweep_file, grid)
    proposer = Proposer.of(spec.search, spec.search_space, 0)
    assert [proposer.propose(number)["width"] for number in range(6)] == WIDTHS * 2
    space = SearchSpace.parse(SPACE.written() | {"width": {"uniform": [0.25, 1.0]}})
    search = SearchSection(trials=20, balance="width", sampler="random")
    proposer = Proposer.of(search, space, 0)
    assert len({proposer.propose(number)["width"] for number in range(20)}) == 20
