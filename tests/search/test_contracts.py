"""Every sampler and stopping rule keeps its contract."""

from __future__ import annotations

import pytest

from kdsweep.search.samplers import SAMPLERS
from kdsweep.search.stopping import STOPPING_RULES, StoppingRule
from kdsweep.testing import SamplerContract, StoppingRuleContract


@pytest.mark.parametrize("name", SAMPLERS)
class TestSamplers(SamplerContract):
    @pytest.fixture(autouse=True)
    def named(self, name):
        self.name = name

    def make(self):
        return SAMPLERS.create(self.name)


@pytest.mark.parametrize("name", STOPPING_RULES)
class TestStoppingRules(StoppingRuleContract):
    @pytest.fixture(autouse=True)
    def named(self, name):
        self.name = name

    def make(self, epochs):
        return STOPPING_RULES.create(self.name, epochs)


class Hasty(StoppingRule):
    """Breaks every rule: it stops whoever comes second to an epoch, of any group."""

    def __init__(self, epochs):
        super().__init__(epochs)
        self.seen = set()

    @property
    def milestones(self):
        return [1, self.epochs]

    def reached(self, group, key, epoch, value):
        return epoch in self.seen or bool(self.seen.add(epoch))


@pytest.mark.parametrize(
    "test",
    [
        "test_it_looks_at_rising_epochs_below_the_budget",
        "test_it_stops_trials_at_its_milestones_only",
        "test_groups_do_not_concern_each_other",
        "test_a_trial_that_comes_to_an_epoch_again_is_not_stopped_there",
    ],
)
def test_a_rule_that_breaks_the_contract_is_found_out(test):
    contract = StoppingRuleContract()
    contract.make = Hasty
    with pytest.raises(AssertionError):
        getattr(contract, test)()
