"""Contract tests that every sampler must pass."""

from __future__ import annotations

from collections.abc import Iterator

from optuna.trial import TrialState

from kdsweep.distributions import Config
from kdsweep.search.proposer import Proposer
from kdsweep.search.samplers import Sampler
from kdsweep.search.space import SearchSpace

TRIALS = 24
SPACES = (
    {
        "method": ["kd", "hint", "none"],
        "width": [0.5, 1.0],
        "temperature": {"uniform": [1, 8]},
        "alpha": {"uniform": [0.1, 0.9]},
        "batch_size": {"lograndint": [8, 64]},
        "lr": {"loguniform": [1e-4, 1e-1]},
    },
    {"method": ["kd", "none"], "temperature": [2, 4, 8, 16], "alpha": [0.5, 0.9], "kd": {"weight": 1.0}},
)


class SamplerContract:
    """Subclass this and implement `make`, which creates your sampler."""

    def make(self) -> Sampler:
        """Create a new sampler."""
        raise NotImplementedError

    def test_it_proposes_what_lies_in_the_space_and_nothing_else(self) -> None:
        """A configuration must have exactly the settings that its method uses, each within its distribution."""
        for space, configs in self._runs():
            for config in configs:
                method = str(config["method"])
                assert config.keys() == {"method", *space.parameters(method)}, config
                assert all(space.parameters(method)[key].contains(config[key]) for key in config.keys() - {"method"})

    def test_it_proposes_the_same_again(self) -> None:
        """A proposal may depend only on its number and on earlier results."""
        assert [configs for _, configs in self._runs()] == [configs for _, configs in self._runs()]

    def test_a_resumed_search_proposes_what_an_uninterrupted_one_does(self) -> None:
        """A new sampler must need nothing but the replayed results."""
        for space, configs in self._runs():
            proposer = self._proposer(space)
            for config in configs[: len(configs) // 2]:
                proposer.recall(config)
                proposer.tell(config, TrialState.COMPLETE, [_value(config)])
            assert proposer.propose(len(configs) // 2) == configs[len(configs) // 2]

    def test_it_goes_on_while_trials_run_fail_and_are_stopped(self) -> None:
        """The sampler must handle trials that end without a value."""
        for space, _ in self._runs():
            proposer = self._proposer(space)
            for number in range(min(TRIALS, proposer.limit)):
                config = proposer.propose(number)
                if number % 3 == 1:
                    proposer.tell(config, TrialState.FAIL, [])
                elif number % 3 == 2:
                    proposer.tell(config, TrialState.PRUNED, [_value(config)])

    def _runs(self) -> Iterator[tuple[SearchSpace, list[Config]]]:
        """Run a search in each space that the sampler supports, reporting every trial right after its proposal."""
        from kdsweep.search.parsing import SpaceError

        for written in SPACES:
            space = SearchSpace.parse(written)
            try:
                proposer = self._proposer(space)
            except SpaceError:
                continue
            configs = []
            for number in range(min(TRIALS, proposer.limit)):
                configs.append(proposer.propose(number))
                proposer.tell(configs[-1], TrialState.COMPLETE, [_value(configs[-1])])
            yield space, configs

    def _proposer(self, space: SearchSpace) -> Proposer:
        return Proposer(self.make(), space, trials=TRIALS, seed=3)


def _value(config: Config) -> float:
    return 0.5 + 0.1 * (config["method"] == "kd") - abs(float(config.get("alpha", 0.0)) - 0.5) / 10
